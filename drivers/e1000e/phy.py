# SPDX-License-Identifier: MIT
"""The PHY of the Intel 82574L, which makes the link: data sheet 317694, chapter 9, by MDIC (section 10.2.2.7)."""

from __future__ import annotations

from typing import NamedTuple

from pyuio_drivers.e1000e.errors import PhyError
from pyuio_drivers.e1000e.registers import DeviceStatus, E1000eRegisters, MdiControl, MdiOperation

from pyuio import DeviceTimeoutError

ADDRESS = 1  # of the gigabit PHY: section 10.2.2.7
TIMEOUT = 0.1  # seconds for an access
# Registers of IEEE 802.3, clause 22.
CONTROL, STATUS, ID1, ID2 = 0, 1, 2, 3
RESTART_AUTONEGOTIATION, AUTONEGOTIATION_ENABLE, LOOPBACK = 1 << 9, 1 << 12, 1 << 14  # of CONTROL
LINK_UP, AUTONEGOTIATION_COMPLETE = 1 << 2, 1 << 5  # of STATUS; LINK_UP stays 0 until it was read, once it was 0
_MBPS = (10, 100, 1000, 1000)


class Link(NamedTuple):
    """What the link is like.

    Attributes:
        up: whether there is one. Without one, the rest means nothing.
        mbps: megabits per second: 10, 100 or 1000.
        full_duplex: whether both sides may send at a time.
    """

    up: bool
    mbps: int
    full_duplex: bool

    @classmethod
    def of(cls, status: DeviceStatus) -> Link:
        """Return what the device status says (section 10.2.2.2)."""
        return cls(bool(status.lu), _MBPS[status.speed], bool(status.fd))


class Phy:
    """The PHY's registers. Those above 15 are of the page that register 22 selects. `name` is for messages."""

    def __init__(self, registers: E1000eRegisters, name: str) -> None:
        self._mdic, self._name = registers.mdic, name

    def read(self, register: int) -> int:
        """Return a register, 16 bits. PhyError: the PHY does not answer, or has no such register."""
        return self._access(register, MdiOperation.READ, 0)

    def write(self, register: int, value: int) -> None:
        """Write a register, 16 bits. PhyError: the PHY does not answer, or has no such register."""
        self._access(register, MdiOperation.WRITE, value)

    def _access(self, register: int, operation: MdiOperation, data: int) -> int:
        self._mdic.write(MdiControl.value(regadd=register, phyadd=ADDRESS, op=operation, data=data))
        try:
            mdic = self._mdic.poll(lambda mdic: mdic.r, TIMEOUT)
        except DeviceTimeoutError:
            reason = f"no answer in {TIMEOUT:g} s (MDIC.R)"
            raise PhyError(f"{self._name}: the PHY's register {register}: {reason}") from None
        if mdic.e:
            reason = "there is none, or it cannot be accessed so (MDIC.E)"
            raise PhyError(f"{self._name}: the PHY's register {register}: {reason}")
        return mdic.data

    @property
    def identifier(self) -> int:
        """The PHY's identifier, 32 bits: 01410CB1h for that of the 82574L."""
        return self.read(ID1) << 16 | self.read(ID2)

    def restart_autonegotiation(self) -> None:
        """Have both sides agree on the link again, which is down meanwhile, for some seconds on a cable."""
        self.write(CONTROL, self.read(CONTROL) | AUTONEGOTIATION_ENABLE | RESTART_AUTONEGOTIATION)
