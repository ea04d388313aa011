# SPDX-License-Identifier: MIT
"""The counters of the Intel 82574L, added up: data sheet 317694, section 10.2.7.

Reading a counter clears it in the card, so what the card has counted is kept here. ``nic.statistics.read()``.
"""

from __future__ import annotations

from typing import NamedTuple

from pyuio_drivers.e1000e.registers import Statistics


class Counts(NamedTuple):
    """What the card has counted since the driver was opened. Octets are with the CRC.

    Attributes:
        received, received_octets: good frames that passed the filters, and their octets.
        broadcasts_received, multicasts_received: how many of those.
        transmitted, transmitted_octets: frames that were sent, and their octets.
        missed: frames that found no room in the card's memory, because no descriptors were there for long (MPC).
        no_buffers: frames that came when there was no descriptor; they may have found one later (RNBC).
        crc_errors: frames with a wrong CRC.
        receive_errors: frames with a symbol that the PHY did not know.
        undersize, oversize: frames below 64 octets; frames above 1522 octets, or above 9018 with a `longest`.
    """

    received: int = 0
    received_octets: int = 0
    broadcasts_received: int = 0
    multicasts_received: int = 0
    transmitted: int = 0
    transmitted_octets: int = 0
    missed: int = 0
    no_buffers: int = 0
    crc_errors: int = 0
    receive_errors: int = 0
    undersize: int = 0
    oversize: int = 0


class StatisticsCounter:
    """Adds the card's counters up."""

    def __init__(self, registers: Statistics) -> None:
        self._registers = registers
        self._sum = Counts()

    def read(self) -> Counts:
        """Return what the card has counted since the driver was opened. Read it before one of them is full, at 2^32."""
        card = self._registers
        new = Counts(
            received=card.gprc.read(),
            received_octets=card.gorcl.read() | card.gorch.read() << 32,  # reading GORCH clears both
            broadcasts_received=card.bprc.read(),
            multicasts_received=card.mprc.read(),
            transmitted=card.gptc.read(),
            transmitted_octets=card.gotcl.read() | card.gotch.read() << 32,
            missed=card.mpc.read(),
            no_buffers=card.rnbc.read(),
            crc_errors=card.crcerrs.read(),
            receive_errors=card.rxerrc.read(),
            undersize=card.ruc.read(),
            oversize=card.roc.read(),
        )
        self._sum = Counts(*(before + now for before, now in zip(self._sum, new, strict=True)))
        return self._sum
