# SPDX-License-Identifier: MIT
"""The playbook of examples/fleet, by ansible-core, in a guest with an edu card, for two boxes that are that guest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Vm

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]  # pip and Ansible, under emulation

ROOT = Path(__file__).resolve().parents[2]
FLEET = ROOT / "examples/fleet"
LIMIT = 300  # seconds, for what pip fetches by name


def pip(*words: str, python: str = sys.executable) -> None:
    subprocess.run([python, "-m", "pip", "--quiet", *words], check=True, timeout=LIMIT, cwd=ROOT)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with pyuio's wheel and those that it needs."""
    directory = tmp_path_factory.mktemp("wheels")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), ".")
    (wheel,) = directory.iterdir()
    pip("download", "--dest", str(directory), f"{wheel}[bench]")
    return directory


@pytest.fixture(scope="module")
def playbook(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command ansible-playbook, of a virtual environment of its own."""
    directory = tmp_path_factory.mktemp("ansible")
    subprocess.run([sys.executable, "-m", "venv", directory], check=True, timeout=LIMIT)
    pip("install", "ansible-core", python=str(directory / "bin/python"))
    return str(directory / "bin/ansible-playbook")


def test_two_boxes(wheels: Path, playbook: str, tmp_path: Path, vm: Vm) -> None:
    results = tmp_path / "out"
    results.mkdir(mode=0o700)
    python = os.path.realpath(sys.executable)
    inventory = tmp_path / "inventory.ini"
    inventory.write_text(
        f"""
[boxes]
box-a pyuio_directory=/opt/box-a
box-b pyuio_directory=/opt/box-b pyuio_limit=1ns
[boxes:vars]
ansible_connection=local
ansible_python_interpreter={python}
pyuio_python={python}
pyuio_kind=latency
pyuio_device=1234:11e8
"""
    )
    arguments = {
        "pyuio_wheels": str(wheels),
        "pyuio_pip_arguments": "--no-index",
        "pyuio_results": str(results),
        "pyuio_command_here": str(Path(sys.executable).with_name("pyuio")),
        "pyuio_bench_arguments": ["--count", "20", "--interval", "2000", "--loads", "idle", "--no-picture"],
    }
    done = vm.run(
        *(f"--out={results}", "--memory=2G", "--device=edu", "--timeout=2000", "--"),
        *(playbook, "--forks=1", f"--inventory={inventory}", f"--extra-vars={json.dumps(arguments)}"),
        str(FLEET / "playbook.yml"),
        env={**os.environ, "ANSIBLE_HOME": "/tmp/ansible", "ANSIBLE_NOCOLOR": "1"},
        limit=2100,
    )
    output = done.stdout.decode()
    assert done.returncode == 0, output + done.stderr.decode()
    assert output.count("failed=0") == 2
    for box, limit in (("box-a", None), ("box-b", 1)):
        run = json.loads((results / box / "latency.json").read_text())
        assert run["limit"] == limit
        assert [series["count"] for series in run["series"]] == [20, 20, 20]
        doctor = json.loads((results / box / "doctor.json").read_text())
        assert (doctor["blocked"], doctor["device"]) == (False, "0000:00:01.0")
    assert f"A: {results}/box-a/latency.json" in output
    assert "beyond 0.00 us: C, idle" in output, "of box-b, whose limit no sample keeps"
