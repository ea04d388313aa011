# SPDX-License-Identifier: MIT
"""Tests that hold for every card: they touch none of its registers, and its bus mastering stays off."""

from __future__ import annotations

import errno

import pytest

import pyuio
from tests.guest.support import INTERRUPT_DISABLE, attribute, command_register


def test_configuration_space_is_that_of_the_card(any_card: str) -> None:
    with pyuio.open(any_card, bind=True) as device:
        ids = f"{device.config.read16(0):04x}:{device.config.read16(2):04x}"
        assert ids == device.ids == f"{attribute(any_card, 'vendor')[2:]}:{attribute(any_card, 'device')[2:]}"
        assert device.config.read32(8) >> 8 == device.class_code == int(attribute(any_card, "class"), 16)


def test_every_bar_has_the_kernels_place_and_size(any_card: str) -> None:
    lines = [[int(number, 16) for number in line.split()] for line in attribute(any_card, "resource").splitlines()]
    with pyuio.open(any_card, bind=True) as device:
        for index, (start, end, _flags) in enumerate(lines[:6]):
            if end == 0:
                with pytest.raises(pyuio.PyuioError):
                    device.bar(index)
                continue
            bar = device.bar(index)
            assert (bar.address, bar.size) == (start, end - start + 1)


def test_its_interrupt_is_armed_by_waiting_and_masked_in_the_end(any_card: str) -> None:
    with pyuio.open(any_card, bind=True) as device:
        try:
            interrupt = device.interrupt
        except pyuio.InterruptUnavailableError:
            pytest.skip(f"{any_card} has no interrupt that its UIO driver delivers")
        assert interrupt.masked
        with pytest.raises(BlockingIOError) as caught:
            interrupt.read(0)
        assert caught.value.errno == errno.EAGAIN
        assert not interrupt.masked
        interrupt.mask()
        assert interrupt.masked
    assert attribute(any_card, "enable") == "0" or command_register(any_card) & INTERRUPT_DISABLE


def test_it_is_open_once_only(any_card: str) -> None:
    with pyuio.open(any_card, bind=True):
        for _ in range(2):
            with pytest.raises(pyuio.DeviceBusyError):
                pyuio.open(any_card, bind=True)
