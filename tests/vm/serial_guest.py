# SPDX-License-Identifier: MIT
"""test_serial.py runs this program in a guest: each case has a port, whose other end is on the host; prints JSON."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import runpy
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from pyuio_drivers.serial16550 import Serial16550, WriteTimeoutError
from pyuio_drivers.serial_received import BREAK, LineError

import pyuio

SIZE = int(sys.argv[1])  # bytes to echo
UNREAD = int(sys.argv[2])  # bytes that the driver holds while Python does not read
FIRST_SLOT = 0x10  # the slot on the bus of the first case's port
EXAMPLE = Path(__file__).resolve().parents[2] / "examples/serial_console.py"


@contextlib.contextmanager
def opened(address: str) -> Iterator[Serial16550]:
    with Serial16550(pyuio.open(address, bind=True)) as port:
        port.baudrate = 115200
        port.timeout = port.write_timeout = 200
        yield port


def busy(stop: threading.Event) -> None:
    """Compute in a Python thread that never sleeps: the driver must receive even when Python gets no turn."""
    while not stop.is_set():
        sum(range(1000))


def echo(address: str) -> dict[str, object]:
    """The host sends all data back."""
    data = random.randbytes(SIZE)
    with opened(address) as port:
        start = time.monotonic()
        port.write(data)  # the driver takes what comes back meanwhile
        received = port.read(SIZE)
        seconds = time.monotonic() - start
        port.timeout = 0.2
        return {"same": received == data, "more": len(port.read(1)), "seconds": seconds}


def receive(address: str) -> dict[str, object]:
    """The host sends all data at once, while Python is busy and does not read."""
    stop = threading.Event()
    with opened(address) as port:
        port.write(b"go\n")
        threading.Thread(target=busy, args=[stop], daemon=True).start()
        time.sleep(max(0.5, UNREAD / 20_000))
        stop.set()
        digest = hashlib.sha256(port.read(UNREAD)).hexdigest()
        port.write(digest.encode() + b"\n")
        port.flush()
        return {"digest": digest}


def late(address: str) -> dict[str, object]:
    """The host reads nothing until the write has failed."""
    data = bytes(range(256)) * 16  # the host's socket has no room for that many pieces of one byte
    with opened(address) as port:
        port.write_timeout = 1
        try:
            port.write(data)
        except WriteTimeoutError as error:
            waiting = port.out_waiting
            print("the write has failed", flush=True)
            port.write_timeout = 60
            port.write(data[error.written :])
            port.flush()
            return {"written": error.written, "error": str(error), "waiting": waiting}
    return {}


def breaks(address: str) -> dict[str, object]:
    """The host sends bytes and breaks, each after the guest has read and answered the one before."""
    with opened(address) as port:
        port.write(b"go\n")
        found: list[str] = []
        reason = ""
        while "e" not in found:
            try:
                found.append(port.read(1).decode())
            except LineError as error:
                found.append("break" if error.status == BREAK else str(error))
                reason = str(error)
            port.write(b".")
        port.flush()
        return {"found": found, "reason": reason}


class Console:
    """The example runs with a shell on the host at the other end, in a fork: to start Python again takes seconds."""

    def __init__(self, address: str) -> None:
        self._streams = [tempfile.TemporaryFile("w+") for _ in range(3)]  # noqa: SIM115
        self._streams[0].write("echo $((6 * 7))\nuname -n >/dev/null; echo done\nexit\n")
        self._streams[0].seek(0)
        self._pid = os.fork()
        if self._pid == 0:
            for number, stream in enumerate(self._streams):
                os.dup2(stream.fileno(), number)
            sys.argv = [str(EXAMPLE), address]
            runpy.run_path(str(EXAMPLE), run_name="__main__")
            sys.exit()

    def console(self, address: str) -> dict[str, object]:
        """Return what it printed."""
        os.waitpid(self._pid, 0)
        for stream in self._streams:
            stream.seek(0)
        return {"output": self._streams[1].read(), "errors": self._streams[2].read()}


def run(number: int, case: Callable[[str], dict[str, object]], results: dict[str, object]) -> None:
    try:
        results[case.__name__] = case(f"0000:00:{FIRST_SLOT + number:02x}.0")
    except Exception:
        results[case.__name__] = {"failed": traceback.format_exc()}


if __name__ == "__main__":
    results: dict[str, object] = {}
    begun = Console(f"0000:00:{FIRST_SLOT + 4:02x}.0")
    thread = threading.Thread(target=run, args=[2, late, results])  # it mostly waits for the host
    thread.start()
    for number, case in ((0, echo), (1, receive), (3, breaks), (4, begun.console)):
        run(number, case, results)
    thread.join()
    print(json.dumps(results))
