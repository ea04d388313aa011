# SPDX-License-Identifier: MIT
from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyuio.kernel.programs import SYSTEM_PATH, environment, find_program, trusted_path


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


@pytest.mark.skipif(os.geteuid() != 0, reason="about root's PATH")
def test_root_leaves_out_where_others_can_put_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, sticky, others, below, gone = (tmp_path / name for name in ("own", "sticky", "others", "others/below", "gone"))
    for directory in (own, sticky, others, below):
        directory.mkdir()
    sticky.chmod(0o1777)
    os.chown(others, 65534, 65534)
    monkeypatch.chdir(sticky)
    everything = ["/usr/bin", *map(str, (own, sticky, others, below, gone)), "", "."]
    monkeypatch.setenv("PATH", ":".join(everything))
    assert trusted_path() == f"/usr/bin:{own}"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert trusted_path() == ":".join(everything)
