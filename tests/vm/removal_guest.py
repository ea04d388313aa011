# SPDX-License-Identifier: MIT
"""test_removal.py runs this program in a guest: cards go, in every way, while threads wait for them in every way.

``removal_guest.py PART...``: see the end of this file.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyuio_drivers.edu import Edu, EduRegisters

import pyuio
from pyuio.inspect.inspection import Inspection
from pyuio.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS
from pyuio.kernel.vfio import group_of
from pyuio.pci.discovery import find
from pyuio.region import Region
from tests import edu_mask
from tests.vm.ask_host import LIMIT, ask_host, report

PORTS = ("0000:00:10.0", "0000:00:11.0", "0000:00:12.0")  # each has a card behind it: card0, card1, card2
ROOT_BUS = ("0000:00:18.0", "0000:00:19.0", "0000:00:1a.0")  # cards on the root bus: root0, root1, root2
ENDS = ("device_del", "remove", "unbind")
LIVENESS = EduRegisters.liveness.info.offset
NEVER = 0x0BAD0BAD  # the liveness register never has this value


def wait_until(condition: Callable[[], object], limit: float = LIMIT) -> float:
    """Wait until the condition holds, and return the time, by time.monotonic."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "it never came to be so"
        time.sleep(0.001)
    return time.monotonic()


# ---- Waits ----

Wait = Callable[[Edu], object]


def serve(card: Edu) -> object:
    with pyuio.Service(card.device.interrupt, card.acknowledge_program()) as service:
        return service.read()


def poll32(card: Edu) -> object:
    return card.bar.poll32(LIVENESS, 0xFFFFFFFF, NEVER, None)


def poll_by_name(card: Edu) -> object:
    return card.registers.liveness.poll(lambda register: register.read() == NEVER, None)


# Each group has a card of its own, because a service, or the end of a transfer, has the interrupt to itself.
WAITS: tuple[dict[str, Wait], ...] = (
    {
        "read": lambda card: card.device.interrupt.read(),
        "poll": lambda card: card.device.interrupt.poll(None),
        "read_async": lambda card: asyncio.run(card.device.interrupt.read_async()),
        "wait": lambda card: pyuio.wait([card.device.interrupt]),
        "poll32": poll32,
        "DMA to the card": lambda card: card.to_device(bytes(4095 * 600), timeout=20),
    },
    {
        "service": serve,
        "poll by name": poll_by_name,
        "DMA from the card": lambda card: card.from_device(4095 * 600, timeout=20),
    },
    {
        "DMA to the card by interrupt": lambda card: card.to_device(bytes(4095 * 600), by_interrupt=True, timeout=20),
        "poll32 besides": poll32,
    },
)


class Waiting(threading.Thread):
    """One wait, and how it ended."""

    def __init__(self, name: str, wait: Wait, card: Edu) -> None:
        super().__init__(name=name, daemon=True)
        self._wait_for = wait
        self._card = card
        self.ended = "not at all"
        self.when = 0.0
        self.start()

    def run(self) -> None:
        try:
            self.ended = f"returned {self._wait_for(self._card)!r}"
        except pyuio.DeviceRemovedError:
            self.ended = "removed"
        except BaseException:
            self.ended = traceback.format_exc()
        self.when = time.monotonic()


# ---- Uses afterwards ----


