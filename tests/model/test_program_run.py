# SPDX-License-Identifier: MIT
"""`Device.run` on a card in Python: each operation is an access to the card, as by the region's methods."""

from __future__ import annotations

import logging

import pytest
from pyuio_drivers.models.edu import EduCard

import pyuio
import pyuio.model
from pyuio.model import clock
from pyuio.program import Count, Poll, Read, Stamp, Write


def nanoseconds() -> int:
    """Return the virtual time as a stamp has it."""
    return int(clock.monotonic() * 1e9)


def test_a_program(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pyuio.tracing")
    with pyuio.model.open(EduCard()) as device:
        device.trace_registers()
        bar = device.bar(0)
        program = [
            Write(bar, 0x08, 5),
            Poll("busy", bar, 0x20, 1, 0, 0.1),
            Read("factorial", bar, 0x08),
            Stamp("then"),
        ]
        for _ in range(2):
            begin = nanoseconds()
            outcome = device.run(program)
            assert begin < outcome.values["then"] <= nanoseconds()
            assert {**outcome.values, "then": 0} == {"busy": 0, "factorial": 120, "then": 0}
            assert not outcome.late
    texts = [record.getMessage().partition(": ")[2] for record in caplog.records]
    assert texts.count("bar0 write32 0x008 = 0x00000005") == 2
    assert texts[-1] == "bar0 read32 0x008 = 0x00000078"


def test_the_errors_of_single_accesses() -> None:
    model = EduCard()
    with pyuio.model.open(model) as device, pyuio.model.open(EduCard()) as other:
        program = [Write(device.bar(0), 0x04, 1), Read("inverse", device.bar(0), 0x04)]
        assert device.run(program).values == {"inverse": 0xFFFFFFFE}
        with pytest.raises(TypeError, match="Count is about an interrupt"):
            device.run([Count("all")])
        with pytest.raises(ValueError, match="is another device's"):
            other.run(program)
        model.remove()
        with pytest.raises(pyuio.DeviceRemovedError):
            device.run(program)
    with pytest.raises(pyuio.ClosedError, match="is closed"):
        device.run(program)
