# SPDX-License-Identifier: MIT
"""UIO and VFIO beside each other: registers, a driver's interrupt cycle, and NVMe reads.

Run ``python benchmarks/ways.py`` (``--check`` to fail when a target is missed). It boots a guest with an IOMMU that
leaves the cards' addresses alone (``iommu=pt``), so that both ways work. Each round measures all sides in turn, and a
ratio compares two sides of the same round.

- registers: `Region.read32` and `write32` of an edu card, accesses per second. One mapping is like another.
- a cycle: raise edu's interrupt, read it, acknowledge it, in one thread; cycles per second, by pyuio and by C
  (``ways_loop.c``), through uio_pci_generic, and through vfio-pci by INTx and by MSI.
- NVMe: reads of 4 KiB per second at depth 32, polling and by interrupt.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pyuio_drivers.edu import Edu
from pyuio_drivers.nvme import Nvme
from pyuio_drivers.nvme_structures import CLASS_CODE
from rich.console import Console
from rich.table import Table

import pyuio
from benchmarks.nvme import BLOCK, SIZE, measure_rate
from pyuio.claim import binding
from pyuio.kernel import vfio
from pyuio.kernel.drivers import UIO_PCI_GENERIC, VFIO_PCI
from pyuio.kernel.sysfs import PCI_DEVICES
from pyuio.kernel.uio import UioNode

ROOT = Path(__file__).resolve().parent.parent
LOOP = ROOT / "build/ways_loop"
CYCLES = 3000
ACCESSES = 50_000
REPEATS = 3
CPU = 1  # of the guest, for all sides

Rates = dict[str, list[float]]

# Side, the side that it is compared with, and the least ratio; 0 for none, since Python is emulated, too.
TARGETS = (
    ("read32, VFIO", "read32, UIO", 0.9),
    ("write32, VFIO", "write32, UIO", 0.9),
    ("cycle, VFIO INTx, pyuio", "cycle, UIO, pyuio", 0.9),
    ("cycle, VFIO MSI, pyuio", "cycle, VFIO INTx, pyuio", 1.0),
    ("cycle, UIO, pyuio", "cycle, UIO, C", 0),
    ("cycle, VFIO INTx, pyuio", "cycle, VFIO INTx, C", 0),
    ("cycle, VFIO MSI, pyuio", "cycle, VFIO MSI, C", 0),
    ("NVMe polling, VFIO", "NVMe polling, UIO", 0.9),
    ("NVMe by interrupt, VFIO", "NVMe by interrupt, UIO", 0.9),
)


def in_guest(arguments: list[str]) -> int:
    """Run this program, with `arguments`, in a guest with an IOMMU, and return its exit status."""
    LOOP.parent.mkdir(exist_ok=True)
    subprocess.run(["cc", "-O2", "-Wall", "-o", LOOP, Path(__file__).with_name("ways_loop.c")], check=True)
    with tempfile.NamedTemporaryFile(dir=ROOT / "build", suffix=".img") as image:
        for offset in range(0, SIZE, BLOCK):
            image.write(offset.to_bytes(8, "little") * (BLOCK // 8))
        image.flush()
        command = [str(Path(sys.executable).parent / "pyuio"), "vm", "run", "--device=edu"]
        command += ["--device=nvme,drive=disk,serial=1", "-M", "q35,kernel-irqchip=split"]
        command += ["--append=intel_iommu=on iommu=pt", "--qemu=-device intel-iommu,intremap=on,caching-mode=on"]
        command += ["--qemu", f"-drive file={image.name},format=raw,if=none,id=disk", "--"]
        command += ["taskset", "-c", str(CPU), sys.executable, "-m", "benchmarks.ways"]
        return subprocess.run([*command, "--guest", *arguments], cwd=ROOT, check=False).returncode


def best_per_second(number: int, work: Callable[[], object]) -> float:
    """Do something of `number` steps a few times, and return the steps per second of the fastest time."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return number / min(times)


