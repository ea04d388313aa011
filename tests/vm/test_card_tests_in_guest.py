# SPDX-License-Identifier: MIT
"""A driver's tests on a card in Python, run in a guest by the plugin for pytest: ``--card-in-guest``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyuio.cli.new import FILES

from .conftest import PYUIO, Vm

pytestmark = pytest.mark.usefixtures("qemu_with_cards")

KERNEL = os.environ.get("KERNEL", "debian")
WRONG = """
import pytest
from pyuio import PyuioError
from adc.model import AdcCard

pytestmark = pytest.mark.card(kind=AdcCard)

def test_right(device):
    assert device.bar(0).read32(0) == 0xADC0_0001

def test_wrong(device):
    assert device.bar(0).read32(0) == 7

def test_complaint(device):
    try:
        device.bar(0).write32(0, 1)
    except PyuioError:
        pass

def test_after_that(device):
    pass

def test_model(card):
    pass
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A new package called adc, as `pyuio new` writes it."""
    subprocess.run([*PYUIO, "new", "adc"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    return tmp_path / "adc"


def run(vm: Vm, package: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    options = f"--kernel {KERNEL} --timeout 200 --one-thread --qemu '-name {vm.mark}'"
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *words]
    return subprocess.run(
        [*command, "--card-in-guest", f"--guest-options={options}"],
        cwd=package,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_tests_of_a_new_package(vm: Vm, package: Path) -> None:
    assert "tests/test_sampler.py" in FILES
    done = run(vm, package)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tests/test_adc.py::test_a_sample PASSED" in done.stdout
    assert "tests/test_adc.py::test_closing_leaves_the_card_quiet PASSED" in done.stdout
    assert "2 passed, 15 deselected" in done.stdout
    assert "15 deselected tests did not run in the guest: they use no `device`, or the `card` itself" in done.stdout


@pytest.mark.long  # make test takes the plugin apart (tests/unit/test_pytest_plugin.py), and a card (test_card.py)
@pytest.mark.timeout(300)
def test_failures_and_complaints(vm: Vm, package: Path) -> None:
    (package / "tests/test_wrong.py").write_text(WRONG)
    # To load all plugins that are installed, with hypothesis, would take half of the guest's time; so would it to parse
    # the files that a traceback shows.
    words = ("-p", "pyuio.pytest_plugin", "--tb=native", "tests/test_wrong.py")
    done = run(vm, package, *words, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert done.returncode == 1, done.stdout + done.stderr
    outcomes = {
        line.split()[0].partition("::")[2]: line.split()[1]
        for line in done.stdout.splitlines()
        if line.startswith("tests/test_wrong.py::")
    }
    assert outcomes["test_right"] == "PASSED"
    assert outcomes["test_wrong"] == "FAILED"
    assert "assert 2915041281 == 7" in done.stdout
    assert "test_model" not in outcomes
    # A write is posted: the complaint ends the guest a moment later, in this test or in the next.
    assert "identification is read-only" in done.stdout
    assert {"FAILED", "ERROR"} & {outcomes["test_complaint"], outcomes["test_after_that"]}
