"""The driver on the model. `pytest` runs it in process; `pytest --card-in-guest` on a real kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyuio import Device, DeviceRemovedError, DeviceTimeoutError, UnsupportedDeviceError
from pyuio.model import Complaint, clock
from pyuio.model.explore import explore

from sampler.driver import Sampler
from sampler.model import SamplerCard

pytestmark = pytest.mark.card(kind=SamplerCard)


@pytest.fixture
def driver(device: Device) -> Iterator[Sampler]:
    """The driver on the card, closed afterwards."""
    with Sampler(device) as opened:
        yield opened


def test_a_sample(driver: Sampler) -> None:
    assert driver.sample() == 1000  # the input is at 1 V at first
    assert driver.volts() == pytest.approx(1.0)


def test_closing_leaves_the_card_quiet(driver: Sampler) -> None:
    driver.sample()
    registers = driver.registers
    driver.quiet()
    assert not registers.control.interrupt_enable
    assert not registers.status.done


# What follows needs the model itself, so it runs in process only.


@pytest.mark.parametrize(("input", "sample"), [(0.0, 0), (2.5, 2500), (4.095, 4095), (-1.0, 0), (9.0, 4095)])
def test_the_sample_follows_the_input(card: SamplerCard, driver: Sampler, input: float, sample: int) -> None:
    card.input = input
    assert driver.sample() == sample


def test_a_lost_interrupt_ends_in_a_timeout(card: SamplerCard, driver: Sampler) -> None:
    card.faults.lose_interrupt(1)
    start = clock.monotonic()
    with pytest.raises(DeviceTimeoutError):
        driver.sample(timeout=60)
    assert clock.monotonic() - start == pytest.approx(60, rel=1e-3)  # of virtual time, which takes none
    assert driver.sample() == 1000


def test_a_spurious_interrupt_changes_nothing(card: SamplerCard, driver: Sampler) -> None:
    card.faults.spurious_interrupt(at_access=card.faults.accesses + 3)
    assert driver.sample() == 1000


@pytest.mark.parametrize("access", range(1, 6))
def test_a_card_that_is_pulled_out_is_told(card: SamplerCard, driver: Sampler, access: int) -> None:
    card.faults.remove(at_access=card.faults.accesses + access)
    with pytest.raises(DeviceRemovedError):
        driver.sample()


def test_another_card_is_refused(card: SamplerCard, device: Device) -> None:
    card.regs.identification.kind = 0xFFFF
    with pytest.raises(UnsupportedDeviceError, match="is another card"):
        Sampler(device)


def test_the_model_complains_of_what_the_card_does_not_take(card: SamplerCard, device: Device) -> None:
    with pytest.raises(Complaint, match="sample is read-only"):
        device.bar(0).write32(0x0C, 1)
    card.complaints.clear()  # it was wanted; any other complaint fails the test


def test_every_fault_at_every_access_ends_well() -> None:
    def scenario(device: Device) -> int:
        with Sampler(device) as driver:
            return driver.sample(timeout=0.01)

    explore(scenario, card=SamplerCard).check()  # print what explore() returns for a table
