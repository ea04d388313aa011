# SPDX-License-Identifier: MIT
"""A driver in a container that is made as Docker makes one: docs/containers.md's options, and what is missing without.

crun enforces namespaces, capabilities, the cgroup's device rules, seccomp and the read-only /sys (containers.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pyuio
from pyuio.kernel import vfio
from pyuio.kernel.drivers import VFIO_PCI
from pyuio.kernel.sysfs import PCI_DEVICES
from pyuio.pci.discovery import find
from tests.guest import containers
from tests.guest.support import DRIVER, PROCESSOR, PROGRAM_LIMIT, keep_bound

# What the doctor says of the device, and how far a driver comes.
PROGRAM = """
import json, sys
import pyuio
from pyuio.doctor import CHECKS
from pyuio.pci.discovery import find
from pyuio_drivers.edu import Edu
address = sys.argv[1]
found = {}
for check in CHECKS:
    if check.name in ("permissions", "pagemap", "memlock"):
        finding = check.run(find(address))
        found[check.name] = [finding.state, finding.found, finding.remedy]
try:
    with Edu(pyuio.open(address)) as card:
        found["interrupt"] = card.factorial_by_interrupt(5, timeout=10)
        card.to_device(b"there", timeout=10)
        found["memory"] = bytes(card.from_device(5, timeout=10)).decode()
except pyuio.PyuioError as error:
    found["error"] = f"{type(error).__name__}: {error}"
with pyuio.Hotplug() as hotplug:
    found["events"] = "yes"
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    directory = containers.kept(PROCESSOR)
    if not (directory / "usr/bin/crun").exists():
        pytest.skip(f"no crun: python -m tests.guest.containers {directory} fetches it")
    with containers.root_directory() as directory:
        yield directory


@pytest.fixture
def files(edu: str) -> dict[str, Any]:
    """What docs/containers.md gives a container for the card, which is bound outside."""
    keep_bound(edu)
    if DRIVER == VFIO_PCI:
        return {"devices": [str(vfio.CONTAINER), str(vfio.group_path(vfio.group_of(PCI_DEVICES / edu) or 0))]}
    return {"devices": [f"/dev/{find(edu).uio}"], "volumes": [str((PCI_DEVICES / edu).resolve())]}


def run(root: Path, edu: str, **options: Any) -> dict[str, Any]:
    done = containers.run(root, sys.executable, "-c", PROGRAM, edu, limit=PROGRAM_LIMIT, **options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_the_doctor_names_the_options(root: Path, edu: str, files: dict[str, Any]) -> None:
    found = run(root, edu)
    state, _, remedy = found["permissions"]
    assert state == "blocks"
    for path in files["devices"]:
        assert f"--device {path}" in remedy
    for path in files.get("volumes", ()):
        assert f"-v {path}:{path}" in remedy
    assert "error" in found


def test_with_these_options_the_card_works(root: Path, edu: str, files: dict[str, Any]) -> None:
    if DRIVER == VFIO_PCI:
        found = run(root, edu, **files, capabilities=(), limits={"MEMLOCK": 1 << 26})
    else:
        found = run(root, edu, **files, added=["SYS_ADMIN"])
    assert "error" not in found, found["error"]
    assert (found["interrupt"], found["memory"], found["events"]) == (120, "there", "yes")
    assert found["permissions"][0] == found["pagemap"][0] == "good"


@pytest.mark.long
@pytest.mark.uio
def test_the_profile_of_podman_forbids_memory(root: Path, edu: str, files: dict[str, Any]) -> None:
    found = run(root, edu, **files, added=["SYS_ADMIN"], allowed=())
    assert found["interrupt"] == 120
    assert "vmsplice" in found["error"]
    assert "seccomp" in found["error"]


@pytest.mark.long
@pytest.mark.uio
def test_without_a_capability_all_but_memory_works(root: Path, edu: str, files: dict[str, Any]) -> None:
    found = run(root, edu, **files, capabilities=())
    assert found["interrupt"] == 120
    assert found["error"].startswith("PermissionDeniedError")
    state, _, remedy = found["pagemap"]
    assert (state, "--cap-add SYS_ADMIN" in remedy) == ("blocks", True)


@pytest.mark.long
def test_a_card_that_is_open_outside_is_busy(root: Path, edu: str, files: dict[str, Any]) -> None:
    with pyuio.open(edu):
        found = run(root, edu, **files, limits={"MEMLOCK": 1 << 26})
    assert found["error"].startswith("DeviceBusyError")


@pytest.mark.long
def test_a_node_alone_is_not_enough(root: Path, edu: str, files: dict[str, Any]) -> None:
    """``-v /dev:/dev`` shows the node, and the cgroup still refuses it."""
    found = run(root, edu, volumes=["/dev", *files.get("volumes", ())])
    assert found["permissions"][0] == "blocks"
    assert f"--device {files['devices'][0]}" in found["permissions"][2]
    assert found["error"].startswith("PermissionDeniedError")