def uses(card: Edu) -> dict[str, Callable[[], object]]:
    """Every way to use a card, all of which must refuse once it is gone."""
    bar, device, named = card.bar, card.device, card.registers
    assert isinstance(bar, Region)
    found: dict[str, Callable[[], object]] = {}
    for bits in (8, 16, 32, 64):
        for verb, arguments in {"read": (), "write": (1,), "update": (1, 1), "set": (1,), "clear": (1,)}.items():
            method = getattr(bar, f"{verb}{bits}")
            found[method.__name__] = lambda method=method, arguments=arguments: method(0x80, *arguments)  # type: ignore[misc]
    return found | {
        "read of a run": lambda: bar.read(0, 16),
        "write of a run": lambda: bar.write(LIVENESS, bytes(4)),
        "poll32": lambda: bar.poll32(0, 0, 0, 0),
        "read by name": named.identification.read,
        "a field": lambda: named.identification.major,
        "write by name": lambda: named.liveness.write(1),
        "setting a field": lambda: setattr(named.status, "interrupt_after_factorial", True),
        "poll by name": lambda: named.status.poll(lambda status: True, 0),
        "big-endian": lambda: device.bar(0, endian="big").read32(0),
        "interrupt.read": lambda: device.interrupt.read(0),
        "interrupt.poll": lambda: device.interrupt.poll(0),
        "wait": lambda: pyuio.wait([device.interrupt], 0),
        "a service": lambda: serve(card),
        "configuration space": lambda: device.config.vendor_id,
        "command register": lambda: device.config.command,
        "BARs": device.config.bars,
        "DMA memory": lambda: device.dma.alloc(64),
        "DMA": lambda: card.to_device(b"data"),
        "factorial": lambda: card.factorial(5),
    }


def unrefused(card: Edu) -> list[str]:
    """Return the uses that did not raise DeviceRemovedError."""
    wrong = []
    for name, use in uses(card).items():
        try:
            wrong.append(f"{name}: {use()!r}")
        except pyuio.DeviceRemovedError:
            pass
        except Exception as error:
            wrong.append(f"{name}: {error!r}")
    return wrong


def refusal(card: Edu) -> str:
    """Return the errors of a read of the interrupt and of a following read of a register."""
    names = []
    uses: list[Callable[[], object]] = [lambda: card.device.interrupt.read(0), lambda: card.bar.read32(0)]
    for use in uses:
        try:
            names.append(str(use()))
        except pyuio.PyuioError as error:
            names.append(type(error).__name__)
    return " ".join(names)


def first_refusal(card: Edu, first: str) -> str:
    """Return the result of the first use of a card that is gone; nothing has noticed that it is gone."""
    try:
        return f"returned {uses(card)[first]()!r}"
    except pyuio.DeviceRemovedError:
        return "removed"
    except Exception as error:
        return repr(error)


# ---- Resources that are left ----


def held() -> dict[str, int]:
    """Return the resources that this process and the kernel hold for cards."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - only a count; the files may go meanwhile
        "mappings of devices": sum("/sys/" in line or "/dev/uio" in line for line in maps),
        "mappings of hugepages": sum("hugepage" in line for line in maps),
        "threads": len(os.listdir("/proc/self/task")),  # noqa: PTH208
        "hugepages": int(memory["HugePages_Total"]),
    }


def settled(before: dict[str, int]) -> dict[str, int]:
    """Return the resources that are held, once they equal those before, or after 3 s."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: held() == before, 3)
    return held()


# ---- Losing cards, and getting them back ----


def is_set_up(address: str) -> bool:
    """Return whether a card is there and ready for a driver: the kernel makes this file last."""
    # On arm64 the name of a bus there begins with the domain.
    return any(Path("/proc/bus/pci", bus, address[8:]).exists() for bus in (address[5:7], address[:7]))


def put_ports_in_groups_of_their_own() -> None:
    """Have an IOMMU tell the ports from the cards behind them: with an SMMU, ACS was switched on too late for that.

    VFIO takes a card's whole group from its addresses, and the port's message interrupt goes to such an address.
    """
    late = [port for port in PORTS if group_of(PCI_DEVICES / port) is not None]
    late = [port for port in late if group_of(PCI_DEVICES / behind(port)) is None]  # the card gets one with a driver
    for port in late:
        (PCI_DEVICES / port / "remove").write_text("1")
    if late:
        Path("/sys/bus/pci/rescan").write_text("1")


def behind(port: str) -> str:
    """Return the address of the card behind a port."""
    return next(path.name for path in (PCI_DEVICES / port).glob("0000:??:??.?"))


def lose(address: str, card: str, end: str) -> None:
    if end == "device_del":
        ask_host(execute="device_del", arguments={"id": card})
    elif end == "remove":
        (PCI_DEVICES / address / "remove").write_text("1")
    else:
        (PCI_DRIVERS / "uio_pci_generic/unbind").write_text(address)


