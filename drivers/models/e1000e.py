# SPDX-License-Identifier: MIT
"""An Intel 82574L in Python, for `pyuio_drivers.e1000e`; `connect` puts a cable between two.

It follows the data sheet 317694; "section" is one of its sections.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from pyuio_drivers.e1000e import descriptors, eeprom, phy
from pyuio_drivers.e1000e.offload import internet_checksum
from pyuio_drivers.e1000e.registers import (
    DeviceControl,
    E1000eRegisters,
    EepromRead,
    InterruptCauses,
    MdiControl,
    MdiOperation,
    Speed,
)

from pyuio.model import BarSpace, Card, TransferError

_FIFO = 20 << 10  # bytes for frames that wait for a descriptor
_RESET_TIME, _EEPROM_TIME, _MDI_TIME, _FETCH_TIME = 20e-6, 1e-6, 50e-6, 2e-6  # seconds
_AUTONEGOTIATION_TIME = 2.0
_SHORTEST, _LONGEST, _CRC = 60, 1518, 4  # bytes of a frame without its CRC, which has 4
_BUFFER = 2048  # bytes, RCTL.BSIZE of 0
_THROTTLE_UNIT = 256e-9  # seconds, of ITR and EITR
_OTHER_CAUSES = InterruptCauses.mask("lsc", "rxo", "rxdmt0", "mdac")
_LINE = -1  # the interrupt line, among the vectors
# What CTRL.RST clears, as far as the driver uses it: section 10.2.2.1.
_CLEARED = (
    *("ctrl_ext", "icr", "ims", "itr", "eiac", "iam", "ivar", "rctl", "tctl", "rfctl", "rxcsum"),
    *("rdbal", "rdbah", "rdlen", "rdh", "rdt", "tdbal", "tdbah", "tdlen", "tdh", "tdt"),
)


class _Context(NamedTuple):
    """A context descriptor, section 7.2.10.2: where sums begin, where they go, and where they end."""

    ip: tuple[int, int, int]
    transport: tuple[int, int, int]

    @classmethod
    def parse(cls, word: int) -> _Context:
        fields = struct.unpack("<BBHBBH", word.to_bytes(8, "little"))
        return cls(fields[:3], fields[3:])


class E1000eCard(Card):
    """The card.

    Attributes:
        eeprom: its 64 words of 16 bits, with the right checksum. They outlive a reset.
        sent: the frames that it has sent, without their CRC.
        peer: the card at the other end of the cable; None for none.
        paused: whether it fetches no frames, as if the other side's flow control had stopped it for ever.
    """

    vendor, device, class_code = 0x8086, 0x10D3, 0x020000
    bars: ClassVar = {0: 1 << 17, 1: 1 << 17, 2: BarSpace(32, ports=True)}
    registers: ClassVar = {0: E1000eRegisters}
    msix_vectors = 5
    mac: ClassVar[bytes] = bytes.fromhex("020000000001")

    def __init__(self, mac: bytes | None = None) -> None:
        words = [*struct.unpack("<3H", self.mac if mac is None else mac), *range(eeprom.WORDS - 4)]
        self.eeprom = [*words, (eeprom.CHECKSUM - sum(words)) & 0xFFFF]
        self.sent: list[bytes] = []
        self.peer: E1000eCard | None = None
        self.paused = False
        self._session = 0  # counts resets of the card by its driver
        super().__init__()

    def reset(self) -> None:
        """Lose power. The EEPROM stays, and the cable."""
        super().reset()
        self._phy: dict[int, int] = {phy.CONTROL: 0x1140, phy.STATUS: 0x796D, phy.ID1: 0x0141, phy.ID2: 0x0CB1}
        self._reset_by_driver()

    def _reset_by_driver(self) -> None:
        """Do what CTRL.RST does, section 10.2.2.1."""
        self._session += 1
        for name in _CLEARED:
            getattr(self.regs, name).write(0)
        self.regs.ctrl.write(0)
        self.regs.ra[0].ral.write(self.eeprom[0] | self.eeprom[1] << 16)
        self.regs.ra[0].rah.write(self.eeprom[2] | 1 << 31)
        self._fifo: deque[bytes] = deque()
        self._stopped = False  # after a transfer that failed it makes none until it is reset
        self._context = _Context((0, 0, 0), (0, 0, 0))
        self._pieces: list[bytes] = []
        self._command = 0  # of the first data descriptor of the frame
        self._quiet_until: dict[int, float] = {}
        self._held_back: set[int] = set()
        self._update_status()
        self._update_line()

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        """Call later, unless the card is reset meanwhile."""
        session = self._session
        self.after(seconds, lambda: call() if session == self._session else None)

    # ---- Control ----

    def on_write_ctrl(self, value: int) -> None:
        """Reset the card, stop its transfers, or let it see the link."""
        if DeviceControl.of(value).rst:
            self._reset_by_driver()
            self.regs.ctrl.rst = True
            self._later(_RESET_TIME, lambda: setattr(self.regs.ctrl, "rst", False))
        self._update_status()

    def _update_status(self) -> None:
        """Let STATUS say what the link and CTRL say, section 10.2.2.2."""
        up = self._phy[phy.STATUS] & phy.LINK_UP != 0
        changed = up != self.regs.status.lu
        self.regs.status.lu = up
        self.regs.status.fd, self.regs.status.speed = True, Speed.MBPS_1000
        self.regs.status.gio_master_enable = not self.regs.ctrl.gio_master_disable
        if changed:
            self._raise(InterruptCauses.value(lsc=True))

    def set_link(self, up: bool) -> None:
        """Pull the cable out, or put it in again."""
        bits = phy.LINK_UP | phy.AUTONEGOTIATION_COMPLETE
        self._phy[phy.STATUS] = self._phy[phy.STATUS] & ~bits | bits * up
        self._update_status()
        if up:
            self._begin_to_send()

    def on_write_eerd(self, value: int) -> None:
        """Read a word of the EEPROM, section 10.2.2.4."""
        request = EepromRead.of(value)
        self.regs.eerd.write(request.addr << 2)
        if request.start and request.addr < len(self.eeprom):
            word = request.addr << 2 | EepromRead.mask("done")
            self._later(_EEPROM_TIME, lambda: self.regs.eerd.write(word | self.eeprom[request.addr] << 16))

    def on_write_mdic(self, value: int) -> None:
        """Access a register of the PHY, section 10.2.2.7."""
        request = MdiControl.of(value)
        self.regs.mdic.r = False
        self._later(_MDI_TIME, lambda: self._access_phy(request))

    def _access_phy(self, request: MdiControl) -> None:
        known = request.phyadd == phy.ADDRESS and request.regadd in self._phy
        data = request.data
        if known and request.op == MdiOperation.READ:
            data = self._phy[request.regadd]
        elif known and request.op == MdiOperation.WRITE and request.regadd == phy.CONTROL:
            self._phy[phy.CONTROL] = data & ~phy.RESTART_AUTONEGOTIATION
            if data & phy.RESTART_AUTONEGOTIATION:
                self.set_link(False)
                self.after(_AUTONEGOTIATION_TIME, lambda: self.set_link(True))
        self.regs.mdic.write(MdiControl.of(request, data=data, r=True, e=not known))

    # ---- Interrupts ----

    def on_read_icr(self) -> int:
        """Return the causes; clear them if an interrupt is asserted, or all are masked: section 10.2.4.1."""
        causes: int = self.regs.icr.read()
        asserted = bool(causes & self.regs.ims.read())
        if asserted or not self.regs.ims.read():
            self.regs.icr.write(0)
            self._update_line()
        return causes | InterruptCauses.value(int_asserted=asserted)

    def on_write_icr(self, value: int) -> None:
        """Clear causes."""
        self.regs.icr.write(self.regs.icr.read() & ~value)
        self._update_line()

    def on_write_ics(self, value: int) -> None:
        """Raise causes, section 10.2.4.4."""
        self._raise(value)

    def on_write_ims(self, value: int) -> None:
        """Unmask causes."""
        self._interrupt()

    def on_write_imc(self, value: int) -> None:
        """Mask causes, section 10.2.4.6."""
        self.regs.ims.write(self.regs.ims.read() & ~value)
        self._update_line()

    def _raise(self, causes: int) -> None:
        if causes & _OTHER_CAUSES and self.function.messages:
            causes |= InterruptCauses.value(other=True)
        self.regs.icr.write(self.regs.icr.read() | causes)
        self._interrupt()

    def _interrupt(self) -> None:
        """Send messages for the causes that are not masked, or assert the line: section 7.4."""
        active = self.regs.icr.read() & self.regs.ims.read()
        if not self.function.messages:
            if active and not self._is_throttled(_LINE, self.regs.itr.interval):
                self._update_line()
            return
        ivar = self.regs.ivar.snapshot()
        for name, vector, valid in (
            ("rxq0", ivar.rxq0, ivar.rxq0_valid),
            ("txq0", ivar.txq0, ivar.txq0_valid),
            ("other", ivar.other, ivar.other_valid),
        ):
            cause = InterruptCauses.mask(name)
            if active & cause and valid and not self._is_throttled(vector, self.regs.eitr[vector].interval):
                self._clear_automatically(cause)
                self.raise_interrupt(vector)

    def _clear_automatically(self, cause: int) -> None:
        """Clear a cause whose message is sent (EIAC), and mask it (IAM): sections 10.2.4.7 and 10.2.4.8."""
        self.regs.icr.write(self.regs.icr.read() & ~(cause & self.regs.eiac.read()))
        if self.regs.ctrl_ext.eiame:
            self.regs.ims.write(self.regs.ims.read() & ~(cause & self.regs.iam.read()))

    def _is_throttled(self, vector: int, interval: int) -> bool:
        """Return whether a vector must wait, section 7.4.4; then it interrupts when the time is over."""
        wait = self._quiet_until.get(vector, 0.0) - self.now()
        if wait > 0:
            if vector not in self._held_back:
                self._held_back.add(vector)
                self._later(wait, lambda: self._release(vector))
            return True
        self._quiet_until[vector] = self.now() + interval * _THROTTLE_UNIT
        return False

    def _release(self, vector: int) -> None:
        self._held_back.discard(vector)
        self._quiet_until.pop(vector, None)
        self._interrupt()

    def _update_line(self) -> None:
        active = bool(self.regs.icr.read() & self.regs.ims.read())
        if active and not self.raised and not self.function.messages:
            self.raise_interrupt()
        elif not active and self.raised:
            for vector in list(self.raised):
                self.lower_interrupt(vector)

    # ---- Sending ----

    def on_write_tdt(self, value: int) -> None:
        """Take new descriptors, section 7.2.4."""
        entries = self._entries(self.regs.tdlen.read(), "TDLEN")
        if entries and value >= entries:
            self.complain(f"TDT is {value}, and the ring has {entries} descriptors")
        self._begin_to_send()

    def on_write_tctl(self, value: int) -> None:
        """Begin to send, if there are frames."""
        self._begin_to_send()

    def _entries(self, size: int, name: str) -> int:
        if size % 128:
            self.complain(f"{name} is {size}, which is no multiple of 128")
        return size // descriptors.SIZE

    def _begin_to_send(self) -> None:
        self._later(_FETCH_TIME, self._send)

    def _send(self) -> None:
        """Fetch descriptors, and send the frames that they describe."""
        regs = self.regs
        entries = regs.tdlen.read() // descriptors.SIZE
        base = regs.tdbal.read() | regs.tdbah.read() << 32
        causes = 0
        while self._may_send() and entries and regs.tdh.read() != regs.tdt.read():
            place = base + regs.tdh.read() * descriptors.SIZE
            try:
                address, command = struct.unpack("<QQ", self.memory.read(place, descriptors.SIZE))
                self._fetch(address, command)
                if command & descriptors.RS:
                    done = command | descriptors.TRANSMIT_DONE
                    self.memory.write(place + 8, done.to_bytes(8, "little"))
                    causes |= InterruptCauses.value(txdw=True, txq0=True)
            except TransferError:
                self._stopped = True
                return
            regs.tdh.write((regs.tdh.read() + 1) % entries)
        if causes:
            self._raise(causes)

    def _may_send(self) -> bool:
        ready = self.regs.tctl.en and self.regs.status.lu and self.regs.ctrl.slu
        return bool(ready and not self.paused and not self._stopped)

    def _fetch(self, address: int, command: int) -> None:
        """Do what one descriptor says, section 7.2.10."""
        extended = bool(command & descriptors.DEXT)
        if extended and not command & descriptors.DATA:
            self._context = _Context.parse(address)
            return
        if not self._pieces:
            self._command = command if extended else 0
        length = command & (0xFFFFF if extended else 0xFFFF)
        self._pieces.append(self.memory.read(address, length))
        if command & descriptors.EOP:
            frame = bytearray(b"".join(self._pieces))
            self._pieces.clear()
            frame = self._with_checksums(frame)
            if command & descriptors.VLE and self.regs.ctrl.vme:
                frame[12:12] = struct.pack(">HH", self.regs.vet.read(), command >> descriptors.VLAN_SHIFT)
            self._transmit(bytes(frame))

    def _with_checksums(self, frame: bytearray) -> bytearray:
        """Insert the checksums that the frame's first descriptor asked for, section 7.2.10.3."""
        for asked, part in (
            (descriptors.IXSM, self._context.ip),
            (descriptors.TXSM, self._context.transport),
        ):
            if self._command & asked:
                start, place, end = part
                data = frame[start : end + 1 if end else len(frame)]
                frame[place : place + 2] = internet_checksum(data).to_bytes(2, "big")
        return frame

    def _transmit(self, frame: bytes) -> None:
        if len(frame) < 17:
            self.complain(f"a frame of {len(frame)} bytes, and the card pads no frame below 17 (section 10.2.6.1)")
        frame = frame.ljust(_SHORTEST, b"\0") if self.regs.tctl.psp else frame
        self.sent.append(frame)
        self._count("gptc", "tpt")
        self._add_octets("got", len(frame) + _CRC)
        if self.peer:
            self.peer.arrive(frame)

    def _count(self, *names: str) -> None:
        for name in names:
            register = getattr(self.regs.statistics, name)
            register.write(min(register.read() + 1, 0xFFFF_FFFF))

    def _add_octets(self, name: str, octets: int) -> None:
        low, high = (getattr(self.regs.statistics, name + part) for part in ("cl", "ch"))
        total = (low.read() | high.read() << 32) + octets
        low.write(total & 0xFFFF_FFFF)
        high.write(total >> 32)

    # ---- Receiving ----

    def arrive(self, frame: bytes) -> None:
        """Let a frame come over the cable, without its CRC."""
        if not (self.regs.rctl.en and self.regs.status.lu):
            return
        self._count("tpr")
        if len(frame) > _LONGEST and not self.regs.rctl.lpe:
            self._count("roc")
        elif self._passes(frame):
            if sum(map(len, self._fifo)) + len(frame) > _FIFO:
                self._count("mpc")
                self._raise(InterruptCauses.value(rxo=True))
            else:
                if self.regs.rdh.read() == self.regs.rdt.read():
                    self._count("rnbc")
                self._fifo.append(frame)
                self._receive()

    def _passes(self, frame: bytes) -> bool:
        """Return whether a frame passes the filters, section 7.1.1."""
        rctl, destination = self.regs.rctl.snapshot(), frame[:6]
        if rctl.vfe and int.from_bytes(frame[12:14], "big") == self.regs.vet.read():
            vlan = int.from_bytes(frame[14:16], "big") & 0xFFF
            if not self.regs.vfta[vlan >> 5].read() >> (vlan & 31) & 1:
                return False
        if destination == b"\xff" * 6:
            return bool(rctl.bam or rctl.mpe)
        multicast = destination[0] & 1
        if rctl.mpe if multicast else rctl.upe:
            return True
        low, high = int.from_bytes(destination[:4], "little"), int.from_bytes(destination[4:], "little")
        if any(one.rah.av and (one.ral.read(), one.rah.rah) == (low, high) for one in self.regs.ra):
            return True
        bits = high >> (4, 3, 2, 0)[rctl.mo] & 0xFFF
        return bool(multicast and self.regs.mta[bits >> 5].read() >> (bits & 31) & 1)

    def on_write_rdt(self, value: int) -> None:
        """Take new descriptors, section 7.1.8."""
        entries = self._entries(self.regs.rdlen.read(), "RDLEN")
        if entries and value >= entries:
            self.complain(f"RDT is {value}, and the ring has {entries} descriptors")
        self._later(_FETCH_TIME, self._receive)

    def _receive(self) -> None:
        """Write the frames that have come to memory, as far as there are descriptors."""
        if not (self.regs.rctl.en and self.regs.rfctl.exsten) or self._stopped:
            return
        entries = self.regs.rdlen.read() // descriptors.SIZE
        received = False
        while self._fifo and entries:
            free = (self.regs.rdt.read() - self.regs.rdh.read()) % entries
            if free * _BUFFER < len(self._fifo[0]):
                break
            try:
                self._store(self._fifo.popleft(), entries)
            except TransferError:
                self._stopped = True
                return
            received = True
        if received:
            self._raise(InterruptCauses.value(rxt0=True, rxq0=True))

    def _store(self, frame: bytes, entries: int) -> None:
        self._count("gprc")
        self._add_octets("gor", len(frame) + _CRC)
        if frame[0] & 1:
            self._count("bprc" if frame[:6] == b"\xff" * 6 else "mprc")
        status, tag = self._checked(frame), 0
        if self.regs.ctrl.vme and int.from_bytes(frame[12:14], "big") == self.regs.vet.read():
            status |= descriptors.TAG_STRIPPED
            tag = int.from_bytes(frame[14:16], "big")
            frame = frame[:12] + frame[16:]
        if not self.regs.rctl.secrc:
            frame += bytes(_CRC)
        base = self.regs.rdbal.read() | self.regs.rdbah.read() << 32
        for start in range(0, len(frame), _BUFFER):
            piece, last = frame[start : start + _BUFFER], start + _BUFFER >= len(frame)
            head = self.regs.rdh.read()
            place = base + head * descriptors.SIZE
            address, _ = struct.unpack("<QQ", self.memory.read(place, descriptors.SIZE))
            self.memory.write(address, piece)
            word = descriptors.DONE | (status | descriptors.EOP_RECEIVED if last else 0)
            word |= len(piece) << descriptors.LENGTH_SHIFT | (tag << descriptors.VLAN_SHIFT if last else 0)
            self.memory.write(place, struct.pack("<QQ", 0, word))
            self.regs.rdh.write((head + 1) % entries)

    def _checked(self, frame: bytes) -> int:
        """Return the status bits that say what was checked, and what is wrong: section 7.1.11."""
        rxcsum = self.regs.rxcsum.snapshot()
        at = 18 if int.from_bytes(frame[12:14], "big") == self.regs.vet.read() else 14
        if frame[at - 2 : at] != b"\x08\x00" or len(frame) < at + 20 or frame[at] >> 4 != 4:
            return 0
        size, status = 4 * (frame[at] & 15), 0
        if rxcsum.ipofld:
            status |= descriptors.IP_CHECKED
            status |= descriptors.IP_ERROR if internet_checksum(frame[at : at + size]) else 0
        protocol, total = frame[at + 9], int.from_bytes(frame[at + 2 : at + 4], "big")
        fragment = int.from_bytes(frame[at + 6 : at + 8], "big") & 0x3FFF  # MF and the offset: RFC 791
        segment = frame[at + size : at + total]
        without = protocol == 17 and segment[6:8] == b"\0\0"  # a UDP checksum of 0 is none: RFC 768
        if rxcsum.tuofld and protocol in (6, 17) and not fragment and not without:
            pseudo = frame[at + 12 : at + 20] + struct.pack(">BBH", 0, protocol, len(segment))
            status |= descriptors.TRANSPORT_CHECKED
            status |= descriptors.TRANSPORT_ERROR if internet_checksum(pseudo + segment) else 0
        return status


def connect(one: E1000eCard, other: E1000eCard) -> None:
    """Put a cable between two cards."""
    one.peer, other.peer = other, one
