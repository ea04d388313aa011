# SPDX-License-Identifier: MIT
"""Random reads of 4 KiB per second from QEMU's NVMe disk: by this driver, and by fio on the kernel's driver.

Run ``python benchmarks/nvme.py`` (``--check`` to fail when a target is missed, ``--json`` for a program). It fetches
fio from Debian's archive without installing it, makes an image file, and boots a guest with it. In every round the
guest gives the disk to this driver and to the kernel's in turn. This driver polls, and sleeps until the interrupt: the
line, by uio_pci_generic, and a message of the queue's own (MSI-X), by vfio-pci. fio may use libaio, io_uring, and
io_uring with polled queues, each also with 16 commands submitted and collected at a time; the best of them counts.

Every block of 4 KiB of the image holds its own offset. In a pass of its own before the first round both sides verify
all that they read, fio with ``verify=pattern``. Only completed reads are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from pyuio_drivers.nvme import Nvme
from pyuio_drivers.nvme_structures import CLASS_CODE
from rich.console import Console
from rich.table import Table

import pyuio
from pyuio.kernel.drivers import UIO_PCI_GENERIC, VFIO_PCI
from pyuio.vm import packages

ROOT = Path(__file__).resolve().parent.parent
FIO = ROOT / "build/fio"
# fio, and the libraries of its engines, all of which it always loads.
PACKAGES = (
    *("fio", "libaio1", "libboost-iostreams1.74.0", "libboost-thread1.74.0", "libdaxctl1", "libfmt9", "libgfapi0"),
    *("libgfrpc0", "libgfxdr0", "libglusterfs0", "libibverbs1", "libnbd0", "libndctl6", "libnl-3-200"),
    *("libnl-route-3-200", "libnuma1", "libpmem1", "libpmemblk1", "librados2", "librbd1", "librdmacm1", "libtirpc3"),
)
SIZE = 256 << 20  # bytes of the image, which the host has in memory
BLOCK = 4096
DEPTHS = (1, 32)
ENGINES = {
    "libaio": ["--ioengine=libaio"],
    "io_uring": ["--ioengine=io_uring", "--fixedbufs", "--registerfiles"],
    "io_uring, polled": ["--ioengine=io_uring", "--fixedbufs", "--registerfiles", "--hipri"],
}
AT_ONCE = ["--iodepth_batch_submit=16", "--iodepth_batch_complete_min=16", "--iodepth_batch_complete_max=16"]
POLLED, BY_LINE, BY_MESSAGE = "pyuio, polling", "pyuio, by the line", "pyuio, by MSI-X"
WAYS = ((POLLED, UIO_PCI_GENERIC, False), (BY_LINE, UIO_PCI_GENERIC, True), (BY_MESSAGE, VFIO_PCI, True))
# Side, depth, the fio measurements to compare with (those whose name starts so), and the least ratio.
TARGETS = ((POLLED, 1, "", 1.5), (POLLED, 32, "", 1.5), (BY_LINE, 1, "libaio", 1.0), (BY_MESSAGE, 1, "libaio", 1.0))

Rates = dict[tuple[str, int], list[float]]


def in_guest(arguments: list[str]) -> int:
    """Run this program, with `arguments`, in a guest that has the disk, and return its exit status."""
    packages.fetch(PACKAGES, FIO, "usr/bin/fio")
    with tempfile.NamedTemporaryFile(dir=ROOT / "build", suffix=".img") as image:
        for offset in range(0, SIZE, BLOCK):
            image.write(offset.to_bytes(8, "little") * (BLOCK // 8))
        image.flush()
        command = [str(Path(sys.executable).parent / "pyuio"), "vm", "run", "--device", "nvme,drive=disk,serial=1"]
        # VFIO needs an IOMMU; what the kernel and uio_pci_generic have is passed through.
        command += ["--append=intel_iommu=on iommu=pt", "--machine=q35,kernel-irqchip=split"]
        command += [
            "--qemu=-device intel-iommu,intremap=on,caching-mode=on",
            "--qemu",
            f"-drive file={image.name},format=raw,if=none,id=disk",
            "--",
            sys.executable,
            __file__,
        ]
        return subprocess.run([*command, "--guest", *arguments], cwd=ROOT, check=False).returncode


@contextmanager
def kernel_driver(address: str) -> Iterator[str]:
    """Give the disk to the kernel's driver, and yield its block device."""
    driver = Path("/sys/bus/pci/drivers/nvme")
    subprocess.run(["modprobe", "nvme", "poll_queues=1"], check=True)  # takes the disk when it is loaded
    if not (driver / address).exists():
        (driver / "bind").write_text(address)
    try:
        deadline = time.monotonic() + 10
        while not (found := list(Path("/sys/bus/pci/devices", address).glob("nvme/nvme*/nvme*n1"))):
            if time.monotonic() > deadline:
                sys.exit("the kernel's driver found no disk")
            time.sleep(0.05)
        device = Path("/dev", found[0].name)
        while not device.exists():
            time.sleep(0.05)
        yield str(device)
    finally:
        (driver / "unbind").write_text(address)


def fio(device: str, depth: int, options: list[str]) -> float:
    """Run fio and return its reads per second."""
    libraries = ":".join(str(FIO / "usr/lib/x86_64-linux-gnu" / name) for name in ("", "ceph"))
    command = [str(FIO / "usr/bin/fio"), "--name=job", f"--filename={device}", "--direct=1", "--rw=randread", "--bs=4k"]
    command += ["--thread", "--norandommap", "--randrepeat=0", "--output-format=json", f"--iodepth={depth}", *options]
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"fio failed: {' '.join(command)}\n{done.stdout}{done.stderr}")
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    if job["error"] or job["read"]["total_ios"] == 0:
        sys.exit(f"fio failed: {job['error']}")
    return float(job["read"]["total_ios"] / (job["read"]["runtime"] / 1000))


