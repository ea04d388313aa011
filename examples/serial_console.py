# SPDX-License-Identifier: MIT
r"""A console on a serial port: sends the lines that you type, and shows what it receives. Ctrl-D or Ctrl-C ends it.

In a guest, with a shell of the host at the other end, which has no terminal and shows no prompt (`make setup` first):

    mkfifo line.in line.out
    sh < line.out > line.in 2>&1 &
    .venv/bin/pyuio vm run --qemu '-chardev pipe,id=line,path=line' --device pci-serial,chardev=line -- \
        .venv/bin/python examples/serial_console.py
    rm line.in line.out
"""

import sys
import threading

from pyuio_drivers.serial16550 import Serial16550
from pyuio_drivers.serial_received import LineError

import pyuio


def show(port: Serial16550) -> None:
    """Show received data until the port is closed."""
    while True:
        try:
            data = port.read(max(1, port.in_waiting))
        except LineError as error:
            data = f"\n[{error}]\n".encode()
        except pyuio.ClosedError:
            return
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def main(which: str = "1b36:0002") -> None:
    """Send lines, and show received data meanwhile and for a second after the last line."""
    # The kernel's own driver has the port from the start, and gets it back at the end.
    with Serial16550(pyuio.open(which, bind=True)) as port:
        port.baudrate = 115200
        shower = threading.Thread(target=show, args=[port])
        shower.start()
        try:
            for line in sys.stdin.buffer:
                port.write(line)
            port.flush()
            shower.join(1)
        except KeyboardInterrupt:
            pass
    shower.join()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except (pyuio.PyuioError, ValueError) as error:
        sys.exit(f"serial_console: {error}")
