# SPDX-License-Identifier: MIT
"""The examples of the Intel 82574L on QEMU's cards, which a hub joins: ping, and Linux itself on a TAP device."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyuio_drivers.e1000e import E1000e

from tests.guest import network_tools
from tests.guest.support import PATIENCE, PROGRAM_LIMIT, Beside, rebind, wait_until
from tests.model.test_nic_examples import ARP, IP, MAC, ping

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SIZE = 100_000_000  # bytes of the file that is downloaded
PORT, IPERF3_PORT = 8000, 5201


def run_example(name: str) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


@contextlib.contextmanager
def running(name: str, *arguments: str) -> Iterator[Beside]:
    with Beside(lambda: run_example(name), f"{name}.py", *arguments) as program:
        try:
            yield program
        finally:
            program.send_signal(signal.SIGTERM)
        assert program.wait(PATIENCE) == 0, program.stderr.read()


def test_ping(network_cards: list[str]) -> None:
    with running("nic_ping", "10.0.3.2", network_cards[0]) as program:
        said = program.stdout.readline()
        mac = bytes.fromhex(said.split()[-1].replace(":", ""))
        assert said == f"10.0.3.2 is at {mac.hex(':')}\n"
        with E1000e.open(network_cards[1]) as nic:
            nic.filters.promiscuous(True)
            nic.send([ARP])
            assert nic.receive_frame(PATIENCE)[22:32] == mac + IP
            for number in range(5):
                nic.send([ping(bytes([number] * 40)).replace(MAC, mac, 1)])
                answer = nic.receive_frame(PATIENCE)
                assert answer[42:82] == bytes([number] * 40)


def command(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PROGRAM_LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def far_host(network_cards: list[str]) -> Iterator[list[str]]:
    """Give the second card to the kernel's driver, in a network namespace, and yield how to run a command there."""
    subprocess.run(["modprobe", "-a", "e1000e", "tun"], check=True)
    for address, driver in zip(network_cards, (None, "e1000e"), strict=True):  # the module has taken both
        rebind(address, driver)
    directory = Path("/sys/bus/pci/devices", network_cards[1], "net")
    try:
        wait_until(directory.exists)
        command("udevadm", "settle")  # it renames the interface
        name = next(directory.iterdir()).name
        command("ip", "netns", "add", "far")
        command("ip", "link", "set", name, "netns", "far")
        there = ["ip", "netns", "exec", "far"]
        command(*there, "ip", "address", "add", "10.0.3.2/24", "dev", name)
        command(*there, "ip", "link", "set", name, "up")
        yield there
    finally:
        subprocess.run(["ip", "netns", "delete", "far"], check=False)
        wait_until(directory.exists)
        rebind(network_cards[1], None)
        subprocess.run(["modprobe", "--remove", "e1000e"], check=True)  # it would take a card that is found again


@pytest.mark.long
@pytest.mark.timeout(900)
def test_linux_on_a_tap_device(network_cards: list[str], far_host: list[str], tmp_path: Path) -> None:
    """Linux resolves, pings in a flood, measures both directions and downloads 100 MB through the driver in Python."""
    iperf3, ping_command = network_tools.commands(ROOT / "build/network-tools")
    content = os.urandom(1 << 20) * (SIZE >> 20)
    (tmp_path / "file").write_bytes(content)
    serve = [*far_host, sys.executable, "-m", "http.server", str(PORT), "--bind", "10.0.3.2"]
    with running("nic_tap", "tap0", network_cards[0]) as program:
        assert program.stdout.readline().startswith(f"tap0 is {network_cards[0]}")
        command("ip", "address", "add", "10.0.3.1/24", "dev", "tap0")
        answers = command(*ping_command, "-f", "-c", "2000", "-q", "10.0.3.2")
        assert "2000 packets transmitted, 2000 received, 0% packet loss" in answers
        assert "tap0" in command("ip", "neighbour", "show", "10.0.3.2")
        with subprocess.Popen([*far_host, *iperf3, "--server"], stdout=subprocess.DEVNULL) as server:
            try:
                wait_until(lambda: _answers("10.0.3.2", IPERF3_PORT))
                for direction in ([], ["--reverse"]):
                    words = [*iperf3, "--client", "10.0.3.2", "--json", "--bytes", "10M", *direction]
                    received = json.loads(command(*words))["end"]["sum_received"]
                    assert received["bytes"] >= 5 << 20  # it does not count what is under way at the end
                    print(f"iperf3{' '.join(['', *direction])}: {received['bits_per_second'] / 1e6:.1f} Mbit/s")
            finally:
                server.terminate()
        with subprocess.Popen(serve, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                wait_until(lambda: _answers("10.0.3.2", PORT))
                path = tmp_path / "downloaded"
                command("curl", "-sSf", "-o", str(path), f"http://10.0.3.2:{PORT}/file")
            finally:
                server.terminate()
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(content).digest()


def _answers(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
        return True
    return False
