# SPDX-License-Identifier: MIT
"""test_card.py runs this program in a guest with cards in Python: it uses them, and prints what it found, as JSON.

``card_guest.py PART [ARGUMENT]``: the parts are the functions below.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pyuio_drivers.edu import Edu

import pyuio
from pyuio.kernel.sysfs import PCI_DEVICES
from pyuio.vm import plugging
from tests.vm.cards import Counters, WideCard

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20


def edu_tests() -> str:
    """Run the tests of edu, and return pytest's last line."""
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()  # under emulation another Python would take seconds to start
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.chdir(ROOT)
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            import pytest

            sys.exit(pytest.main(["-q", "-pno:cacheprovider", "-ppytest_timeout", "tests/guest/test_edu.py"]))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        text = output.read()
    return text[-3000:] if status else text.splitlines()[-1]


def unhandled(irq: str) -> int:
    """Return how many interrupts of a line nobody wanted."""
    words = Path(f"/proc/irq/{irq}/spurious").read_text().split()
    return int(words[words.index("unhandled") + 1])


def count(ids: str, number: int, driver: bool | str = True) -> dict[str, Any]:
    """Have a card raise interrupts one after the other, and return what came of them."""
    with pyuio.open(ids, bind=driver) as device:
        registers = Counters(device.bar(0))
        directory = PCI_DEVICES / str(device.address)
        device.interrupt.poll(0)
        messages = [path.name for path in directory.glob("msi_irqs/*")]
        irq = messages[0] if messages else (directory / "irq").read_text().strip()
        before, taken = unhandled(irq), 0
        for _ in range(number):
            registers.raise_now.write(0)
            taken += device.interrupt.read(PATIENCE)
            registers.lower.write(0)
        time.sleep(0.05)
        more = device.interrupt.poll(0)
        return {
            "raised": registers.raised.read(),
            "taken": taken,
            "more": more,
            "unhandled": unhandled(irq) - before,
            "messages": len(messages),
        }


def accesses(ids: str) -> dict[str, Any]:
    """Access a card by every width, its memory and its ports, and return what was read back."""
    with pyuio.open(ids, bind=True) as device:
        registers, memory, ports = Counters(device.bar(0)), device.bar(2), device.bar(4)
        registers.narrow.write(0xA5)
        registers.half.write(0xBEEF)
        registers.wide.write(0x0123456789ABCDEF)
        registers.words.write(0, bytes(range(64)))
        memory.write(0, bytes(range(256)), width=8)
        ports.write16(6, 0x1234)
        return {
            "registers": [registers.narrow.read(), registers.half.read(), registers.wide.read()],
            "words": registers.words.read(0, 64).hex(),
            "memory": memory.read(0, 256, width=1).hex(),
            "ports": ports.read32(4),
            "BARs": [(bar.index, bar.kind, bar.size) for bar in device.config.bars()],
        }


def edu() -> dict[str, Any]:
    """Use an edu card by its driver: registers, an interrupt, DMA."""
    with Edu(pyuio.open("1234:11e8", bind=True)) as card:
        factorials = [card.factorial(0), card.factorial_by_interrupt(6, timeout=PATIENCE)]
        card.to_device(b"some data", timeout=PATIENCE)
        return {"factorials": factorials, "data": card.from_device(9, timeout=PATIENCE).decode()}


def cards(module: str, tests: str = "") -> dict[str, Any]:
    """Use cards in every way that does not end the run."""
    found: dict[str, Any] = {"edu": edu(), "accesses": accesses("1234:c0de"), "INTx": count("1234:c0de", 100)}
    if tests:
        found["tests"] = edu_tests()
    if module:
        for mode, ids in (("msix", "1234:c0d1"), ("msi", "1234:c0d2")):
            subprocess.run(["modprobe", "uio"], check=True)
            subprocess.run(["insmod", module, f"intr_mode={mode}"], check=True)
            found[mode] = count(ids, 30, "igb_uio")
            subprocess.run(["rmmod", "igb_uio"], check=True)
    return found


def vectors() -> dict[str, Any]:
    """Have a card raise its MSI-X vectors, and return which of them came each time."""
    with pyuio.open("1234:c0d1", bind="vfio-pci") as device:
        registers, interrupts = Counters(device.bar(0)), device.vectors(4)
        found = []
        for vector in (2, 0, 3, 1, 1):
            registers.raise_now.write(vector)
            count = interrupts[vector].read(PATIENCE)
            found.append([vector, count, *(one.poll(0) for one in interrupts)])
        return {"vectors": found}


def wide() -> dict[str, Any]:
    """Use a register far behind a BAR with an address of 64 bits."""
    with pyuio.open("1234:c0d3", bind=True) as device:
        bar = next(iter(device.config.bars()))
        last = WideCard.Registers(device.bar(0)).last
        last.write(0xFEEDF00D)
        return {"size": bar.size, "address": bar.address, "last": last.read()}


def hotplug() -> dict[str, Any]:
    """Have a card unplugged and plugged in while its driver uses it; then let it pull itself out."""
    found: dict[str, Any] = {}
    address = next(str(one.address) for one in pyuio.devices() if one.ids == "1234:11e8")
    present = PCI_DEVICES / address
    for _ in range(2):
        with Edu(pyuio.open(address, bind=True)) as card:
            found.setdefault("factorials", []).append(card.factorial_by_interrupt(6, timeout=PATIENCE))
            card.to_device(b"some data", timeout=PATIENCE)
            found.setdefault("data", []).append(card.from_device(9, timeout=PATIENCE).decode())
            plugging.unplug(0)
            found.setdefault("wait", []).append(ended(lambda card=card: card.device.interrupt.read(PATIENCE)))
            found.setdefault("unplugged", []).append(not present.exists())
        plugging.plug(0)
        wait_for(lambda: (present / "resource0").exists())
    found["refusals"] = [
        refusal(lambda: plugging.plug(0)),
        refusal(lambda: plugging.unplug(1)),
        refusal(lambda: plugging.unplug(9)),
    ]
    with Edu(pyuio.open(address, bind=True)) as card:
        card.registers.raise_interrupt.write(1)
        found["pulled out"] = ended(lambda: card.registers.identification.poll(lambda _: False, PATIENCE))
    wait_for(lambda: not present.exists())
    return found


def wait_for(condition: Any) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.01)


def ended(call: Any) -> str:
    """Return how a wait ended."""
    try:
        return f"returned {call()!r}"
    except pyuio.PyuioError as error:
        return type(error).__name__


def refusal(call: Any) -> str:
    """Return what a call's error says."""
    try:
        call()
    except plugging.PluggingError as error:
        return str(error)
    return ""


def provoke() -> dict[str, Any]:
    """Have a card fail, and return how its driver's next accesses ended."""
    with pyuio.open("1234:c0de", bind=True) as device:
        registers = Counters(device.bar(0))
        registers.lower.write(0)
        return {"driver": ended(lambda: registers.raised.poll(lambda _: False, 5))}


def complain() -> dict[str, Any]:
    """Do what no driver may do."""
    with pyuio.open("1234:c0de", bind=True) as device:
        Counters(device.bar(0)).lower.write(7)
        return {"driver": ended(lambda: device.bar(0).read8(0x18))}


def interrupts(number: str) -> dict[str, Any]:
    """Take many interrupts."""
    return count("1234:c0de", int(number))


if __name__ == "__main__":
    part, *arguments = sys.argv[1:]
    print(json.dumps(globals()[part](*arguments)), flush=True)
