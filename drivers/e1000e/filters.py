# SPDX-License-Identifier: MIT
"""Which frames the Intel 82574L receives: addresses, multicast groups, VLANs. Data sheet 317694, section 7.1.1.

``nic.filters.multicast({group})``. After a reset it receives frames to its own address and broadcasts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from pyuio_drivers.e1000e.registers import E1000eRegisters, ReceiveAddressHigh

_MTA_SHIFT = 4  # RCTL.MO of 0: bits 47 to 36 of an address look it up in MTA


class Filters:
    """The filters of one card. They survive `E1000e.reset`."""

    def __init__(self, registers: E1000eRegisters) -> None:
        self._registers = registers
        self._addresses: list[bytes] = []
        self._groups: set[bytes] = set()
        self._vlans: set[int] | None = None
        self._promiscuous = self._all_multicast = False

    def restore(self, mac: bytes) -> None:
        """Write all filters to the card, after a reset, when MTA is clear; `mac` is the card's own address."""
        self._addresses[:1] = [mac]
        self._write_addresses()
        if self._groups:
            self.multicast(self._groups)
        if self._vlans is not None:
            self.vlans(self._vlans)
        self.promiscuous(self._promiscuous, all_multicast=self._all_multicast)

    def promiscuous(self, on: bool, *, all_multicast: bool = False) -> None:
        """Receive frames to any address, or none but those that other filters let pass.

        Args:
            on: whether to receive all frames, but for those of VLANs that `vlans` excludes.
            all_multicast: whether to receive all multicast frames in any case.
        """
        self._promiscuous, self._all_multicast = on, all_multicast
        with self._registers.rctl.change() as rctl:
            rctl.upe = on
            rctl.mpe = on or all_multicast

    def unicast(self, addresses: Iterable[bytes]) -> None:
        """Receive frames to these addresses, too: up to 15, section 10.2.5.22. ValueError: an address is none."""
        new = [_checked(address) for address in addresses]
        limit = len(self._registers.ra) - 1
        if len(new) > limit:
            raise ValueError(f"the card compares with {limit} more addresses, not with {len(new)}; see promiscuous()")
        self._addresses[1:] = new
        self._write_addresses()

    def _write_addresses(self) -> None:
        for entry, address in zip(self._registers.ra, [*self._addresses, *[b""] * 16], strict=False):
            # When writing, RAL comes first; when clearing, RAH, which has the valid bit.
            if address:
                entry.ral.write(int.from_bytes(address[:4], "little"))
                entry.rah.write(ReceiveAddressHigh.value(rah=int.from_bytes(address[4:], "little"), av=True))
            else:
                entry.rah.write(0)
                entry.ral.write(0)

    def multicast(self, groups: Iterable[bytes]) -> None:
        """Receive frames to these multicast addresses, and to no others.

        The card compares 12 bits of them (section 10.2.5.21), so frames to some other groups come as well.
        ValueError: an address is none.
        """
        self._groups = {_checked(group) for group in groups}
        table = [0] * len(self._registers.mta)
        for group in self._groups:
            bits = int.from_bytes(group[4:], "little") >> _MTA_SHIFT
            table[bits >> 5] |= 1 << (bits & 31)
        self._registers.mta.write(struct.pack(f"<{len(table)}I", *table))

    def vlans(self, identifiers: Iterable[int] | None) -> None:
        """Receive tagged frames of these VLANs only (section 7.5); None for all. Frames without a tag always come.

        ValueError: an identifier is not 0 to 4095.
        """
        vlans = None if identifiers is None else set(identifiers)
        table = [0] * len(self._registers.vfta)
        for identifier in vlans or ():
            if not 0 <= identifier < 4096:
                raise ValueError(f"a VLAN is 0 to 4095, not {identifier}")
            table[identifier >> 5] |= 1 << (identifier & 31)
        self._vlans = vlans
        self._registers.vfta.write(struct.pack(f"<{len(table)}I", *table))
        self._registers.rctl.vfe = vlans is not None


def _checked(address: bytes) -> bytes:
    address = bytes(address)
    if len(address) != 6:
        raise ValueError(f"an address has 6 bytes, not {len(address)}")
    return address
