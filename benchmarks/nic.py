# SPDX-License-Identifier: MIT
"""Frames of 60 bytes per second by QEMU's e1000e: this driver, DPDK's testpmd, and the kernel's driver with AF_PACKET.

Run ``python benchmarks/nic.py`` (``--check`` to fail when a target is missed, ``--json`` for a program). It fetches
testpmd from Debian's archive without installing it, and boots a guest with three cards. The first sends frames to the
second by a hub, from a process of its own on another processor; the third sends into an empty hub. In every round the
guest gives the second and third to each side in turn, and each does the same on one processor:

- transmit: send to the third as fast as it goes,
- receive: count what comes from the second, while the first sends as fast as it goes,
- forward: send what comes from the second by the third,
- echo: send back single frames, sleeping until the interrupt; the first measures how long that takes. This driver has
  the card by VFIO then, with a message (MSI-X) as the kernel's driver has; and once more by the interrupt line of
  uio_pci_generic.

A ratio is with the other side in the same round. Every frame that the echo gets is compared with the one sent.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pyuio_drivers.e1000e import E1000e
from rich.console import Console
from rich.table import Table

import pyuio
from pyuio.claim import binding
from pyuio.kernel.drivers import UIO_PCI_GENERIC, VFIO_PCI
from pyuio.vm import packages

ROOT = Path(__file__).resolve().parent.parent
DPDK = ROOT / "build/dpdk"
_LIBRTE = (
    *("ethdev23", "eal23", "kvargs23", "telemetry23", "net23", "mbuf23", "mempool23", "mempool-ring23", "ring23"),
    *("meter23", "cmdline23", "crypto-scheduler23", "cryptodev23", "rcu23", "reorder23", "bitratestats23", "metrics23"),
    *("bpf23", "gro23", "gso23", "latencystats23", "pdump23", "pcapng23", "pci23", "hash23", "security23", "timer23"),
    *("eventdev23", "sched23", "ip-frag23", "bus-vdev23", "bus-pci23", "bus-dpaa23", "bus-auxiliary23"),
    *("common-dpaax23", "common-iavf23", "common-mlx5-23", "mempool-dpaa23", "net-e1000-23", "net-bnxt23"),
    *("net-i40e23", "net-ixgbe23", "net-dpaa23", "net-bond23", "net-ice23", "net-mlx5-23"),
)
# testpmd, and the libraries that it always loads.
PACKAGES = (
    *("dpdk-dev", "libnuma1", "libfdt1", "libjansson4", "libbsd0", "libelf1", "libpcap0.8", "libibverbs1"),
    *("ibverbs-providers", "libnl-3-200", "libnl-route-3-200", "libdbus-1-3", *(f"librte-{name}" for name in _LIBRTE)),
)
CARDS = tuple(f"52:54:00:00:00:{number:02x}" for number in (1, 2, 3))
TYPE = b"\x88\xb5"  # of an experiment: IEEE 802, section 9.2.3
BATCH = 256
ECHO_LIMIT = 5.0  # seconds
HUGEPAGES = 96  # of 2 MiB
MEASURED, GENERATING = 1, 0  # processors
OURS, TESTPMD, PACKET = "pyuio", "testpmd", "AF_PACKET"
RATES = "transmit", "receive", "forward"
ECHO, ECHO_BY_LINE = "echo", "echo by line"
# What, against whom, the least ratio of frames per second, or the highest of seconds.
TARGETS = (
    *(("transmit", TESTPMD, 0.35), ("receive", TESTPMD, 0.35), ("forward", TESTPMD, 0.25)),
    *(("transmit", PACKET, 5.0), ("receive", PACKET, 5.0), ("forward", PACKET, 5.0), (ECHO, PACKET, 0.8)),
)
TESTPMD_MODES = {"transmit": "txonly", "receive": "rxonly", "forward": "io"}

Values = dict[tuple[str, str], list[float]]


def in_guest(arguments: list[str]) -> int:
    """Run this program, with `arguments`, in a guest that has the cards, and return its exit status."""
    packages.fetch(PACKAGES, DPDK, "usr/bin/dpdk-testpmd")
    hubs = " ".join(f"-netdev hubport,id=port{number},hubid={hub}" for number, hub in enumerate((0, 0, 1)))
    command = [str(Path(sys.executable).parent / "pyuio"), "vm", "run", "--memory", "2G", "--qemu", hubs]
    # VFIO needs an IOMMU; what the kernel and uio_pci_generic have is passed through.
    command += ["--append=intel_iommu=on iommu=pt", "--machine=q35,kernel-irqchip=split"]
    command += ["--qemu=-device intel-iommu,intremap=on,caching-mode=on"]
    for number, mac in enumerate(CARDS):
        command += ["--device", f"e1000e,netdev=port{number},mac={mac}"]
    return subprocess.run([*command, "--", sys.executable, __file__, "--guest", *arguments], cwd=ROOT).returncode


def address_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


FRAME = address_bytes(CARDS[1]) + address_bytes(CARDS[0]) + TYPE + bytes(range(46))

# ---- The other end ----


class Generator:
    """The first card, in a process of its own, which sends as fast as it can, or measures an echo."""

    def __init__(self, address: str) -> None:
        self._pipe, end = get_context("fork").Pipe()
        self._process = get_context("fork").Process(target=_generate, args=(address, end), daemon=True)
        self._process.start()
        end.close()  # so that the process's end ends a `recv` here
        self._pipe.recv()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Send as fast as it goes in a ``with`` block."""
        self._pipe.send("send")
        try:
            yield
        finally:
            self._pipe.send("stop")
            self._pipe.recv()

    def measure_echo(self, seconds: float) -> float:
        """Return the median time of an echo, in seconds."""
        self._pipe.send(seconds)
        median = self._pipe.recv()
        if isinstance(median, str):
            sys.exit(median)
        return float(median)


