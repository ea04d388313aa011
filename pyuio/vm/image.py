# SPDX-License-Identifier: MIT
"""Kernel images: the version in one, and the kernel that is packed in it.

QEMU boots an uncompressed vmlinux for x86 directly (PVH). Under emulation the kernel takes 3 s to unpack itself at
every boot; this module unpacks it once. Offsets: Linux, Documentation/arch/x86/boot.rst. Kernels for arm64 are not
packed (Documentation/arch/arm64/booting.rst), except those that a firmware starts and QEMU does not.
"""

from __future__ import annotations

import bz2
import lzma
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

from pyuio.vm.errors import KernelError

_ELF = b"\x7fELF"
# A version is a part of paths and of a shell script. The author of an image writes into it what he likes.
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+~-]{0,99}")


def is_version(text: str) -> bool:
    """Return whether `text` can be a kernel's version, as in 6.1.0-56-amd64."""
    return _VERSION.fullmatch(text) is not None


def _header(data: bytes) -> bool:
    return len(data) > 0x250 and data[0x202:0x206] == b"HdrS"


def _is_arm64(data: bytes) -> bool:
    return data[56:60] == b"ARM\x64"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KernelError(f"cannot read the kernel {path}: {error.strerror}") from error


def kernel_architecture(path: Path) -> str:
    """Return Debian's name for the processor that a kernel is for; "" if the file is no kernel that QEMU can start.

    Raises:
        KernelError: The file cannot be read.
    """
    data = _read(path)
    if _is_arm64(data):
        return "arm64"
    return "amd64" if _header(data) or data.startswith(_ELF) else ""


def kernel_version(path: Path) -> str:
    """Return the version of a bzImage, vmlinux or Image, as uname -r would print it.

    Raises:
        KernelError: The file is none of them, or cannot be read.
    """
    data = _read(path)
    text = b""
    if _header(data):
        (offset,) = struct.unpack_from("<H", data, 0x20E)
        text = data[offset + 0x200 : offset + 0x300]
    elif (data.startswith(_ELF) or _is_arm64(data)) and (found := re.search(rb"Linux version (\S+ )", data)):
        text = found[1]
    match = re.match(rb"([\x21-\x7e]+) ", text)
    if match is None:
        raise KernelError(f"{path} is not a Linux kernel: a bzImage or a vmlinux for x86, or an Image for arm64")
    version = match[1].decode()
    if not is_version(version):
        raise KernelError(f"{path} gives its version as {version!r}, which no kernel has")
    return version


def _decompress(payload: bytes) -> bytes | None:
    """Unpack a payload by the method that its first bytes name; return None if that method is not available."""
    try:
        if payload.startswith(b"\xfd7zXZ"):
            return lzma.LZMADecompressor().decompress(payload)
        if payload.startswith(b"\x5d\0\0"):
            return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(payload)
        if payload.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(payload)
        if payload.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(payload)
        if payload.startswith(b"\x28\xb5\x2f\xfd") and shutil.which("zstd"):
            # The kernel's makefile appends the size in 4 bytes, which are not part of the compressed data.
            command = ["zstd", "-dcq"]
            return subprocess.run(command, input=payload[:-4], capture_output=True, check=True, timeout=60).stdout
    except (lzma.LZMAError, zlib.error, OSError, ValueError, subprocess.SubprocessError):
        return None
    return None


def _boots_directly(data: bytes) -> bool:
    """Return whether QEMU can start this vmlinux: an ELF note (Xen's type 18) must give the address of a PVH entry."""
    notes = (struct.pack("<III4s", 4, size, 18, b"Xen\0") for size in (4, 8))
    return data.startswith(_ELF) and any(note in data for note in notes)


def unpack(image: Path, destination: Path) -> None:
    """Write the kernel in `image` to `destination`, or a plain copy of `image` if it cannot be unpacked.

    Raises:
        KernelError: `image` is not a kernel, or cannot be read.
    """
    data = _read(image)
    if _header(data):
        sectors = data[0x1F1] or 4
        offset, length = struct.unpack_from("<II", data, 0x248)
        start = (sectors + 1) * 512 + offset
        vmlinux = _decompress(data[start : start + length])
        if vmlinux is not None and _boots_directly(vmlinux):
            data = vmlinux
    elif not _is_arm64(data) and not _boots_directly(data):
        raise KernelError(f"{image} has no PVH entry (CONFIG_PVH), so QEMU cannot start it: give the bzImage")
    destination.write_bytes(data)