def get_back(address: str, card: str, place: dict[str, str], end: str, deleted: bool = False) -> None:
    if end == "device_del":
        if not deleted:
            ask_host(deleted=card)
        ask_host(execute="device_add", arguments={**edu_mask.ARGUMENTS, "id": card, **place})
    elif end == "remove":
        Path("/sys/bus/pci/rescan").write_text("1")
    wait_until(lambda: is_set_up(address))


@contextlib.contextmanager
def opened(addresses: list[str]) -> Iterator[list[Edu]]:
    with contextlib.ExitStack() as stack:
        cards = []
        for address in addresses:
            card = stack.enter_context(Edu(pyuio.open(address, bind=True)))
            card.registers.liveness.write(0x12345678)  # so that no register reads as 0
            cards.append(card)
        yield cards


def losing_in_use(addresses: list[str], names: list[str], end: str) -> dict[str, Any]:
    """Lose three cards that threads wait for in every way, and return the results."""
    found: dict[str, Any] = {"waits": {}, "ms": {}, "unrefused": {}}
    with opened(addresses) as cards:
        waitings = [
            [Waiting(name, wait, card) for name, wait in waits.items()]
            for waits, card in zip(WAITS, cards, strict=True)
        ]
        time.sleep(0.3)
        began = time.monotonic()
        for card, waiting, address, name in zip(cards, waitings, addresses, names, strict=True):
            assert all(one.is_alive() for one in waiting), [(one.name, one.ended) for one in waiting]
            node = card.device.uio.directory
            lose(address, name, end)
            gone = wait_until(lambda node=node: not node.exists())  # type: ignore[misc]
            for one in waiting:
                one.join(LIMIT)
                found["waits"][one.name] = one.ended
                found["ms"][one.name] = round(1000 * (one.when - gone))
            found["unrefused"][name] = unrefused(card)
            if end == "unbind":
                found.setdefault("bus mastering", []).append(
                    bool((PCI_DEVICES / address / "config").read_bytes()[4] & 4)
                )
        found["seconds to remove"] = round(gone - began, 3)
    found["after close"] = [refusal(card) for card in cards]
    return found


# For each way of losing a card that nothing waits for: the uses that, as the first use, notice it. After device_del
# registers read as 0. After the other two the card still answers, and pyuio does not doubt a plausible value.
FIRSTS = {
    "device_del": ("read32", "update32", "read by name", "a field", "setting a field", "read of a run", "poll32"),
    "remove": ("configuration space", "BARs", "setting a field"),  # the register is 0
    "unbind": ("interrupt.read", "DMA memory", "setting a field"),
}


def losing_unnoticed(address: str, name: str, place: dict[str, str], end: str, step: int) -> dict[str, str]:
    """Lose a card that nothing waits for, once for each first use; return its result, and the uses that then worked."""
    found = {}
    for first in FIRSTS[end][::step]:
        with opened([address]) as (card,):
            node = card.device.uio.directory
            lose(address, name, end)
            if end == "device_del":
                ask_host(deleted=name)  # the kernel lets go of it before QEMU does
            wait_until(lambda node=node: not node.exists())  # type: ignore[misc]
            found[first] = first_refusal(card, first)
            found[f"after {first}"] = ", ".join(unrefused(card))
        get_back(address, name, place, end, deleted=end == "device_del")
    return found


def pull(port: str, name: str) -> None:
    """Switch a slot's power off behind the kernel's back; then QEMU takes the card away at once.

    This sets power controller and power indicator to off in the slot control register (PCI Express Base Specification
    5.0, section 7.5.3.10). It first unbinds the port's kernel driver, which would notice.
    """
    driver = Path("/sys/bus/pci_express/drivers/pciehp")
    (driver / "unbind").write_text(next(path.name for path in driver.glob(f"{port}:*")))
    with Inspection(find(port)) as slot:
        express = next(one for one in slot.config.capabilities() if one.id == 0x10)
        with slot.config.unlocked() as config:
            config.write16(express.offset + 0x18, config.read16(express.offset + 0x18) | 0x0700)
    ask_host(deleted=name)


