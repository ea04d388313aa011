# SPDX-License-Identifier: MIT
"""The NVMe driver: the guest runs nvme_guest.py on disks whose files these tests make, and check afterwards."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from pyuio.vm.initramfs import tool_environment
from tests.run import ARCHITECTURE, WITH_IOMMU

from .conftest import QEMU, Vm, igb_uio_module

LIMIT = 240  # seconds
BLOCK = 512
RANDOM = 3000 * BLOCK
NAMES = ("main", "faulty", "slow", "two", "five", "zoned")
MEBIBYTES = {"main": 64, "faulty": 8, "slow": 8, "two": 16, "five": 8, "zoned": 8}


@dataclass
class Finished:
    """The one run of the guest, which all tests here check."""

    result: subprocess.CompletedProcess[bytes]
    directory: Path

    def image(self, name: str) -> bytes:
        return (self.directory / f"{name}.img").read_bytes()


def tool(*words: str) -> str:
    done = subprocess.run(words, env=tool_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def blockdev(name: str, path: Path) -> str:
    """Return QEMU's options for a disk: a plain one, one that fails in two places, or a slow one."""
    file = {"driver": "file", "filename": str(path), "node-name": f"{name}-file"}
    if name == "faulty":
        # Sectors have 512 bytes. "none" is an event that does not depend on earlier events.
        faults = [{"event": "none", "iotype": "read", "sector": 800, "errno": 5, "once": False}]
        faults += [{"event": "none", "iotype": "write", "sector": 1600, "errno": 5, "once": False}]
        layer = {"driver": "blkdebug", "image": f"{name}-file", "inject-error": faults, "node-name": f"{name}-faults"}
        layers = [file, layer, {"driver": "raw", "file": f"{name}-faults", "node-name": name}]
    elif name == "slow":
        layers = [file, {"driver": "throttle", "file": f"{name}-file", "throttle-group": "slow", "node-name": name}]
    else:
        layers = [file, {"driver": "raw", "file": f"{name}-file", "node-name": name}]
    return " ".join(f"-blockdev '{json.dumps(layer)}'" for layer in layers)


# Binds all of QEMU's NVMe controllers to igb_uio, whose module is the first argument, and runs the rest.
BY_IGB_UIO = """modprobe uio && insmod "$0" intr_mode=msi || exit
cd /sys/bus/pci/drivers/igb_uio && echo 1b36 0010 > new_id && ls -d 0000:* && cd "$OLDPWD" || exit
exec "$@"
"""
LONG = pytest.mark.long
# By uio_pci_generic what is not long, by the others all: under emulation to boot and to start pytest takes as long.
ALL = [
    pytest.param("igb_uio", marks=LONG),
    pytest.param("vfio", marks=() if ARCHITECTURE.name == "arm64" else LONG),  # there this is all with MSI-X
]


@pytest.fixture(scope="module", params=[pytest.param("uio", marks=LONG), *ALL])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    directory = tmp_path_factory.mktemp("nvme")
    noise = random.Random(7).randbytes(RANDOM)
    (directory / "random").write_bytes(noise)
    contents = directory / "contents"
    contents.mkdir()
    (contents / "hello").write_text("from the host\n")
    (contents / "random").write_bytes(noise)
    tool("mkfs.ext4", "-q", "-d", str(contents), str(directory / "ext4"), f"{MEBIBYTES['two']}M")
    for name in NAMES:
        with (directory / f"{name}.img").open("wb") as image:
            image.truncate(MEBIBYTES[name] << 20)
            if name == "main":
                image.seek(2048 * BLOCK)
                image.write(noise)
            elif name in ("two", "five"):
                image.write(f"{name}\n".encode())
    words = list(WITH_IOMMU) if request.param == "vfio" else []
    words += ["--qemu", "-object throttle-group,id=slow,x-iops-total=16"]
    for name in NAMES:
        words += ["--qemu", blockdev(name, directory / f"{name}.img")]
    for name in ("main,mdts=4", "faulty", "slow"):
        words += ["--device", f"nvme,drive={name},serial={name.split(',')[0]}"]
    words += ["--device", "nvme,id=many,serial=many", "--device", "nvme,serial=empty"]
    words += ["--device", "nvme-ns,drive=two,bus=many,nsid=2"]
    words += ["--device", "nvme-ns,drive=five,bus=many,nsid=5,logical_block_size=4096,physical_block_size=4096"]
    words += ["--device", "nvme-ns,drive=zoned,bus=many,nsid=7,zoned=true,zoned.zone_size=1M"]
    program = Path(__file__).with_name("nvme_guest.py")
    some = [] if request.param == "uio" else ["-m", "long or not long"]
    options = [*some, "-v", "--noconftest", "-pno:cacheprovider", "-ppytest_timeout", "--timeout=0"]  # LIMIT is enough
    vm = Vm()
    begin = ["sh", "-c", BY_IGB_UIO, str(igb_uio_module())] if request.param == "igb_uio" else []
    pytest_command = [sys.executable, "-m", "pytest", *options, str(program)]
    command = vm.command(*words, f"--timeout={LIMIT}", "--", *begin, *pytest_command)
    variables = {"NVME_IN": str(directory), "QEMU_MAY_HIDE_ZONED": str(int(QEMU >= (8, 2)))}
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **variables, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        check=False,
    )
    assert not vm.left()
    return Finished(result, directory)


def test_in_the_guest(finished: Finished) -> None:
    output = finished.result.stdout.decode()
    assert finished.result.returncode == 0, output + finished.result.stderr.decode()
    match = re.search(r"(\d+) passed", output)
    assert match, output
    assert int(match[1]) > 30


def test_what_was_written_is_in_the_file(finished: Finished) -> None:
    image = finished.image("main")
    assert image[777 * BLOCK : 777 * BLOCK + RANDOM] == (finished.directory / "random").read_bytes()
    for block in range(110000, 111600):
        expected = b"%5d %9d\n" % (0, block) * (BLOCK // 16)
        assert image[block * BLOCK : (block + 1) * BLOCK] == expected
    assert not any(image[111600 * BLOCK :])
    assert not any(image[(777 + 3000 + 3000) * BLOCK : 39000 * BLOCK])


@pytest.mark.parametrize("finished", ALL, indirect=True)
def test_file_system_is_clean_and_has_what_the_guest_added(finished: Finished) -> None:
    path = str(finished.directory / "two.img")
    tool("e2fsck", "-fn", path)
    assert tool("debugfs", "-R", "cat /answer", path) == "from the guest\n"
    assert "Filesystem state:         clean" in tool("dumpe2fs", "-h", path)


def test_what_was_only_read_is_as_it_was(finished: Finished) -> None:
    assert not any(finished.image("slow"))
    five = finished.image("five")
    assert five[:5] == b"five\n"
    assert five[6 * 4096 : 9 * 4096] == b"x" * 3 * 4096
    assert not any(five[9 * 4096 :])
