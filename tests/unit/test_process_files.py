# SPDX-License-Identifier: MIT
"""What this process has open, as another one would see it."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

from pyuio.kernel import process_files


def test_by_o_path_nothing_is_open(tmp_path: Path) -> None:
    """Anybody may have such a descriptor of a file that is not for them."""
    (tmp_path / "file").touch()
    with ExitStack() as stack:
        inodes = set()
        for path in (Path("/dev/full"), tmp_path / "file"):
            stack.callback(os.close, os.open(path, os.O_PATH))
            inodes.add(process_files.identity(path).inode)
        stack.callback(os.close, os.open("/dev/zero", os.O_RDONLY))
        found = {file.path for file in process_files.opened(os.getpid(), inodes)}
    assert "/dev/zero" in found
    assert not found & {"/dev/full", str(tmp_path / "file")}


def test_files_on_their_way_in_a_socket() -> None:
    with ExitStack() as stack:
        one, other = map(stack.enter_context, socket.socketpair())
        with Path("/dev/full").open("rb") as file:
            socket.send_fds(one, [b"\0"], [file.fileno()] * 2)
        assert max(file.on_their_way for file in process_files.opened(os.getpid())) == 2
        _, received, _, _ = socket.recv_fds(other, 1, 2)
        for descriptor in received:
            os.close(descriptor)
        assert not any(file.on_their_way for file in process_files.opened(os.getpid()))
