# SPDX-License-Identifier: MIT
"""A process of an ordinary user that has the kernel wait for it, with one of its locks held: for test_process_files.py.

    python -S unanswering.py DIRECTORY epoll|memory

It mounts a file system of its own, in namespaces of its own, maps a file of it and never delivers its content. So
whatever wants a page of it waits; it prints "waits" then, or "refused" if the kernel does not come to want it.
DIRECTORY is empty. To end it, kill its process group.

Sources: ``include/uapi/linux/fuse.h``; ``fs/eventpoll.c``; ``include/uapi/linux/io_uring.h``.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import sys
import threading
from pathlib import Path

NOBODY = 65534
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
EPOLLIN, EPOLL_CTL_ADD = 1, 1
IO_URING_SETUP, IO_URING_REGISTER, IORING_REGISTER_BUFFERS = 425, 427, 0
LOOKUP, GETATTR, OPEN, READ, INIT = 1, 3, 14, 15, 26  # enum fuse_opcode
FILE = 2  # its node id; the root's is 1
libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is the user's own
    checked(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {NOBODY} 1")
    Path("/proc/self/gid_map").write_text(f"0 {NOBODY} 1")


def attributes(node: int) -> bytes:
    """Return a struct fuse_attr."""
    mode = 0o40755 if node == 1 else 0o100666
    return struct.pack("<6Q10I", node, 4096, 8, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def serve(channel: int, asked: int) -> None:
    """Answer all requests but those for content, of which a byte in a pipe tells."""
    while True:
        request = os.read(channel, 1 << 20)
        _length, kind, unique, node = struct.unpack_from("<IIQQ", request)
        if kind == READ:
            os.write(asked, b"x")
            continue
        answers = {
            INIT: struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, 0),
            LOOKUP: struct.pack("<QQQQII", FILE, 0, 1000, 1000, 0, 0) + attributes(FILE),
            GETATTR: struct.pack("<QII", 1000, 0, 0) + attributes(node),
            OPEN: struct.pack("<QII", 0, 0, 0),
        }
        answer = answers.get(kind)
        error = -errno.ENOSYS if answer is None else 0
        answer = answer or b""
        os.write(channel, struct.pack("<IiQ", 16 + len(answer), error, unique) + answer)


def lock_an_epoll(page: int) -> None:
    """Have the kernel store an event in the page; it holds the lock of the epoll meanwhile."""
    reader, writer = os.pipe()
    os.write(writer, b"x")
    epoll = checked(libc.epoll_create1(0))
    checked(libc.epoll_ctl(epoll, EPOLL_CTL_ADD, reader, struct.pack("=IQ", EPOLLIN, 0)))
    libc.epoll_wait(epoll, ctypes.c_void_p(page), 1, -1)
    os.close(reader)


def lock_the_memory(page: int) -> None:
    """Have the kernel pin the page; some kernels hold the lock of the process's memory meanwhile."""
    ring = checked(libc.syscall(IO_URING_SETUP, 4, ctypes.create_string_buffer(120)))
    buffers = struct.pack("=QQ", page, 4096)
    libc.syscall(IO_URING_REGISTER, ring, IORING_REGISTER_BUFFERS, buffers, 1)
    os.write(1, b"refused\n")  # from Linux 6.5 on: mm/gup.c, writable_file_mapping_allowed


def tell(asked: int, way: str) -> None:
    """Say so when the content was asked for."""
    os.read(asked, 1)
    os.write(1, b"waits\n")
    if way == "memory":  # who wants to change the memory waits for the lock, and so does who comes then
        mmap.mmap(-1, 1 << 20)


def main() -> None:
    directory, way = sys.argv[1:]
    become_nobody()
    channel = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={channel},rootmode=40000,user_id=0,group_id=0".encode()
    checked(libc.mount(b"none", directory.encode(), b"fuse", 0, options))
    asked, asking = os.pipe()
    if os.fork() == 0:  # a process of its own, without which this one could not be killed
        os.close(1)
        serve(channel, asking)
    os.close(channel)
    memory = mmap.mmap(os.open(f"{directory}/file", os.O_RDWR), 4096)
    page = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    what = {"epoll": lock_an_epoll, "memory": lock_the_memory}[way]
    # All threads begin before, as a thread's stack is memory, too.
    threading.Thread(target=tell, args=(asked, way), daemon=True).start()
    threading.Thread(target=what, args=(page,), daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
