# SPDX-License-Identifier: MIT
"""Wrong arguments for objects of an open device; tests/unit/test_bad_arguments.py has the others."""

from __future__ import annotations

import asyncio
import contextlib
import math
import operator
from typing import Any, SupportsIndex, cast

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.program import Unmask
from pyuio.region import PortRegion, Region
from tests.odd_arguments import ODD, PROMISED

# In make test these run on a model only: tests/model/test_edu.py.
on_a_model_too = pytest.mark.long


def outcome(use: Any, *arguments: Any, **named: Any) -> object:
    """Return what a call returned, or the promised exception that it raised."""
    try:
        return use(*arguments, **named)
    except PROMISED as error:
        return error


def is_time(value: Any) -> bool:
    """Return whether a value is a valid timeout: a number of seconds from 0 up, or None."""
    return value is None or (isinstance(value, (int, float)) and value >= 0)


@on_a_model_too
@pytest.mark.parametrize("way", ["read", "readinto", "read_async", "poll"])
def test_timeouts(card: Edu, way: str) -> None:
    """An interrupt is pending, because some of the timeouts last for ever."""
    interrupt = card.device.interrupt
    ways = {
        "read": interrupt.read,
        "readinto": lambda timeout: interrupt.readinto(bytearray(4), timeout),
        "read_async": lambda timeout: asyncio.run(interrupt.read_async(timeout)),
        "poll": interrupt.poll,
    }
    for value in ODD:
        card.raise_interrupt()
        assert interrupt.poll(10)
        found = outcome(ways[way], value)
        if is_time(value):
            assert found == {"read": 1, "readinto": 4, "read_async": 1, "poll": True}[way], value
        else:
            assert isinstance(found, (TypeError, ValueError)), value
        with contextlib.suppress(pyuio.WouldBlockError):
            interrupt.read(0)
        card.acknowledge()


@on_a_model_too
def test_buffers(card: Edu) -> None:
    for value in (*ODD, bytearray(3), memoryview(bytearray(8))[::2], bytes(4)):
        assert isinstance(outcome(card.device.interrupt.readinto, value, 0), (TypeError, OSError)), value


@on_a_model_too
def test_bars(device: pyuio.Device) -> None:
    for value in ODD:
        found = outcome(device.bar, value)
        if isinstance(value, int) and value == 0:
            assert isinstance(found, (Region, PortRegion))
        else:
            assert isinstance(found, (TypeError, ValueError, pyuio.MappingError)), value
        found = outcome(device.bar, 0, endian=value)
        assert isinstance(found, (TypeError, ValueError)), value


@pytest.mark.usefixtures("little_to_search")
@pytest.mark.parametrize("name", ["size", "align", "mask"])
def test_memory(device: pyuio.Device, name: str) -> None:
    """A valid value gives memory, an invalid one is refused, and nothing is left over."""
    for value in ODD[::6] if name == "mask" else ODD:
        found = outcome(device.dma.alloc, **{"size": 64, name: value})
        if isinstance(found, pyuio.DmaBuffer):
            with found:
                assert found.address + found.size <= 1 << 64
        else:
            assert isinstance(found, (TypeError, ValueError, pyuio.DmaMemoryError)), value
    assert not device.config.command & device.config.command.BUS_MASTER


@on_a_model_too
def test_services(device: pyuio.Device) -> None:
    """Invalid values are refused, except a handler that is an int: pyuio takes it as an address without a check."""
    for value in ODD:
        for named in ({"capacity": value}, {"names": value}, {"context": value}, {"program": value}):
            found = outcome(pyuio.Service, device.interrupt, **{"program": [Unmask()], **named})
            if isinstance(found, pyuio.Service):
                found.close()
        if not isinstance(value, (int, type(None))):
            assert isinstance(outcome(pyuio.Service, device.interrupt, handler=value), (TypeError, ValueError)), value
    with pyuio.Service(device.interrupt, [Unmask()]) as service:
        for value in ODD:
            if not is_time(value):
                assert isinstance(outcome(service.read, value), (TypeError, ValueError)), value
            outcome(service.read, 0, value)


@on_a_model_too
def test_the_driver_of_edu(card: Edu) -> None:
    """The driver must refuse these values, because QEMU ends the guest at some of them."""
    for value in ODD:
        found = outcome(card.factorial, value)
        if isinstance(found, int) and not isinstance(found, bool):
            assert found == math.factorial(operator.index(cast(SupportsIndex, value)))
        outcome(card.to_device, value)
        outcome(card.to_device, b"1234", value)
        outcome(card.from_device, 4, value)
        outcome(card.liveness, value)
    assert card.factorial(5) == 120
