# SPDX-License-Identifier: MIT
"""Uses every function of QEMU's edu card but DMA, and prints the results: ``make demo``.

An argument gives the address of a card. If a step fails, the program names it and ends with 1. In the guest::

    $ pyuio vm run -- python examples/demo.py
    edu on uio_pci_generic, Linux ..., from Python
    ... ms  opening the card ... 0000:00:01.0 bound and opened as /dev/uio0
    ... ms  identification ... edu 1.0, BAR 0: memory at 0x..., 0x100000 bytes, 32-bit
    ... ms  liveness ... 35 patterns came back inverted
    ... ms  factorials by polling ... 0! to 12! = 479,001,600
    ... ms  factorials by interrupt ... 0! to 12! = 479,001,600
    ... ms  interrupts ... 1000 raised, counted and acknowledged; 0 lost
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable

from pyuio_drivers.edu import LARGEST_FACTORIAL, Edu

import pyuio

INTERRUPTS = 1000
NUMBERS = range(LARGEST_FACTORIAL + 1)


def expect(what: str, found: object, wanted: object) -> None:
    """Raise ValueError unless `found` equals `wanted`."""
    if found != wanted:
        raise ValueError(f"{what}: {found} instead of {wanted}")


def identify(card: Edu) -> str:
    """Read the card's identification."""
    major, minor = card.version
    return f"edu {major}.{minor}, {card.device.config.bars()[0]}"


def check_liveness(card: Edu) -> str:
    """Write patterns, and check that their inverse comes back."""
    patterns = [0, 0xFFFFFFFF, 0x12345678, *(1 << bit for bit in range(32))]
    for pattern in patterns:
        expect(f"the inverse of {pattern:#010x}", card.liveness(pattern), pattern ^ 0xFFFFFFFF)
    return f"{len(patterns)} patterns came back inverted"


def compute(factorial: Callable[[int], int]) -> str:
    """Compute every factorial that fits the card's 32 bits."""
    results = [factorial(number) for number in NUMBERS]
    for number, result in zip(NUMBERS, results, strict=True):
        expect(f"{number}!", result, math.factorial(number))
    return f"0! to {NUMBERS[-1]}! = {results[-1]:,}"


def count_interrupts(card: Edu) -> str:
    """Raise interrupts one by one, each with a status bit of its own; count and acknowledge each."""
    interrupt = card.device.interrupt
    before = card.device.uio.event_count
    counted = 0
    for number in range(INTERRUPTS):
        bits = 1 << number % 32
        card.raise_interrupt(bits)
        counted += interrupt.read(timeout=1.0)
        expect("interrupt status", card.interrupt_status(), bits)
        card.acknowledge(bits)
    expect("status after the last", card.interrupt_status(), 0)
    expect("interrupts counted", counted, INTERRUPTS)
    expect("interrupts the kernel counted", card.device.uio.event_count - before, INTERRUPTS)
    return f"{counted} raised, counted and acknowledged; {INTERRUPTS - counted} lost"


STEPS: list[tuple[str, Callable[[Edu], str]]] = [
    ("identification", identify),
    ("liveness", check_liveness),
    ("factorials by polling", lambda card: compute(card.factorial)),
    ("factorials by interrupt", lambda card: compute(card.factorial_by_interrupt)),
    ("interrupts", count_interrupts),
]


def show(step: str, result: str, start: float) -> None:
    """Print a line: how long a step took, its name, and its result."""
    print(f"{(time.perf_counter() - start) * 1e3:8.1f} ms  {step:23}  {result}", flush=True)


def main() -> int:
    """Run every step on one card and print a line for each; return the exit status."""
    print(f"edu on uio_pci_generic, Linux {os.uname().release}, from Python", flush=True)
    step = "opening the card"
    try:
        start = time.perf_counter()
        with Edu.open(sys.argv[1] if len(sys.argv) > 1 else None) as card:
            show(step, f"{card.device.name} bound and opened as {card.device.uio.path}", start)
            for step, run in STEPS:
                start = time.perf_counter()
                show(step, run(card), start)
            step = "closing the card"
    except (pyuio.PyuioError, ValueError, OSError) as error:
        print(f"demo: failed at step {step!r}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
