# SPDX-License-Identifier: MIT
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyuio.process import python_module

SHOW = "import json, sys, pyuio\nprint(__name__, sys.argv[1:], json.__file__)\n"


def test_nothing_comes_from_the_current_directory(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for directory in (here, elsewhere):
        directory.mkdir()
    (here / "json.py").write_text("raise SystemExit(9)\n")
    (here / "show_theirs.py").write_text("raise SystemExit(9)\n")
    (elsewhere / "show_mine.py").write_text(SHOW)

    def run(name: str) -> subprocess.CompletedProcess[str]:
        words = [*python_module.command(name), "a b", "-c"]
        environment = {**os.environ, "PYTHONPATH": str(elsewhere)}
        return subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True, check=False)

    assert run("show_mine").stdout == f"__main__ ['a b', '-c'] {json.__file__}\n"
    assert "No module named show_theirs" in run("show_theirs").stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="-P came with Python 3.11")
def test_it_leaves_out_nothing_else(tmp_path: Path) -> None:
    """With PYTHONSAFEPATH, the first entry of sys.path is not the current directory."""
    (tmp_path / "show.py").write_text(SHOW)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(python_module.command("show"), env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("__main__ []"), done.stderr
