# SPDX-License-Identifier: MIT
from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyuio.kernel.programs import SYSTEM_PATH, environment, find_program


@pytest.mark.parametrize("user", [0, 1000])
def test_root_runs_none_but_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int) -> None:
    for name in ("ls", "only-here"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert find_program("ls") == (str(tmp_path / "ls") if user else "/usr/bin/ls")
    assert find_program("only-here") == (str(tmp_path / "only-here") if user else None)
    assert find_program("no-such-program") is None
    assert environment()["PATH"] == (str(tmp_path) if user else SYSTEM_PATH)  # for what such a program runs
