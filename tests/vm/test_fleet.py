# SPDX-License-Identifier: MIT
"""The playbook of examples/fleet, by ansible-core, for two boxes that are this machine (Ansible's connection local)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]  # pip fetches much by name

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


def words(directory: Path, wheels: Path, boxes: str, *bench: str) -> list[str]:
    """Return the arguments of ansible-playbook; the results come into the directory."""
    python = os.path.realpath(sys.executable)
    inventory = directory / "inventory.ini"
    inventory.write_text(
        f"[boxes]\n{boxes}\n[boxes:vars]\nansible_connection=local\n"
        f"ansible_python_interpreter={python}\npyuio_python={python}\n"
    )
    arguments = {
        "pyuio_wheels": str(wheels),
        "pyuio_pip_arguments": "--no-index --no-compile",
        "pyuio_results": str(directory),
        "pyuio_command_here": str(Path(sys.executable).with_name("pyuio")),
        "pyuio_bench_arguments": ["--count", "20", "--loads", "idle", "--no-picture", *bench],
    }
    playbook = str(FLEET / "playbook.yml")
    return ["--forks=1", f"--inventory={inventory}", f"--extra-vars={json.dumps(arguments)}", playbook]


def check(output: str, results: Path, kind: str) -> None:
    assert output.count("failed=0") == 2, output
    for box, limit in (("box-a", None), ("box-b", 1)):
        run = json.loads((results / box / f"{kind}.json").read_text())
        assert run["limit"] == limit
        assert [series["count"] for series in run["series"]] == [20, 20, 20]
    assert f"A: {results}/box-a/{kind}.json" in output
    assert "beyond 0.00 us: C, idle" in output, "of box-b, whose limit no sample keeps"


def test_on_this_machine(wheels: Path, playbook: str, tmp_path: Path) -> None:
    boxes = f"box-a pyuio_directory={tmp_path}/a\nbox-b pyuio_directory={tmp_path}/b pyuio_limit=1ns"
    command = [playbook, *words(tmp_path, wheels, boxes, "--priority", "0")]
    environment = {**os.environ, "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    check(done.stdout, tmp_path, "timer")
    for box in ("box-a", "box-b"):
        assert json.loads((tmp_path / box / "doctor.json").read_text())["device"] is None
