# SPDX-License-Identifier: MIT
"""The commands of docs/containers.md, by podman with and without root, and by Docker: a driver in their containers."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyuio.doctor.driver import files_to_open
from pyuio.kernel.drivers import VFIO_PCI
from pyuio.pci.discovery import find
from tests.guest import container_engines, containers
from tests.guest.container_engines import Engine
from tests.guest.support import DRIVER, keep_bound

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

PAGE = (container_engines.ROOT / "docs/containers.md").read_text()
BY_VFIO = DRIVER == VFIO_PCI
INTERFACE = "VFIO" if BY_VFIO else "UIO"


@pytest.fixture(scope="module")
def programs() -> Iterator[None]:
    with container_engines.installed():
        yield


@pytest.fixture(scope="module", params=["podman", "docker"])
def engine(request: pytest.FixtureRequest, programs: None) -> Iterator[Engine]:
    if request.param == "podman":
        yield container_engines.podman()
    else:
        with container_engines.docker() as started:
            yield started


@pytest.fixture(scope="module")
def without_root(programs: None) -> Engine:
    return container_engines.podman_without_root()


def block(heading: str) -> str:
    """Return the first indented block of the page below a heading."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return str(re.findall(r"(?:^ {4}.*\n)+", section, re.MULTILINE)[0])


def options(heading: str, card: str) -> list[str]:
    """Return the options of a documented command, for this card."""
    command, first, *words, image = shlex.split(block(heading).replace("\\\n", " "))
    assert (command, first, image) == ("podman", "run", "IMAGE")
    here = containers.files(card)
    documented = ["/dev/vfio/vfio", "/dev/vfio/7"] if BY_VFIO else ["/dev/uio0"]
    places = dict(zip(documented, here["devices"], strict=True))
    for directory in here.get("volumes", ()):
        volume = "type=bind,source={0},target={0}"
        places[volume.format("/sys/devices/pci0000:00/0000:03:00.0")] = volume.format(directory)
    assert places.keys() <= set(words), "the page names the files of a card"
    return [places.get(word, word) for word in words]


def run(engine: Engine, card: str, *words: str) -> dict[str, Any]:
    done = engine.run(words, sys.executable, "-c", containers.PROGRAM, card)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_what_the_doctor_names_is_enough(engine: Engine, edu: str) -> None:
    keep_bound(edu)
    found = run(engine, edu, "--cap-drop=ALL")
    state, _, remedy = found["permissions"]
    assert state == "blocks"
    assert "error" in found
    named = remedy.removeprefix("in a container: ").removesuffix(" (docs/containers.md)")
    found = run(engine, edu, "--cap-drop=ALL", *shlex.split(named))
    assert found["permissions"][0] == "good"
    assert found["interrupt"] == 120
    assert ("memory" in found) == BY_VFIO


def test_the_documented_command(engine: Engine, edu: str) -> None:
    keep_bound(edu)
    found = run(engine, edu, *options(f"By {INTERFACE}", edu))
    assert (found["permissions"][0], found["interrupt"], found["events"]) == ("good", 120, "yes")
    if BY_VFIO:
        assert "error" not in found, found["error"]
        assert (found["memory"], found["memlock"][0]) == ("there", "good")
    else:
        assert found["error"].startswith("PermissionDeniedError"), "memory needs a capability"
        assert "--cap-add SYS_ADMIN" in found["pagemap"][2]


@pytest.mark.uio
def test_memory_by_uio(engine: Engine, edu: str, tmp_path: Path) -> None:
    """It needs a capability, and of podman also a profile for seccomp, which the page makes by jq."""
    keep_bound(edu)
    capable = ["--cap-add=SYS_ADMIN", *options("By UIO", edu)]
    found = run(engine, edu, *capable)
    if "error" in found:
        assert "vmsplice" in found["error"]
        assert "seccomp" in found["error"]
        subprocess.run(["sh", "-ec", block("Memory by UIO")], cwd=tmp_path, check=True)
        found = run(engine, edu, *capable, f"--security-opt=seccomp={tmp_path}/pyuio.json")
    assert "error" not in found, found["error"]
    assert (found["pagemap"][0], found["memory"]) == ("good", "there")


@pytest.fixture
def given_to_the_group(edu: str) -> Iterator[str]:
    """The card, whose files belong to the group as pyuio setup gives them."""
    keep_bound(edu)
    before = [(path, path.stat()) for path in files_to_open(find(edu)) if path.name != "vfio"]
    for path, status in before:
        os.chown(path, -1, container_engines.GROUP)
        path.chmod(status.st_mode | 0o060)
    yield edu
    for path, status in before:
        os.chown(path, status.st_uid, status.st_gid)
        path.chmod(status.st_mode & 0o777)


def test_without_root(without_root: Engine, given_to_the_group: str) -> None:
    card = given_to_the_group
    documented = options(f"Without root, by {INTERFACE}", card)
    found = run(without_root, card, *documented)
    assert (found["permissions"][0], found["interrupt"], found["events"]) == ("good", 120, "yes")
    if BY_VFIO:
        assert found["memory"] == "there"
    else:
        assert found["error"].startswith("PermissionDeniedError"), "memory"
        assert "no container without root" in found["pagemap"][2]
    assert "the limits of the user" in found["memlock"][2]

    kept = documented.index("--group-add")
    found = run(without_root, card, *documented[:kept], *documented[kept + 2 :])
    assert found["error"].startswith("PermissionDeniedError")
    assert "--group-add keep-groups" in found["permissions"][2]