def _generate(address: str, pipe: Connection) -> None:
    os.sched_setaffinity(0, {GENERATING})
    with E1000e.open(address) as nic:
        pipe.send("ready")
        frames = [FRAME] * BATCH
        while True:
            what = pipe.recv()
            if what == "send":
                while not pipe.poll():
                    nic.send(frames)
                pipe.recv()
                pipe.send("stopped")
            else:
                pipe.send(_echo_time(nic, what))


def _echo_time(nic: E1000e, seconds: float) -> float | str:
    times, number = [], 0
    while nic.receive(BATCH, 0.1):  # what is left
        pass
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or number < 20:
        number += 1
        content = number.to_bytes(4, "big") + FRAME[18:]
        start = time.perf_counter()
        nic.send([FRAME[:14] + content])
        while not (answers := nic.receive(1, 0)):
            if time.perf_counter() - start > ECHO_LIMIT:
                return "an echo was lost"
        times.append(time.perf_counter() - start)
        if answers[0][14:] != content:
            return f"an echo is wrong: {bytes(answers[0])!r}"
    return statistics.median(times)


def echoed(frame: bytes | memoryview) -> bytes:
    """Return a frame for the one who sent it."""
    return bytes(frame[6:12]) + bytes(frame[:6]) + bytes(frame[12:])


# ---- The sides ----


def rate(step: Callable[[], int], seconds: float) -> float:
    """Return how many frames per second `step` handles, which returns how many each time; the first do not count."""
    for _ in range(50):
        step()
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        for _ in range(10):
            done += step()
    return done / elapsed


def measure_pyuio(addresses: list[str], generator: Generator, seconds: float) -> dict[str, float]:
    values = {}
    frames = [FRAME] * BATCH
    with E1000e.open(addresses[1]) as incoming, E1000e.open(addresses[2]) as outgoing:

        def transmit() -> int:
            outgoing.send(frames)
            return BATCH

        def forward() -> int:
            received = incoming.receive(BATCH, 0)
            outgoing.send(received)
            return len(received)

        values["transmit"] = rate(transmit, seconds)
        with generator.sending():
            values["receive"] = rate(lambda: len(incoming.receive(BATCH, 0)), seconds)
            values["forward"] = rate(forward, seconds)
    for what, driver in ((ECHO, VFIO_PCI), (ECHO_BY_LINE, UIO_PCI_GENERIC)):
        with E1000e.open(addresses[1], bind=driver, by_interrupt=True) as nic:

            def echo(nic: E1000e = nic) -> None:
                for frame in nic.receive(1, 0.1):
                    nic.send([echoed(frame)])

            with echoing(echo):
                values[what] = generator.measure_echo(seconds)
    return values


