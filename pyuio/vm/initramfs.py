# SPDX-License-Identifier: MIT
"""The guest's initramfs: virtme-ng assembles it for a kernel, and pyuio replaces its first program.

virtme-ng knows which of a kernel's modules a guest needs and in which order, and finds a static busybox. Under
emulation its own ``/init`` and guest program take 9 to 21 s to reach a command; pyuio's take 1 to 2 s. Linux unpacks
several archives from one initramfs, and later files replace earlier ones. So pyuio appends its own archive. virtme-ng
is under the GPL: pyuio runs it as a program and never imports it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from pyuio.vm.errors import KernelError

SBIN = "/usr/sbin:/sbin"  # directories of depmod and modprobe, which an ordinary user's PATH lacks
VIRTME_TIME_LIMIT = 120.0  # seconds; virtme-ng takes 1


def tool_environment() -> dict[str, str]:
    """Return the environment for tools on the host: the caller's, with the sbin directories and the locale C."""
    return {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:{SBIN}", "LC_ALL": "C"}


def assemble(image: Path, version: str, archive: Path) -> None:
    """Let virtme-ng assemble the initramfs of a kernel.

    Args:
        image: The kernel, as ROOT/boot/vmlinuz-VERSION with its modules in ROOT/lib/modules/VERSION.
        version: The kernel's version, as uname -r would print it.
        archive: The file to write: an uncompressed cpio archive.

    Raises:
        KernelError: virtme-ng is not installed, or failed.
    """
    virtme = shutil.which("virtme-run", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}")
    if virtme is None:
        raise KernelError("virtme-ng is not installed: pip install virtme-ng")
    work = archive.parent / "virtme"
    work.mkdir()
    # virtme-ng asks file(1) for the version, which is known here; file(1) may not be installed.
    (work / "file").write_text(f"#!/bin/sh\necho {shlex.quote(f'statically linked, version {version}')}\n")
    (work / "file").chmod(0o755)
    environment = tool_environment()
    environment["PATH"] = f"{work}:{environment['PATH']}"
    command = [
        virtme,
        "--kimg",
        str(image),
        "--mods",
        "auto",
        "--busybox",
        _busybox(),
        "--save-initramfs",
        str(archive),
    ]
    # The overlay directory makes virtme-ng include the overlay module; the other options keep it from doing more.
    command += ["--overlay-rwdir", "/tmp", "--force-initramfs", "--force-9p", "--disable-kvm", "--disable-microvm"]
    command += ["--dry-run", "--script-sh", "true"]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environment,
            timeout=VIRTME_TIME_LIMIT,
        )
    except subprocess.TimeoutExpired as error:
        raise KernelError(f"virtme-ng did not finish within {VIRTME_TIME_LIMIT:.0f} s") from error
    finally:
        shutil.rmtree(work)
    if result.returncode != 0 or not archive.exists():
        detail = (result.stderr or result.stdout).strip().splitlines()
        raise KernelError(f"virtme-ng cannot make an initramfs for {image}: {detail[-1] if detail else 'no message'}")


def _busybox() -> str:
    """Return the path of a busybox that needs no libraries and so runs in an initramfs.

    Raises:
        KernelError: There is none.
    """
    for name in ("busybox-static", "busybox.static", "busybox"):
        path = shutil.which(name, path=tool_environment()["PATH"])
        if path is not None and b"/ld-linux" not in Path(path).read_bytes()[:4096]:
            return path
    raise KernelError("no statically linked busybox: apt install busybox-static (Fedora and Arch: busybox)")


def _entry(number: int, name: str, mode: int, data: bytes) -> bytes:
    """Return one file of a cpio archive (Linux, Documentation/driver-api/early-userspace/buffer-format.rst)."""
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return header + b"\0" * (-len(header) % 4) + data + b"\0" * (-len(data) % 4)


def overlay_archive(mode: str, busybox: Path | None = None) -> bytes:
    """Make the archive that is appended to virtme-ng's.

    Args:
        mode: ``run``: the guest asks for `configuration` and runs COMMAND; ``probe``: it prints one line and ends.
        busybox: A static busybox for the guest's processor, in place of this machine's.

    Returns:
        A cpio archive, which must be appended at a multiple of 4 bytes.
    """
    here = resources.files("pyuio.vm")
    entries = [
        _entry(1, "init", 0o100755, (here / "initramfs_init.sh").read_bytes()),
        _entry(2, "pyuio", 0o040700, b""),
        _entry(3, "pyuio/guest_init.sh", 0o100755, (here / "guest_init.sh").read_bytes()),
        _entry(4, "pyuio/mode", 0o100600, mode.encode() + b"\n"),
        # The kernel runs modprobe for crypto, and virtme-ng's only says that it has no modules: this saves 0.3 s.
        _entry(5, "bin/modprobe", 0o100600, b""),
    ]
    if busybox is not None:
        entries.append(_entry(6, "bin/busybox", 0o100755, busybox.read_bytes()))
    return b"".join([*entries, _entry(0, "TRAILER!!!", 0, b"")])


def configuration(variables: Mapping[str, str]) -> bytes:
    """Return what the guest asks for: a line with a size in bytes, and of that size shell variables for its scripts."""
    lines = os.fsencode("".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items()))
    return b"%d\n" % len(lines) + lines


def _tool(name: str) -> str:
    """Return the path of a program that every system has."""
    return shutil.which(name, path=tool_environment()["PATH"]) or f"/usr/bin/{name}"


def command_script(command: list[str], directory: str, environment: Mapping[str, str], own: Sequence[str] = ()) -> str:
    """Write the shell script that becomes COMMAND in the guest.

    Args:
        command: The program and its arguments; any bytes (surrogateescape).
        directory: The program's working directory.
        environment: The program's complete environment.
        own: The directories at the top that are not the host's in this guest, other than those of the kernel.

    Returns:
        The script. It ends with 125 if the directory cannot be entered, and as a shell does, with 126 or 127, if the
        program cannot be run.
    """
    # Use the host's env: busybox's would run its own applets instead of the host's programs.
    words = [_tool("env"), "-i", "--", *(f"{name}={value}" for name, value in environment.items())]
    if "=" in command[0]:
        words += [_tool("nice"), "-n", "0"]  # otherwise env would take the program for one more variable
    places = ", ".join(f"/{name}" for name in sorted(("dev", "proc", "run", "sys", *own)))
    lost = f"pyuio: the guest does not see {directory}: it has its own {places}"
    enter = f"cd {shlex.quote(directory)} 2>/dev/null || {{ echo {shlex.quote(lost)} >&2; exit 125; }}"
    return f"{enter}\nexec {shlex.join([*words, *command])}\n"
