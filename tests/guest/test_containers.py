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
from pyuio.kernel.drivers import VFIO_PCI
from tests.guest import containers
from tests.guest.support import DRIVER, PROCESSOR, PROGRAM_LIMIT, keep_bound

pytestmark = pytest.mark.long


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
    return containers.files(edu)


def run(root: Path, edu: str, **options: Any) -> dict[str, Any]:
    done = containers.run(root, sys.executable, "-c", containers.PROGRAM, edu, limit=PROGRAM_LIMIT, **options)
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
        assert f"--mount type=bind,source={path},target={path}" in remedy
    assert f"--device {files['devices'][-1]}" in found["error"]


def test_with_these_options_the_card_works(root: Path, edu: str, files: dict[str, Any]) -> None:
    if DRIVER == VFIO_PCI:
        found = run(root, edu, **files, capabilities=(), limits={"MEMLOCK": 1 << 26})
    else:
        found = run(root, edu, **files, added=["SYS_ADMIN"])
    assert "error" not in found, found["error"]
    assert (found["interrupt"], found["memory"], found["events"]) == (120, "there", "yes")
    assert found["permissions"][0] == found["pagemap"][0] == "good"


@pytest.mark.uio
def test_the_profile_of_podman_forbids_memory(root: Path, edu: str, files: dict[str, Any]) -> None:
    found = run(root, edu, **files, added=["SYS_ADMIN"], allowed=())
    assert found["interrupt"] == 120
    assert "vmsplice" in found["error"]
    assert "seccomp" in found["error"]


@pytest.mark.uio
def test_without_a_capability_all_but_memory_works(root: Path, edu: str, files: dict[str, Any]) -> None:
    found = run(root, edu, **files, capabilities=())
    assert found["interrupt"] == 120
    assert found["error"].startswith("PermissionDeniedError")
    state, _, remedy = found["pagemap"]
    assert (state, "--cap-add SYS_ADMIN" in remedy) == ("blocks", True)


def test_a_card_that_is_open_outside_is_busy(root: Path, edu: str, files: dict[str, Any]) -> None:
    with pyuio.open(edu):
        found = run(root, edu, **files, limits={"MEMLOCK": 1 << 26})
    assert found["error"].startswith("DeviceBusyError")


def test_a_node_alone_is_not_enough(root: Path, edu: str, files: dict[str, Any]) -> None:
    """``-v /dev:/dev`` shows the node, and the cgroup still refuses it."""
    found = run(root, edu, volumes=["/dev", *files.get("volumes", ())])
    assert found["permissions"][0] == "blocks"
    assert f"--device {files['devices'][0]}" in found["permissions"][2]
    assert found["error"].startswith("PermissionDeniedError")