def pulling(address: str, port: str, name: str) -> dict[str, str]:
    """Pull a card out, and return how the waits that poll ended, and the uses that did not refuse afterwards."""
    with opened([address]) as (card,):
        waiting = [Waiting("poll32", poll32, card), Waiting("poll by name", poll_by_name, card)]
        time.sleep(0.3)
        pull(port, name)
        for one in waiting:
            one.join(LIMIT)
        found = {one.name: one.ended for one in waiting}
        found["afterwards"] = ", ".join(unrefused(card))
    found["the kernel"] = "did not notice" if (PCI_DEVICES / address).exists() else "noticed"
    return found


def cycles(address: str, name: str, place: dict[str, str], number: int) -> dict[str, Any]:
    """Use a card and lose it, many times."""
    found: dict[str, Any] = {}
    for cycle in range(number):
        with Edu(pyuio.open(address, bind=True)) as card:
            assert card.liveness(cycle + 1) == (cycle + 1) ^ 0xFFFFFFFF
            assert card.factorial_by_interrupt(5, timeout=10) == 120
            card.to_device(b"some data", timeout=10)
            assert card.from_device(9, timeout=10) == b"some data"
            ask_host(execute="device_del", arguments={"id": name})
            try:
                card.device.interrupt.read(LIMIT)
            except pyuio.DeviceRemovedError:
                pass
            else:
                raise AssertionError("the wait returned")
        get_back(address, name, place, "device_del")
        if cycle == 1:
            found["before"] = held()
            found["mappings before"] = len(Path("/proc/self/maps").read_text().splitlines())
    found["after"] = settled(found["before"])
    found["mappings after"] = len(Path("/proc/self/maps").read_text().splitlines())
    return found


def example(address: str, name: str, place: dict[str, str]) -> str:
    """Run examples/hotplug.py, with QEMU in place of sysfs, and return its output."""
    path = Path(__file__).resolve().parents[2] / "examples/hotplug.py"
    spec = importlib.util.spec_from_file_location("hotplug_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def unplug(address: str, again: threading.Event) -> None:
        lose(address, name, "device_del")
        again.wait()
        get_back(address, name, place, "device_del")

    output = io.StringIO()
    vars(module)["unplug"] = unplug
    with contextlib.redirect_stdout(output):
        module.main(address)
    return output.getvalue()


def main(parts: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    names = [f"card{number}" for number in range(3)]
    places = [{"bus": f"slot{number}"} for number in range(3)]
    put_ports_in_groups_of_their_own()
    addresses = [behind(port) for port in PORTS]
    ask_host(execute="query-status", arguments={})  # from here on the example misses no event
    before = held()
    for part in parts:
        start = time.monotonic()
        if part == "ports":
            for end in ENDS:
                found[f"ports, {end}"] = losing_in_use(addresses, names, end)
                for address, name, place in zip(addresses, names, places, strict=True):
                    get_back(address, name, place, end)
        elif part == "root bus":
            for end in ENDS[1:]:
                found[f"root bus, {end}"] = losing_in_use(list(ROOT_BUS), ["", "", ""], end)
                if end == "remove":
                    Path("/sys/bus/pci/rescan").write_text("1")
                    wait_until(lambda: all(map(is_set_up, ROOT_BUS)))
            try:
                ask_host(execute="device_del", arguments={"id": "root0"})
                found["root bus, device_del"] = "done"
            except RuntimeError as error:
                found["root bus, device_del"] = str(error)
        elif part in ("unnoticed", "some unnoticed"):
            step = 1 if part == "unnoticed" else 3
            for end in ENDS:
                found[f"unnoticed, {end}"] = losing_unnoticed(addresses[0], names[0], places[0], end, step)
        elif part == "pulled":  # must be the last part, because the card does not come back
            found["pulled"] = pulling(addresses[2], PORTS[2], names[2])
        elif part == "example":
            found["example"] = example(addresses[0], names[0], places[0])
        else:
            found["cycles"] = cycles(addresses[0], names[0], places[0], int(part))
        found[f"seconds of {part}"] = round(time.monotonic() - start, 1)
    found["held before"], found["held after"] = before, settled(before)
    return found


if __name__ == "__main__":
    logging.raiseExceptions = False
    try:
        results = main(sys.argv[1:])
    except BaseException:
        results = {"failed": traceback.format_exc()}
    report(results)