def cycles(card: Edu) -> None:
    read, write32 = card.device.interrupt.read, card.bar.write32
    for _ in range(CYCLES):
        write32(0x60, 1)
        read()
        write32(0x64, 1)


def reads(card: Edu) -> None:
    read32 = card.bar.read32
    for _ in range(ACCESSES):
        read32(4)


def writes(card: Edu) -> None:
    write32 = card.bar.write32
    for _ in range(ACCESSES):
        write32(4, 1)


def measure_edu(address: str, driver: str, rates: Rates) -> None:
    """Measure registers and cycles by one kernel driver."""
    way = "UIO" if driver == UIO_PCI_GENERIC else "VFIO"
    for kind in ("",) if way == "UIO" else (" INTx", " MSI"):
        with pyuio.open(address, bind=driver) as device:
            if kind == " MSI":
                device.vectors(1)
            card = Edu(device)
            if kind != " MSI":
                for name, number, work in (("read32", ACCESSES, reads), ("write32", ACCESSES, writes)):
                    rates.setdefault(f"{name}, {way}", []).append(best_per_second(number, partial(work, card)))
            rate = best_per_second(CYCLES, partial(cycles, card))
            rates.setdefault(f"cycle, {way}{kind}, pyuio", []).append(rate)
    bound = binding.bind(address, driver)
    group, function = vfio.group_of(PCI_DEVICES / address), PCI_DEVICES / address
    ways: dict[str, list[str]] = {" INTx": ["intx"], " MSI": ["msi"]}
    if way == "UIO":
        (node,) = UioNode.of_device(function)
        ways = {"": ["uio", str(node.path), str(function / "config"), str(function / "resource0")]}
    elif group is not None:
        ways = {kind: [*words, str(vfio.group_path(group)), address] for kind, words in ways.items()}
    for kind, words in ways.items():
        command = [str(LOOP), *words, str(CYCLES)]
        done = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(REPEATS)]
        rates.setdefault(f"cycle, {way}{kind}, C", []).append(max(map(float, done)))
    bound.undo()


def measure_nvme(address: str, driver: str, seconds: float, rates: Rates) -> None:
    """Measure reads by one kernel driver."""
    way = "UIO" if driver == UIO_PCI_GENERIC else "VFIO"
    for how, by_interrupt in (("polling", False), ("by interrupt", True)):
        with pyuio.open(address, bind=driver) as device, Nvme(device, by_interrupt=by_interrupt) as disk:
            rates.setdefault(f"NVMe {how}, {way}", []).append(measure_rate(disk, 32, seconds))


def show(rates: Rates) -> bool:
    """Print what was measured and the ratios; return whether each target was met."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table("per second", "median", "least", "most")
    for name, values in rates.items():
        table.add_row(name, *(f"{value:,.0f}" for value in (statistics.median(values), min(values), max(values))))
    console.print(table)
    table = Table("", "against", "ratio", "wanted", "")
    met = []
    for side, other, least in TARGETS:
        ratio = statistics.median(own / theirs for own, theirs in zip(rates[side], rates[other], strict=True))
        met.append(ratio >= least)
        table.add_row(side, other, f"{ratio:.2f}", f">= {least}" if least else "", "" if met[-1] else "missed")
    console.print(table)
    return all(met)


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement of NVMe")
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    parser.add_argument("--guest", action="store_true", help="this is the guest: measure on its cards")
    options = parser.parse_args()
    if not options.guest:
        return in_guest(sys.argv[1:])
    edu = next(str(found.address) for found in pyuio.devices() if found.ids == "1234:11e8")
    disk = next(str(found.address) for found in pyuio.devices() if found.class_code == CLASS_CODE)
    rates: Rates = {}
    for _ in range(options.rounds):
        for driver in (UIO_PCI_GENERIC, VFIO_PCI):
            measure_edu(edu, driver, rates)
            measure_nvme(disk, driver, options.seconds, rates)
    met = show(rates)
    return 1 if options.check and not met else 0


if __name__ == "__main__":
    sys.exit(main())