@contextmanager
def echoing(step: Callable[[], object]) -> Iterator[None]:
    """Call `step` again and again in a thread, in a ``with`` block."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def interfaces(addresses: list[str]) -> Iterator[list[socket.socket]]:
    """Give cards to the kernel's driver, and yield an AF_PACKET socket on each."""
    driver = Path("/sys/bus/pci/drivers/e1000e")
    subprocess.run(["modprobe", "e1000e"], check=True)
    sockets = []
    for address in addresses:
        if not (driver / address).exists():
            (driver / "bind").write_text(address)
    subprocess.run(["udevadm", "settle"], check=True)  # it renames the interfaces
    for address in addresses:
        name = next((Path("/sys/bus/pci/devices") / address / "net").iterdir()).name
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        carrier = Path("/sys/class/net", name, "carrier")
        while carrier.read_text().strip() != "1":
            time.sleep(0.05)
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(int.from_bytes(TYPE, "big")))
        one.bind((name, int.from_bytes(TYPE, "big")))
        one.settimeout(2)
        sockets.append(one)
    try:
        yield sockets
    finally:
        for one in sockets:
            one.close()
        for address in addresses:
            (driver / "unbind").write_text(address)


def measure_packet(addresses: list[str], generator: Generator, seconds: float) -> dict[str, float]:
    values = {}
    with interfaces(addresses[1:]) as (incoming, outgoing):

        def transmit() -> int:
            try:
                outgoing.send(FRAME)
            except OSError:  # ENOBUFS: the queue is full
                return 0
            return 1

        def receive() -> int:
            incoming.recv(2048)
            return 1

        def forward() -> int:
            frame = incoming.recv(2048)
            try:
                outgoing.send(frame)
            except OSError:
                return 0
            return 1

        def echo() -> None:
            with suppress(TimeoutError):
                incoming.send(echoed(incoming.recv(2048)))

        values["transmit"] = rate(transmit, seconds)
        with generator.sending():
            values["receive"] = rate(receive, seconds)
            values["forward"] = rate(forward, seconds)
        incoming.settimeout(0.1)
        with suppress(TimeoutError):  # what is left
            while incoming.recv(2048):
                pass
        with echoing(echo):
            values[ECHO] = generator.measure_echo(seconds)
    return values


def plugins() -> list[Path]:
    """Return testpmd's drivers, copied to where only root can write: it takes them from nowhere else."""
    directory = Path("/run/dpdk-plugins")
    directory.mkdir(mode=0o700, exist_ok=True)
    found = []
    for name in ("mempool_ring", "net_e1000"):  # testpmd loads the others itself
        plugin = next(DPDK.glob(f"usr/lib/*/dpdk/pmds-*/librte_{name}.so.23"))
        found.append(Path(shutil.copy(plugin, directory)))
    return found


