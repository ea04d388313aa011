# SPDX-License-Identifier: MIT
"""Whom ``pyuio vm`` trusts: not the author of a kernel image, other users, or the guest."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pyuio.vm import GuestError, GuestStartError, KernelError, cache, invoking_user, kernels
from pyuio.vm.image import kernel_version

from .conftest import Vm

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="about root's guests")
NOBODY = 65534


def image(directory: Path, version: bytes) -> Path:
    """Write a file that is a bzImage as far as its header goes."""
    data = bytearray(0x1000)
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x20E, 0x300 - 0x200)
    data[0x300 : 0x300 + len(version)] = version
    path = directory / "bzImage"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "version", [b"6.1.0';id>PWNED;'", b"../../../../x", b"-n", b"6.1/x", b"6.1$(id)", b".", b"6.1\xc3\xa9"]
)
def test_a_version_that_is_no_version(tmp_path: Path, version: bytes) -> None:
    with pytest.raises(KernelError, match=r"version|not a Linux kernel"):
        kernel_version(image(tmp_path, version + b" (x@y) #1"))


def test_a_version_in_a_manifest(tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    (stage / "lib/modules").mkdir(parents=True)
    cache.finish(stage, tmp_path / "final", {"version": ".."})
    assert kernels._cached(tmp_path / "final") is None


def test_ordinary_versions(tmp_path: Path) -> None:
    for version in ("6.1.0-56-amd64", "6.12.1+deb13-rt-amd64", "6.8.0_custom~1"):
        assert kernel_version(image(tmp_path, f"{version} (x@y) #1".encode())) == version


@AS_ROOT
def test_the_cache_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    own = cache.root()
    assert own.stat().st_mode & 0o777 == 0o700
    os.chown(own, NOBODY, NOBODY)
    with pytest.raises(GuestStartError, match=f"another user can write to {own}"):
        cache.root()
    os.chown(own, 0, 0)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "open/cache"))
    with pytest.raises(GuestStartError, match="another user can write to"):
        cache.root()
    own.chmod(0o770)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert cache.root() == own, "the group root has nobody but root"
    os.chown(own, 0, NOBODY)
    with pytest.raises(GuestStartError, match=f"another user can write to {own}"):
        cache.root()
    os.chown(own, 0, 0)
    own.chmod(0o700)
    (tmp_path / "link").symlink_to(tmp_path / "own")
    os.chown(tmp_path / "link", NOBODY, NOBODY, follow_symlinks=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "link"))
    with pytest.raises(GuestStartError, match=f"another user can write to {tmp_path}/link"):
        cache.root()


def test_a_lock_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "made")
    with pytest.raises(OSError, match="symbolic links"), cache.locked(tmp_path, print):
        pass
    assert not (tmp_path / "made").exists()


@AS_ROOT
def test_a_guest_has_the_rights_of_the_user_who_called_sudo() -> None:
    program = """
import os
from pyuio.vm import invoking_user
invoking_user.become()
print(os.getresuid(), os.getresgid(), os.getgroups(), os.environ["HOME"])
"""
    for name in ("SUDO_UID", "PKEXEC_UID"):
        variables = {**os.environ, name: str(NOBODY)}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=variables, check=True
        )
        assert done.stdout.startswith(f"({NOBODY}, {NOBODY}, {NOBODY}) ({NOBODY}, {NOBODY}, {NOBODY}) [{NOBODY}] /")
    for bad in ("x", "4000000000", "-1", "99999999999999999999"):
        variables = {**os.environ, "SUDO_UID": bad}
        command = [sys.executable, "-m", "pyuio.cli", "vm", "run", "--", "true"]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
        assert done.returncode == GuestError.status
        assert "SUDO_UID is" in done.stderr


@AS_ROOT
def test_the_reports_of_such_a_guest_are_that_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest --card-in-guest reads what the guest, with that user's rights, writes to a directory of pytest's."""
    monkeypatch.delenv("SUDO_UID", raising=False)
    (tmp_path / "link").symlink_to(tmp_path)
    invoking_user.give(tmp_path / "link")
    assert (tmp_path / "link").lstat().st_uid == 0
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    invoking_user.give(tmp_path / "link")
    assert (tmp_path / "link").lstat().st_uid == NOBODY
    assert tmp_path.stat().st_uid == 0, "it follows no link"


