# SPDX-License-Identifier: MIT
"""What QEMU's monitor may reply, without QEMU."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from pyuio.vm.monitor import Monitor, MonitorError


@pytest.fixture
def ends() -> Iterator[tuple[Monitor, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Monitor(ours), theirs


def say(qemu: socket.socket, **message: object) -> None:
    qemu.sendall(json.dumps(message).encode() + b"\r\n")


def test_an_event_is_awaited(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    for status in ("setup", "active", "completed"):
        say(qemu, event="MIGRATION", data={"status": status})
    assert monitor.wait_for(None, 10, "MIGRATION", status="completed")["data"] == {"status": "completed"}


def test_a_failure_is_not_waited_out(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    say(qemu, event="MIGRATION", data={"status": "failed"})
    with pytest.raises(MonitorError, match="MIGRATION: failed"):
        monitor.wait_for(None, 10, "MIGRATION", status="completed")


def test_an_end_is_not_waited_out(ends: tuple[Monitor, socket.socket]) -> None:
    monitor, qemu = ends
    qemu.recv(65536)
    qemu.close()
    with pytest.raises(MonitorError, match="QEMU ended"):
        monitor.wait_for(None, 10, "MIGRATION", status="completed")
    with pytest.raises(MonitorError, match="failed"):
        monitor.ask("query-status")
