# SPDX-License-Identifier: MIT
"""The files that processes have open or mapped, looked at so that no process can deceive or delay who looks.

Others choose much of what ``/proc`` shows. So a file is known by its numbers, not by the path that ``/proc`` has for
it: in a mount namespace of its own a process can have any file under any path. And the owner of a process can have some
questions never answered, by a file system in user space (FUSE):

- ``stat`` asks the file's server. `identity` does not: the kernel answers with what it knows (statx(2),
  AT_STATX_DONT_SYNC).
- Reading ``fdinfo`` waits for locks of some files. An epoll waits in the kernel with one held while it stores an event
  in memory that a server has to deliver (``fs/eventpoll.c``, ep_send_events, ep_show_fdinfo); who waits for that lock
  cannot be killed. So ``fdinfo`` is read only of what may be sought, and the link in ``fd``, which the kernel alone
  answers, is read first.
- Reading ``maps`` waits for the lock of the process's memory, which a page fault may hold. So it is read by a thread
  that need not come back.

Sources: proc(5); ``fs/proc/fd.c``; ``io_uring/fdinfo.c``; ``net/unix/af_unix.c``, unix_show_fdinfo.
"""

from __future__ import annotations

import functools
import os
import re
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

_Result = TypeVar("_Result")

_PROC = Path("/proc")
_AT_FDCWD, _DONT_SYNC, _BASIC = -100, 0x4000, 0x7FF  # AT_FDCWD, AT_STATX_DONT_SYNC, STATX_BASIC_STATS
# struct statx, linux/stat.h: the mode, the inode, and the numbers of devices behind the four times.
_STATX = struct.Struct("=28xH2xQ88xIIII112x")
# kcmp(2) has no function in the C library. The numbers are those of 64-bit kernels; elsewhere all threads count.
_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272}
_KCMP_FILES = 2
_NEWCOMERS_SECONDS = 2.0

_IO_URING = "anon_inode:[io_uring]"
VFIO_FUNCTION = "anon_inode:[vfio-device]"
"""What ``/proc`` shows for a function that is open by VFIO, and for a mapping of its BARs, whichever it is."""

# Such a function, or a function's device file (`pyuio.kernel.iommufd`), in an io_uring.
_KEPT_FUNCTION = re.compile(r"(anon_inode:)?\[vfio-device\]|(/dev/vfio/devices/)?vfio\d+( \(deleted\))?")


class Identity(NamedTuple):
    """What a file is, whatever it is called.

    Attributes:
        device, inode: of the file system, and in it; as os.stat has them.
        node: whether it is a block device, and its number; None for what is no device node.
    """

    device: int
    inode: int
    node: tuple[bool, int] | None


class OpenFile(NamedTuple):
    """A file that a process has open.

    Attributes:
        path: what the kernel calls it; the process may have had a hand in that, unless it begins with "anon_inode:".
        identity: None for what has no path, as a pipe.
        writable: whether it is open for writing.
        inside: the files that an io_uring keeps open, of which there need be no descriptor: their names, or since Linux
            6.7 their paths. Of a function that is open by VFIO, its path in sysfs, since Linux 6.18.
        on_their_way: how many files wait in a UNIX socket for whoever reads from it (SCM_RIGHTS). They may be in no
            process, and the kernel does not tell which they are.
    """

    path: str
    identity: Identity | None
    writable: bool
    inside: tuple[str, ...] = ()
    on_their_way: int = 0

    @property
    def is_some_function(self) -> bool:
        """Whether it is, or an io_uring keeps, a function that is open by VFIO, and the kernel does not tell which."""
        if self.path == VFIO_FUNCTION:
            return not self.inside
        if self.path.startswith("/dev/vfio/devices/") and self.path.endswith(" (deleted)"):  # it is being taken
            return self.identity is not None and _is_function(self.identity.node)
        return any(_KEPT_FUNCTION.fullmatch(name) for name in self.inside)


@functools.cache
def _library() -> Any:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _is_function(node: tuple[bool, int] | None) -> bool:
    """Return whether the number of a node is that of a function's device file (``drivers/vfio/device_cdev.c``)."""
    major = re.search(r"^ *([0-9]+) vfio-dev$", (_PROC / "devices").read_text(), re.MULTILINE)
    return node is not None and major is not None and (node[0], os.major(node[1])) == (False, int(major[1]))


def identity(path: Path) -> Identity:
    """Return what a file is, without a question to the server of the file. OSError: the kernel's answer."""
    import ctypes

    answer = ctypes.create_string_buffer(_STATX.size)
    if _library().statx(_AT_FDCWD, os.fsencode(path), _DONT_SYNC, _BASIC, answer):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    mode, inode, node_major, node_minor, major, minor = _STATX.unpack(answer.raw)
    is_node = stat.S_ISBLK(mode) or stat.S_ISCHR(mode)
    node = (stat.S_ISBLK(mode), os.makedev(node_major, node_minor)) if is_node else None
    return Identity(os.makedev(major, minor), inode, node)


