# SPDX-License-Identifier: MIT
"""Runs in the guest of test_serial.py, as ``serial_guest.py CASE``, with that case's other end on the host."""

from __future__ import annotations

import contextlib
import hashlib
import random
import sys
import threading
import time
from collections.abc import Iterator

from pyuio_drivers.serial16550 import Serial16550, WriteTimeoutError
from pyuio_drivers.serial_received import LineError

import pyuio

SIZE = 115_200


@contextlib.contextmanager
def opened() -> Iterator[Serial16550]:
    with Serial16550(pyuio.open("1b36:0002", bind=True)) as port:
        port.baudrate = 115200
        port.timeout = port.write_timeout = 60
        yield port


def busy(stop: threading.Event) -> None:
    """A Python thread that never sleeps: what is received must not depend on Python's turn."""
    while not stop.is_set():
        sum(range(1000))


def echo() -> None:
    """All of it there and back."""
    data = random.randbytes(SIZE)
    with opened() as port:
        start = time.monotonic()
        writer = threading.Thread(target=port.write, args=[data])
        writer.start()
        received = port.read(SIZE)
        writer.join()
        seconds = time.monotonic() - start
        port.timeout = 0.2
        print(f"same {received == data}, more {len(port.read(1))}, {seconds:.1f} s", flush=True)


def receive() -> None:
    """What the host sends all at once, while Python is busy and does not read."""
    stop = threading.Event()
    with opened() as port:
        port.write(b"go\n")
        threading.Thread(target=busy, args=[stop], daemon=True).start()
        time.sleep(3)
        stop.set()
        digest = hashlib.sha256(port.read(SIZE)).hexdigest()
        print(f"received {digest}", flush=True)
        port.write(digest.encode() + b"\n")
        port.flush()


def nobody_reads() -> None:
    """The host reads nothing until the write has failed."""
    data = bytes(range(256)) * 64  # the host's socket has no room for as many pieces of one byte
    with opened() as port:
        port.write_timeout = 2
        try:
            port.write(data)
        except WriteTimeoutError as error:
            print(f"{error.written} written: {error}", flush=True)
            print(f"waiting {port.out_waiting}", flush=True)
            port.write_timeout = 60
            port.write(data[error.written :])
            port.flush()
            print("all written", flush=True)


def breaks() -> None:
    """The host sends ab, a break, cd, one more break, and a zero."""
    with opened() as port:
        port.write(b"go\n")
        found: list[str] = []
        while "e" not in "".join(found):
            try:
                found.append(port.read(1).decode())
            except LineError as error:
                found.append(f"[{error.status:#x}]")
                reason = str(error)
        print("".join(found).encode(), flush=True)
        print(reason, flush=True)
        port.write(b"after\n")
        port.flush()


if __name__ == "__main__":
    {"echo": echo, "receive": receive, "nobody_reads": nobody_reads, "breaks": breaks}[sys.argv[1]]()