def fio_options(depth: int) -> dict[str, list[str]]:
    """Return fio's options for each way of reading, by name."""
    options_by_name = dict(ENGINES)
    if depth >= 16:
        options_by_name |= {f"{name}, 16 at once": options + AT_ONCE for name, options in ENGINES.items()}
    return options_by_name


def measure_fio(address: str, seconds: float, rates: Rates, *, verify: bool) -> None:
    with kernel_driver(address) as device:
        verifying = ["--verify=pattern", "--verify_pattern=%o", "--verify_fatal=1", "--number_ios=4096"]
        for options in ENGINES.values() if verify else ():
            fio(device, 32, options + verifying)
        for depth in DEPTHS:
            for name, options in fio_options(depth).items():
                timed = ["--time_based", f"--runtime={seconds}", "--gtod_reduce=1"]
                rates.setdefault((f"fio, {name}", depth), []).append(fio(device, depth, options + timed))


def measure_pyuio(address: str, seconds: float, rates: Rates, *, verify: bool) -> None:
    for name, driver, by_interrupt in WAYS:
        with Nvme.open(address, bind=driver, by_interrupt=by_interrupt) as disk:
            for depth in DEPTHS:
                if verify:
                    verify_reads(disk, depth)
                rates.setdefault((name, depth), []).append(measure_rate(disk, depth, seconds))


def random_blocks(disk: Nvme) -> list[int]:
    """Return random blocks to read, aligned to 4 KiB."""
    step = BLOCK // disk.namespace.block_size
    return [random.randrange(SIZE // BLOCK) * step for _ in range(1 << 15)]


def offset_in(data: memoryview) -> int:
    return int.from_bytes(data[:8], "little")


def verify_reads(disk: Nvme, depth: int) -> None:
    """Read 4096 blocks, and compare every byte; exit if one is wrong."""
    blocks, size = random_blocks(disk)[:4096], disk.namespace.block_size
    with disk.queue(depth) as queue:
        for block, data in zip(blocks, queue.read_many(blocks, BLOCK // size), strict=True):
            if data != (block * size).to_bytes(8, "little") * (BLOCK // 8):
                sys.exit(f"wrong data at block {block}")


def measure_rate(disk: Nvme, depth: int, seconds: float) -> float:
    """Return reads per second, measured for about `seconds`."""
    blocks, size = random_blocks(disk), disk.namespace.block_size
    with disk.queue(depth) as queue:
        number = 2000
        while True:
            done, data = 0, memoryview(b"")
            start = time.perf_counter()
            for data in queue.read_many(islice(cycle(blocks), number), BLOCK // size):  # noqa: B007
                done += 1
            elapsed = time.perf_counter() - start
            if done != number or offset_in(data) != blocks[(number - 1) % len(blocks)] * size:
                sys.exit("wrong data, or too little")
            if elapsed >= seconds / 2:
                return done / elapsed
            number = int(number * min(20, 1.2 * seconds / elapsed))


def compare_with_targets(rates: Rates) -> list[dict[str, Any]]:
    """Compare the median of the rounds' ratios with each target; a ratio is with fio's best in the same round."""
    results = []
    for ours, depth, only, target in TARGETS:
        against = [name for name, each in rates if each == depth and name.startswith(f"fio, {only}")]
        best = max(against, key=lambda name: statistics.median(rates[name, depth]))
        ratios = [own / max(rates[name, depth][i] for name in against) for i, own in enumerate(rates[ours, depth])]
        ratio = statistics.median(ratios)
        results.append(
            {"what": ours, "depth": depth, "against": best, "ratio": ratio, "target": target, "met": ratio >= target}
        )
    return results


def show(rates: Rates, results: list[dict[str, Any]]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table("4 KiB random reads per second", *(f"depth {depth}" for depth in DEPTHS))
    for name in dict.fromkeys(name for name, _ in rates):
        cells = []
        for depth in DEPTHS:
            values = rates.get((name, depth))
            spread = f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})" if values else ""
            cells.append(spread)
        table.add_row(name, *cells)
    console.print(table)
    table = Table("", "depth", "against", "ratio", "target", "")
    for one in results:
        row = one["what"], str(one["depth"]), one["against"], f"{one['ratio']:.2f}", f">= {one['target']}"
        table.add_row(*row, "" if one["met"] else "missed")
    console.print(table)


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--only", choices=("pyuio", "fio"), help="measure one side")
    parser.add_argument("--guest", action="store_true", help="this is the guest: measure on its only NVMe disk")
    options = parser.parse_args()
    if not options.guest:
        return in_guest(sys.argv[1:])
    address = next(str(found.address) for found in pyuio.devices() if found.class_code == CLASS_CODE)
    rates: Rates = {}
    for number in range(options.rounds):
        if options.only != "fio":
            measure_pyuio(address, options.seconds, rates, verify=number == 0)
        if options.only != "pyuio":
            measure_fio(address, options.seconds, rates, verify=number == 0)
    results = compare_with_targets(rates) if options.only is None else []
    if options.json:
        print(
            json.dumps(
                {
                    "rates": {f"{name}, depth {depth}": values for (name, depth), values in rates.items()},
                    "results": results,
                },
                indent=1,
            )
        )
    else:
        show(rates, results)
    return 1 if options.check and not all(one["met"] for one in results) else 0


if __name__ == "__main__":
    sys.exit(main())
