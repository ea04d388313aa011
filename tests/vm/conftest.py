# SPDX-License-Identifier: MIT
"""Fixtures for the tests of ``pyuio vm``: a way to run it, and a check after each test that no QEMU is left."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyuio.vm import cache, kernels
from pyuio.vm.machine import qemu_version
from tests import debian_qemu
from tests.guest import igb_uio, kernel_module
from tests.run import ARCHITECTURE

# These need a compiler for arm64, or have no sense elsewhere: make test-arm64.
ONLY_ARM64 = ["test_arm64_code.py", "test_arm64_iommu.py", "test_platform.py"]
collect_ignore = [] if ARCHITECTURE.name == "arm64" else ONLY_ARM64

PYUIO = [sys.executable, "-m", "pyuio.cli"]
QEMU = (shutil.which(ARCHITECTURE.qemu) and qemu_version(ARCHITECTURE.qemu)) or (0, 0)
by_proxy = pytest.mark.skipif(QEMU >= (8, 2), reason="about QEMU before 8.2, where cards in Python are behind a proxy")
LIMIT = 240  # seconds for any one guest, on a busy machine; pyuio ends a guest that stands still long before


@pytest.fixture(scope="module")
def qemu_with_cards() -> Iterator[None]:
    """Put a QEMU that can have cards in Python before this machine's, if that cannot, as Debian 13's."""
    with pytest.MonkeyPatch.context() as patch:
        if (8, 2) <= QEMU < (10, 1):
            patch.setenv("PATH", str(debian_qemu.fetch(cache.root() / "qemu")), prepend=os.pathsep)
        yield


class Vm:
    """Runs ``pyuio vm run`` with a mark that finds its QEMU among all processes."""

    def __init__(self) -> None:
        self.mark = f"pyuio-test-{uuid.uuid4().hex}"
        self.append = ""  # kernel parameters
        self.one_thread = True  # beside other guests this takes a third less processor time

    def command(self, *words: str) -> list[str]:
        parameters = ["--append", self.append] if self.append else []
        parameters += ["--one-thread"] if self.one_thread else []
        return [*PYUIO, "vm", "run", "--arch", ARCHITECTURE.name, "--qemu", f"-name {self.mark}", *parameters, *words]

    def run(
        self,
        *words: str,
        stdin: bytes = b"",
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        limit: float = LIMIT,
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.command(*words), input=stdin, capture_output=True, cwd=cwd, env=env, timeout=limit, check=False
        )

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def qemu(self) -> list[int]:
        """Return the processes that are this test's QEMU."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if (
                entry.name.isdigit()
                and words[0].endswith(ARCHITECTURE.qemu.encode())
                and self.mark.encode() in b" ".join(words)
            ):
                found.append(int(entry.name))
        return found

    def wait_for_qemu(self) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if found := self.qemu():
                return found[0]
            time.sleep(0.05)
        raise AssertionError("QEMU did not start")

    def left(self) -> list[int]:
        """Return the QEMU processes that still exist after the kernel had a moment to remove killed ones."""
        deadline = time.monotonic() + 5
        while (found := self.qemu()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found


@pytest.fixture
def vm() -> Iterator[Vm]:
    made = Vm()
    yield made
    left = made.left()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, "QEMU was left behind"


@pytest.fixture(scope="session", autouse=True)
def kernel() -> Path:
    """Return the directory of the default kernel; fetch the kernel here, so that it does not count in a test's time."""
    result = subprocess.run(
        [*PYUIO, "vm", "fetch", "--arch", ARCHITECTURE.name],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 0, result.stderr
    return Path(result.stdout.split(" in ", 1)[1].strip())


def igb_uio_module() -> Path:
    """Return the path of igb_uio for the guest's kernel; build it if it is not there."""
    build = Path(__file__).resolve().parents[2] / "build"
    version = kernels.prepare("debian", print).version
    build.mkdir(exist_ok=True)
    with (build / "prepare.lock").open("w") as lock:  # another part of the tests may build it at this moment
        fcntl.flock(lock, fcntl.LOCK_EX)
        kernel_module.build(version, build / "modules", igb_uio.MODULE)
    return kernel_module.path(version, build / "modules", "igb_uio")
