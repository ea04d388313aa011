# SPDX-License-Identifier: MIT
"""Guests with a processor of another kind: what is refused, and what is said when something is missing here."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pyuio.vm import GuestStartError, KernelError, Options, environment, kernels, library_cache, machine, native_build
from pyuio.vm.architecture import AMD64, ARM64
from pyuio.vm.image import kernel_architecture, kernel_version, unpack
from pyuio.vm.initramfs import tool_environment


def quiet(text: str) -> None:
    pass


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The beginning of a kernel for arm64 (Documentation/arch/arm64/booting.rst), and what it says of its version."""
    path = tmp_path / "Image"
    head = struct.pack("<4xI6Q4sI", 0, 0, 0, 0, 0, 0, 0, b"ARM\x64", 0)
    path.write_bytes(head + b"\0Linux version 6.1.0-9-arm64 (someone@somewhere) #1 SMP\0")
    return path


def test_options() -> None:
    assert (Options().machine, Options().architecture) == ("q35", AMD64)
    assert Options(arch="arm64").machine.startswith("virt,")
    assert Options(arch="arm64", machine="sbsa-ref").machine == "sbsa-ref"
    with pytest.raises(ValueError, match="arch must be amd64 or arm64: not 'mips'"):
        Options(arch="mips")


def test_an_image(image: Path, tmp_path: Path) -> None:
    assert kernel_architecture(image) == "arm64"
    assert kernel_version(image) == "6.1.0-9-arm64"
    unpack(image, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == image.read_bytes()


def test_a_kernel_for_another_processor_is_refused(image: Path) -> None:
    with pytest.raises(KernelError, match="is a kernel for arm64, and the guest's processor is amd64: --arch arm64"):
        kernels.prepare(str(image), quiet)
    with pytest.raises(KernelError, match="the running kernel is for x86_64, and the guest's processor is arm64"):
        kernels.prepare("host", quiet, architecture=ARM64)


def test_no_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GuestStartError, match="qemu-system-aarch64 is not installed: apt install qemu-system-arm"):
        machine.find_qemu(ARM64)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GuestStartError, match=r"aarch64-linux-gnu-gcc is not installed.*: apt install gcc-aarch64"):
        native_build.prepare(ARM64, tmp_path, (3, 11), tmp_path / "base", quiet)
    assert [path.name for path in (tmp_path / "base").iterdir()] == [".lock"]


def test_no_virtual_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    with pytest.raises(GuestStartError, match="a guest for arm64 needs pyuio in a virtual environment"):
        environment.prepare(ARM64, tmp_path, (3, 11), tmp_path, quiet, False)


def test_another_python(tmp_path: Path) -> None:
    with pytest.raises(GuestStartError, match=r"and Debian's for arm64 is 3\.7: make the environment with python3\.7"):
        environment.prepare(ARM64, tmp_path, (3, 7), tmp_path, quiet, False)


def test_the_cache_of_libraries(tmp_path: Path) -> None:
    """Ldconfig itself reads it, and finds it sorted as it sorts."""
    for name in ("lib/aarch64-linux-gnu/libz.so.1", "usr/lib/aarch64-linux-gnu/libz.so.1", "etc/none"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for number in (2, 10):
        (tmp_path / f"usr/lib/aarch64-linux-gnu/liba.so.{number}").touch()
    library_cache.write(tmp_path, "arm64", ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu"))
    command = ["ldconfig", "-p", "-C", str(tmp_path / "etc/ld.so.cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=tool_environment())
    assert [" ".join(line.split()) for line in done.stdout.splitlines()[1:4]] == [
        "libz.so.1 (libc6,AArch64) => /lib/aarch64-linux-gnu/libz.so.1",
        "liba.so.10 (libc6,AArch64) => /usr/lib/aarch64-linux-gnu/liba.so.10",
        "liba.so.2 (libc6,AArch64) => /usr/lib/aarch64-linux-gnu/liba.so.2",
    ]