@AS_ROOT
def test_out_of_root_is_roots_alone(vm: Vm, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    done = vm.run("--out", str(shared), "--", "true")
    assert done.returncode == 2
    assert b"chmod 700" in done.stderr
    shared.chmod(0o700)
    os.chown(shared, NOBODY, NOBODY)
    assert vm.run("--out", str(shared), "--", "true").returncode == 2


@AS_ROOT
def test_out_of_root_stays_where_it_is(vm: Vm, tmp_path: Path) -> None:
    """Nobody can put a link in its place after it was looked at."""
    (tmp_path / "others/out").mkdir(parents=True, mode=0o700)
    os.chown(tmp_path / "others", NOBODY, NOBODY)
    done = vm.run("--out", str(tmp_path / "others/out"), "--", "true")
    assert done.returncode == 2
    assert f"another user can write to {tmp_path}/others".encode() in done.stderr


def put_modules(directory: Path) -> None:
    """Do what another user does in a directory: put modules there, one by a name that every program imports."""
    for name in ("json", "theirs"):
        (directory / f"{name}.py").write_text("open('PWNED', 'w')\nraise SystemExit(9)\n")


@AS_ROOT
@pytest.mark.usefixtures("qemu_with_cards")
def test_no_module_of_another_user(tmp_path: Path) -> None:
    """A card is imported from the current directory, unless that is one like /tmp."""
    put_modules(tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def refusal(card: str, **more: str) -> str:
        # python -m would itself import from the current directory.
        command = [str(Path(sys.executable).with_name("pyuio")), "vm", "run", f"--card={card}", "--", "true"]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env={**environment, **more}, check=False
        )
        assert done.returncode == GuestError.status, done.stderr
        return done.stderr

    for mode, owner in ((0o1777, 0), (0o700, NOBODY)):
        tmp_path.chmod(mode)
        os.chown(tmp_path, owner, owner)
        assert "its cards: EduCard" in refusal("pyuio_drivers.models.edu:Other")
        assert f"another user can write to {tmp_path}" in refusal("theirs:Card")
        assert not (tmp_path / "PWNED").exists()
    (tmp_path / "json.py").unlink()
    os.chown(tmp_path, 0, 0)
    (tmp_path / "theirs.py").chmod(0o666)
    assert f"another user can write to {tmp_path}/theirs.py" in refusal("theirs:Card")
    assert not (tmp_path / "PWNED").exists()
    refusal("theirs:Card", PYTHONPATH=".")
    assert (tmp_path / "PWNED").exists(), "who says so trusts them"


@AS_ROOT
def test_no_program_of_another_user(vm: Vm, tmp_path: Path) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/PWNED\n")
    program.chmod(0o755)
    os.chown(tmp_path, NOBODY, NOBODY)
    variables = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = vm.run("--device", "nonsuch", "--", "true", env=variables)
    assert b"'nonsuch' is not a valid device model name" in done.stderr  # so says QEMU, and no guest starts
    assert not (tmp_path / "PWNED").exists()


@AS_ROOT
def test_a_guest_does_not_see_the_hosts_processes(vm: Vm) -> None:
    """Below the guest's own /proc there is an empty directory, whichever way the guest looks at it."""
    look = """
mount --bind / /mnt
for name in proc sys run dev; do ls -A /mnt/$name | wc -l; done
umount -l /proc; ls -A /proc | wc -l
test -e /mnt/usr/bin/env && echo "files are there"
"""
    done = vm.run("--", "sh", "-c", look)
    assert done.stdout == b"0\n" * 5 + b"files are there\n", done.stderr