def processes() -> Iterator[int]:
    """Yield the ids of all processes: those that are there, and those that begin while the caller looks at them."""
    seen: set[int] = set()
    deadline = None
    while deadline is None or time.monotonic() < deadline:
        new = {int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()} - seen
        if not new:
            return
        yield from sorted(new)
        seen |= new
        deadline = deadline or time.monotonic() + _NEWCOMERS_SECONDS


def name_of(process: int) -> str:
    """Return what a process calls itself, which is text of others. OSError: it has ended."""
    return (_PROC / str(process) / "comm").read_text(errors="replace").strip()


def _shares_files(one: int, other: int) -> bool:
    number = _KCMP.get(os.uname().machine) if sys.maxsize > 2**32 else None
    return number is not None and _library().syscall(number, one, other, _KCMP_FILES, 0, 0) == 0


def _with_descriptors(process: int) -> list[Path]:
    """Return the directory in ``/proc`` of a thread for each set of descriptors that a process's threads have.

    The first thread may have ended; each may have left the common set (unshare(2)). A set is looked at once: a process
    may have very many descriptors, and very many threads. OSError: the process has ended, or is another user's.
    """
    distinct: list[int] = []
    for thread in sorted(int(entry.name) for entry in (_PROC / str(process) / "task").iterdir()):
        if not any(_shares_files(one, thread) for one in distinct):
            distinct.append(thread)
    return [_PROC / str(process) / "task" / str(thread) for thread in distinct]


def opened(process: int, inodes: Collection[int] = ()) -> Iterator[OpenFile]:
    """Yield the files that a process has open: anonymous ones, those below ``/dev``, and those with certain inodes.

    OSError: the process has ended, or is another user's.

    Args:
        process: its id.
        inodes: of the files that are sought, as some files with other paths may be the same.
    """
    for thread in _with_descriptors(process):
        try:
            entries = list((thread / "fd").iterdir())
        except OSError:  # this thread has ended
            continue
        for entry in entries:
            with suppress(OSError, ValueError):  # it was closed
                if (found := _open_file(thread, entry, inodes)) is not None:
                    yield found


def _open_file(thread: Path, entry: Path, inodes: Collection[int]) -> OpenFile | None:
    path = os.readlink(entry)  # noqa: PTH115  # Path would change the text
    info = thread / "fdinfo" / entry.name
    if path.startswith("socket:"):
        return OpenFile(path, None, True, on_their_way=int(_fields(info).get("scm_fds", 0)))
    if not path.startswith("/"):
        return OpenFile(path, None, True, _inside(path, info))
    if not path.startswith("/dev/"):
        fields = _fields(info)
        # Linux before 5.14 does not tell the inode: look at all then.
        if "ino" in fields and int(fields["ino"]) not in inodes:
            return None
    what = identity(entry)
    if what.inode not in inodes and what.node is None:
        return None
    flags = int(_fields(info)["flags"], 8)
    # O_PATH opens nothing, and so needs no permission: anybody has such a descriptor, and may send it to others.
    return None if flags & os.O_PATH else OpenFile(path, what, flags & os.O_ACCMODE != os.O_RDONLY)


def _fields(info: Path) -> dict[str, str]:
    lines = info.read_text(errors="replace").splitlines()
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


def _inside(path: str, info: Path) -> tuple[str, ...]:
    if path == VFIO_FUNCTION:
        function = _fields(info).get("vfio-device-syspath")
        return () if function is None else (function,)
    if path == _IO_URING:
        _, _, table = info.read_text(errors="replace").partition("UserFiles:")
        return tuple(re.findall(r"^ *[0-9]+: (.+)$", table.partition("UserBufs:")[0], re.MULTILINE))
    return ()


def mapped(process: int) -> list[tuple[int, int, str]]:
    """Return the files that a process has mapped: device and inode, as os.stat has them, and path.

    Raises:
        TimeoutError: the process keeps its memory locked.
        OSError: it has ended, or is another user's.
    """
    return _in_time(lambda: _mapped(process), f"process {process} does not show what it has mapped")


def _mapped(process: int) -> list[tuple[int, int, str]]:
    found = set()
    # The first thread may have ended, and shows nothing then. They all have the same memory.
    for thread in sorted((_PROC / str(process) / "task").iterdir(), key=lambda entry: int(entry.name)):
        with suppress(OSError):
            for line in (thread / "maps").read_text(errors="replace").split("\n"):
                words = line.split(maxsplit=5)
                if len(words) > 5:
                    major, minor = (int(number, 16) for number in words[3].split(":"))
                    found.add((os.makedev(major, minor), int(words[4]), words[5]))
        if found:
            break
    return sorted(found)


class _Patience:
    """Seconds to wait for an answer: fewer each time that none came, because there may be many such processes."""

    seconds = 5.0
    LEAST = 0.1


def _in_time(what: Callable[[], _Result], reason: str) -> _Result:
    """Return what a function returns; raise TimeoutError if it does not in time, and leave its thread alone."""
    result: list[_Result] = []
    errors: list[OSError] = []

    def call() -> None:
        try:
            result.append(what())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(_Patience.seconds)
    if errors:
        raise errors[0]
    if not result:
        waited, _Patience.seconds = _Patience.seconds, max(_Patience.LEAST, _Patience.seconds / 2)
        raise TimeoutError(f"{reason} within {waited:.1f} s")
    return result[0]
