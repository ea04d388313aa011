# SPDX-License-Identifier: MIT
from __future__ import annotations

import math
import re
import runpy
import subprocess
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu, EduRegisters, Interrupts

import pyuio
from pyuio.kernel.drivers import VFIO_PCI
from tests.guest.support import DRIVER, EDU, Cards, forked

long_over_vfio = pytest.mark.long if DRIVER == VFIO_PCI else pytest.mark.uio

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/demo.py"


def test_identification(card: Edu) -> None:
    assert card.version == (1, 0)


@long_over_vfio
def test_liveness(card: Edu) -> None:
    for value in (0, 0xFFFFFFFF, 0xDEADBEEF):
        assert card.liveness(value) == value ^ 0xFFFFFFFF


def test_factorials(card: Edu) -> None:
    for number in range(13):
        assert card.factorial(number) == math.factorial(number)
        assert card.factorial_by_interrupt(number) == math.factorial(number)


@long_over_vfio
def test_factorial_after_a_stray_interrupt(card: Edu) -> None:
    """An interrupt that something else raised is acknowledged, and not taken for the factorial's."""
    for bits in (0x10, Interrupts.factorial.mask):
        for number in range(13):
            card.raise_interrupt(bits)
            assert card.factorial_by_interrupt(number) == math.factorial(number)
            assert card.interrupt_status() == 0


@long_over_vfio
def test_bad_factorials_never_reach_the_card(card: Edu) -> None:
    assert card.factorial(5) == 120
    for number in (-1, 13, 1 << 40):
        with pytest.raises(ValueError, match="factorials of 0 to 12"):
            card.factorial(number)
        with pytest.raises(ValueError, match="factorials of 0 to 12"):
            card.factorial_by_interrupt(number)
    with pytest.raises(TypeError):
        card.factorial("5")  # type: ignore[arg-type]
    assert card.registers.factorial.read() == 120


@long_over_vfio
def test_waiting_without_an_interrupt(card: Edu) -> None:
    for timeout in (0, 0.01):
        with pytest.raises(TimeoutError):
            card.wait_for_interrupt(timeout)


def test_is_left_quiet(edu: str) -> None:
    with Edu.open(edu) as card:
        card.registers.status.interrupt_after_factorial = True
        card.raise_interrupt(0xFF)
    card.close()
    with pyuio.open(edu, bind=True) as device:
        registers = EduRegisters(device.bar(0))
        assert registers.interrupt_status.read() == 0
        assert registers.status.read() == 0


@long_over_vfio
def test_is_closed_after_an_exception(edu: str) -> None:
    with pytest.raises(RuntimeError, match="in the middle"), Edu.open(edu) as card:
        raise RuntimeError("in the middle")
    assert card.device.closed
    with Edu.open(edu):
        pass


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    def demo() -> None:
        runpy.run_path(str(EXAMPLE), run_name="__main__")

    return forked(demo, str(EXAMPLE), *arguments)


@long_over_vfio
def test_the_demo_names_the_step_that_fails(cards: Cards) -> None:
    assert cards(EDU)
    done = run_demo("dead:beef")
    assert done.returncode == 1
    assert "failed at step 'opening the card': there is no device dead:beef" in done.stderr


@long_over_vfio
def test_the_demo_notices_a_card_that_is_held(device: pyuio.Device) -> None:
    done = run_demo(str(device.address))
    assert done.returncode == 1
    assert re.search("is open already|is in use through VFIO", done.stderr)