def testpmd(addresses: list[str], mode: str, seconds: float) -> float:
    """Return how many frames per second testpmd sends, or with rxonly receives."""
    libraries = DPDK / "usr/lib/x86_64-linux-gnu"
    drivers = [word for plugin in plugins() for word in ("-d", str(plugin))]
    command = [str(DPDK / "usr/bin/dpdk-testpmd"), "-l", f"{GENERATING},{MEASURED}", "--no-telemetry", "--in-memory"]
    command += ["--iova-mode=pa", "-m", "64", *drivers]
    command += [word for address in addresses for word in ("-a", address)]
    command += ["--", f"--forward-mode={mode}", "--txpkts=60", "--stats-period=1", "--auto-start", "--nb-cores=1"]
    command += ["--total-num-mbufs=4096", "--no-mlockall"]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    process = subprocess.Popen(
        ["taskset", "--cpu-list", f"{GENERATING},{MEASURED}", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    assert process.stdout
    rates, output = [], []
    for line in process.stdout:  # it prints the rates of both directions of each card every second
        output.append(line)
        found = re.search(rf"{'Rx' if mode == 'rxonly' else 'Tx'}-pps: +(\d+)", line)
        if found and int(found[1]):
            rates.append(int(found[1]))
            if len(rates) > seconds + 1:
                break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    if len(rates) < 2:
        sys.exit(f"testpmd failed: {' '.join(command)}\n{''.join(output)}")
    return float(statistics.median(rates[1:]))


def measure_testpmd(addresses: list[str], generator: Generator, seconds: float) -> dict[str, float]:
    values = {}
    bound = [binding.bind(address, UIO_PCI_GENERIC) for address in addresses[1:]]
    try:
        values["transmit"] = testpmd(addresses[2:], TESTPMD_MODES["transmit"], seconds)
        with generator.sending():
            values["receive"] = testpmd(addresses[1:2], TESTPMD_MODES["receive"], seconds)
            values["forward"] = testpmd(addresses[1:], TESTPMD_MODES["forward"], seconds)
    finally:
        for one in bound:
            one.undo()
    return values


SIDES = {OURS: measure_pyuio, TESTPMD: measure_testpmd, PACKET: measure_packet}

# ---- The result ----


def compare_with_targets(values: Values) -> list[dict[str, Any]]:
    """Compare the median of the rounds' ratios with each target."""
    results = []
    for what, against, target in TARGETS:
        pairs = zip(values.get((OURS, what), []), values.get((against, what), []), strict=False)
        ratios = [own / other for own, other in pairs]
        if ratios:
            ratio = statistics.median(ratios)
            met = ratio <= target if what == ECHO else ratio >= target
            results.append({"what": what, "against": against, "ratio": ratio, "target": target, "met": met})
    return results


def show(values: Values, results: list[dict[str, Any]]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 120)
    columns = (*RATES, ECHO, ECHO_BY_LINE)
    table = Table("", *columns)
    for side in SIDES:
        cells = []
        for what in columns:
            unit, factor = ("/s", 1) if what in RATES else ("us", 1e6)
            each = [value * factor for value in values.get((side, what), [])]
            spread = f"{statistics.median(each):,.0f} {unit} ({min(each):,.0f} to {max(each):,.0f})" if each else ""
            cells.append(spread)
        table.add_row(side, *cells)
    console.print(table)
    table = Table("", "against", "ratio", "target", "")
    for one in results:
        sign = "<=" if one["what"] == ECHO else ">="
        row = one["what"], one["against"], f"{one['ratio']:.2f}", f"{sign} {one['target']}"
        table.add_row(*row, "" if one["met"] else "missed")
    console.print(table)


def measure(options: argparse.Namespace) -> Values:
    """Measure each side in each round."""
    Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages").write_text(str(HUGEPAGES))
    addresses = sorted(str(found.address) for found in pyuio.devices() if E1000e.serves(found))
    values: Values = {}
    generator = Generator(addresses[0])
    os.sched_setaffinity(0, {MEASURED})
    for _ in range(options.rounds):
        for side, measure_side in SIDES.items():
            if options.only in (None, side):
                for what, value in measure_side(addresses, generator, options.seconds).items():
                    values.setdefault((side, what), []).append(value)
    return values


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--check", action="store_true", help="fail if a target is missed")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--only", choices=tuple(SIDES), help="measure one side")
    parser.add_argument("--guest", action="store_true", help="this is the guest: measure on its cards")
    options = parser.parse_args()
    if not options.guest:
        return in_guest(sys.argv[1:])
    values = measure(options)
    results = compare_with_targets(values)
    if options.json:
        rates = {f"{side}, {what}": each for (side, what), each in values.items()}
        print(json.dumps({"values": rates, "results": results}, indent=1))
    else:
        show(values, results)
    return 1 if options.check and not all(one["met"] for one in results) else 0


if __name__ == "__main__":
    sys.exit(main())
