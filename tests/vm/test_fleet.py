# SPDX-License-Identifier: MIT
"""The playbook of examples/fleet, by ansible-core: for two guests by ssh, and for two boxes that are this machine.

The guests are up at the same time, each with an edu card, on which the playbook measures; fleet_box.sh runs in them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyuio.vm import packages

from .conftest import Vm

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]  # pip fetches much by name, and runs in emulated guests

ROOT = Path(__file__).resolve().parents[2]
FLEET = ROOT / "examples/fleet"
LIMIT = 300  # seconds, for what pip fetches by name
PLAY_LIMIT = 900  # seconds, on a busy machine
BOXES = ("box-a", "box-b")
EDU, NETWORK, NO_PIN = "0000:00:08.0", "0000:00:09.0", "0000:00:0a.0"
_DROPBEAR = ("dropbear-bin", "libtomcrypt1", "libtommath1")


def pip(*words: str, python: str = sys.executable) -> None:
    subprocess.run([python, "-m", "pip", "--quiet", *words], check=True, timeout=LIMIT, cwd=ROOT)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with pyuio's wheel."""
    directory = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), ".")
    return directory


@pytest.fixture(scope="module")
def wheels(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with pyuio's wheel and those that it needs."""
    directory = tmp_path_factory.mktemp("wheels")
    (own,) = wheel.iterdir()
    pip("download", "--dest", str(directory), f"{own}[bench]")
    return directory


@pytest.fixture(scope="module")
def playbook(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command ansible-playbook, of a virtual environment of its own."""
    directory = tmp_path_factory.mktemp("ansible")
    subprocess.run([sys.executable, "-m", "venv", directory], check=True, timeout=LIMIT)
    pip("install", "ansible-core", python=str(directory / "bin/python"))
    return str(directory / "bin/ansible-playbook")


def play(
    playbook: str,
    directory: Path,
    boxes: list[str],
    bench: list[str],
    *words: str,
    pip_arguments: str = "",
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Play the playbook for boxes, which are lines of an inventory; the results come into the directory."""
    python = os.path.realpath(sys.executable)
    variables |= {"ansible_python_interpreter": python, "pyuio_python": python}
    inventory = directory / "inventory.ini"
    lines = ["[boxes]", *boxes, "[boxes:vars]", *(f"{name}={value}" for name, value in variables.items())]
    inventory.write_text("\n".join(lines) + "\n")
    arguments = {
        "pyuio_pip_arguments": f"--no-index --no-compile {pip_arguments}",
        "pyuio_results": str(directory),
        "pyuio_command_here": str(Path(sys.executable).with_name("pyuio")),
        "pyuio_bench_arguments": ["--count", "20", "--loads", "idle", "--no-picture", *bench],
    }
    command = [playbook, f"--inventory={inventory}", f"--extra-vars={json.dumps(arguments)}", *words]
    environment = {**os.environ, "ANSIBLE_HOME": str(directory / "home"), "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(
        [*command, str(FLEET / "playbook.yml")],
        env={**environment, "ANSIBLE_PIPELINING": "1"},
        capture_output=True,
        text=True,
        timeout=PLAY_LIMIT,
        check=False,
    )


def result(directory: Path, box: str, name: str) -> Any:
    return json.loads((directory / box / f"{name}.json").read_text())


def check(output: str, results: Path, kind: str) -> None:
    """Check what the play printed and left: of box-a without a limit, of box-b with one that no sample keeps."""
    assert output.count("failed=0") == len(BOXES), output
    for box, limit in zip(BOXES, (None, 1), strict=True):
        run = result(results, box, kind)
        assert run["limit"] == limit
        assert [series["count"] for series in run["series"]] == [20, 20, 20]
    assert f"A: {results}/box-a/{kind}.json" in output
    assert "beyond 0.00 us: C, idle" in output


def test_on_this_machine(wheels: Path, playbook: str, tmp_path: Path) -> None:
    boxes = [f"box-a pyuio_directory={tmp_path}/a", f"box-b pyuio_directory={tmp_path}/b pyuio_limit=1ns"]
    done = play(
        playbook,
        tmp_path,
        boxes,
        ["--priority", "0"],
        "--forks=1",
        ansible_connection="local",
        pyuio_wheels=str(wheels),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check(done.stdout, tmp_path, "timer")
    for box in BOXES:
        assert result(tmp_path, box, "doctor")["device"] is None


def free_ports(count: int) -> list[int]:
    """Return ports of this machine that nobody uses."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextmanager
def guests(vm: Vm, key: Path, ports: list[int]) -> Iterator[None]:
    """Have guests that ssh reaches at these ports, the first with two processors, the next with three, and so on."""
    dropbear = packages.fetch(_DROPBEAR, ROOT / "build/dropbear", "usr/sbin/dropbear").parents[2]
    script = [str(ROOT / "tests/vm/fleet_box.sh"), str(dropbear), str(key.with_suffix(".pub"))]
    running = []
    try:
        for number, port in enumerate(ports, 2):
            network = f"-netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"
            cards = ("edu,addr=08", "virtio-net-pci,netdev=net,addr=09", "pci-testdev,addr=0a")
            options = [*(f"--device={card}" for card in cards), f"--qemu={network}", f"--cpus={number}", "--one-thread"]
            running.append(vm.start(*options, "--", "sh", *script))
        for guest in running:
            assert guest.stdout is not None
            if guest.stdout.readline() != b"up\n":
                raise AssertionError(guest.communicate()[1].decode())
        yield
        assert [guest.poll() for guest in running] == [None] * len(ports), "a guest ended before the play did"
    finally:
        for guest in running:
            guest.terminate()
        for guest in running:
            guest.communicate(timeout=60)


def test_on_two_guests_by_ssh(wheel: Path, wheels: Path, playbook: str, vm: Vm, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=60)
    ports = free_ports(len(BOXES))
    box_a, box_b = (f"{box} ansible_port={port}" for box, port in zip(BOXES, ports, strict=True))
    by_ssh = {
        "ansible_host": "127.0.0.1",
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        "ansible_ssh_retries": "3",  # a guest beside others on a busy machine answers late
        "ansible_ssh_timeout": "60",
        "ansible_ssh_transfer_method": "piped",  # Dropbear has no sftp
        "pyuio_wheels": str(wheel),
        "pyuio_kind": "latency",
        # The guests see this machine's files. To copy each wheel would take ten emulated seconds.
        "pip_arguments": f"--find-links {wheels}",
    }
    with guests(vm, key, ports):
        boxes = [f"{box_a} pyuio_device={EDU}", f"{box_b} pyuio_device={EDU} pyuio_limit=1ns"]
        done = play(playbook, tmp_path, boxes, [], **by_ssh)
        assert done.returncode == 0, done.stdout + done.stderr
        check(done.stdout, tmp_path, "latency")
        for box in BOXES:
            assert result(tmp_path, box, "doctor")["device"] == EDU
            (tmp_path / box / "latency.json").unlink()

        # Again, for three boxes that each have something else in the place of an edu card; the first two are one guest.
        places = [(box_a, NO_PIN), (box_a.replace("box-a", "box-c"), "0000:00:0b.0"), (box_b, NETWORK)]
        boxes = [f"{box} pyuio_device={address}" for box, address in places]
        done = play(playbook, tmp_path, boxes, [], **by_ssh)
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stdout.count("failed=1") == len(boxes), done.stdout
        for why in (f"{NO_PIN} has no INTx pin", "there is no device 0000:00:0b.0", "no installed driver"):
            assert why in done.stdout
        assert not list(tmp_path.glob("*/latency.json")), "of the first play"
