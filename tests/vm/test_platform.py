# SPDX-License-Identifier: MIT
"""Devices of a device tree: an arm64 guest runs platform_guest.py on a tree of these tests' own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyuio.vm import Options, kernels, machine
from tests.guest import linux_uio
from tests.run import ARCHITECTURE, BUILD

from .conftest import Vm

GUEST = Path(__file__).with_name("platform_guest.py")
LIMIT = 240  # seconds


def tool(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The device tree of QEMU, with two devices for uio_pdrv_genirq, and without dma-coherent for PCI."""
    directory = tmp_path_factory.mktemp("tree")
    own, source, changed = directory / "qemu.dtb", directory / "changed.dts", directory / "changed.dtb"
    options = Options(arch="arm64")
    tool(
        machine.find_qemu(options.architecture),
        *("-machine", f"{options.machine},dumpdtb={own}", "-cpu", options.architecture.cpu["tcg"]),
        *("-smp", str(options.cpus), "-m", machine.memory_size(options)),
    )
    tool("dtc", "-q", "-I", "dtb", "-O", "dts", "-o", str(source), str(own))
    text = source.read_text()
    # Without "arm,primecell" they are platform devices, and not of ARM's bus, which has drivers of its own.
    for name, label, more in (
        ("pl031", "clock", ""),
        ("pl061", "port", 'linux,uio-name = "gpio"; reg-names = "pins";'),
    ):
        text, found = re.subn(
            rf'{name}@(\w+) {{(.*?)compatible = "arm,{name}\\0arm,primecell";',
            rf'{label}: {name}@\1 {{\2compatible = "arm,{name}", "generic-uio"; {more}',
            text,
            flags=re.DOTALL,
        )
        assert found == 1, text
    text, found = re.subn(r"(pcie@\w+ {[^}]*?)dma-coherent;", r"\1", text)
    assert found == 1, text
    text = re.sub(r"gpio-keys {.*?};\n\t};", "", text, flags=re.DOTALL)  # its pins are the port's
    source.write_text(text)
    tool("dtc", "-q", "-@", "-I", "dts", "-O", "dtb", "-o", str(changed), str(source))
    return changed


def test_in_the_guest(tree: Path) -> None:
    version = kernels.prepare("debian", print, architecture=ARCHITECTURE).version
    module = linux_uio.build(version, BUILD / "modules")[0]
    options = ["-v", "--noconftest", "-pno:cacheprovider", "-ppytest_timeout", "--timeout=100"]
    vm = Vm()
    command = vm.command(
        *("--qemu", f"-dtb {tree}", "--device", "edu,dma_mask=0xffffffffffffffff", f"--timeout={LIMIT}"),
        *("--", sys.executable, "-m", "pytest", *options, str(GUEST)),
    )
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={
            **os.environ,
            "STARTED": str(int(time.time())),
            "UIO_PDRV": str(module),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        check=False,
    )
    assert not vm.left()
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) passed", done.stdout)
    assert found, done.stdout
    assert int(found[1]) >= 9
