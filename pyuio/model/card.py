# SPDX-License-Identifier: MIT
"""`Card`: a PCI card written in Python, on the register map of its driver.

.. code-block:: python

    class Counter(RegisterMap):
        control = Control(0x00)
        count = Register(0x04, access="ro")

    class CounterCard(Card):
        vendor, device, bars = 0x1234, 0xC0DE, {0: 4096}
        registers = {0: Counter}

        def on_write_control(self, value):
            if self.regs.control.start:
                self.after(1e-3, self.finish)

        def finish(self):
            self.regs.count.write(1)
            self.raise_interrupt()

docs/model.md is the tutorial.
"""

from __future__ import annotations

import logging
import mmap
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn, SupportsIndex

from pyuio.errors import RegisterNotFoundError
from pyuio.model.complaint import Complaint, driver_line
from pyuio.model.declaration import check, checked_bars, like, msix_bar, register_files
from pyuio.model.faults import Faults, TransferError
from pyuio.model.host import Host, MasterAbortError, check_seconds
from pyuio.model.pci_function import BarSpace, Capability, PciFunction
from pyuio.model.register_file import RegisterFile, Slot, changed_by_write
from pyuio.registers import RegisterMap

_log = logging.getLogger("pyuio.model")

_MSIX_BAR = 4096
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python has the name from 3.11 on


class CardMemory:
    """The machine's memory, as a card reaches it: `Card.memory`."""

    def __init__(self, card: Card) -> None:
        self._card = card

    def _host(self, address: SupportsIndex, length: int, doing: str) -> tuple[Host, int]:
        card, address = self._card, operator.index(address)
        if not 0 <= address < 1 << 64:
            raise ValueError(f"{card.name} {doing} {length} bytes at {address:#x}, beyond bus addresses of 64 bits")
        if not card.function.is_master:
            card.complain(f"the card {doing} {length} bytes at {address:#x} while bus mastering is off")
        if length and address + length - 1 > card.dma_mask:
            card.complain(
                f"the card {doing} {length} bytes at {address:#x}, and its addresses end at {card.dma_mask:#x}"
            )
        return card.host, address

    def read(self, address: SupportsIndex, length: SupportsIndex) -> bytes:
        """Return `length` bytes from a bus address.

        Raises:
            Complaint: bus mastering is off; a byte is above `Card.dma_mask`, or not in the driver's memory.
            TransferError: `Card.faults` makes it fail.
            ValueError: the address has more than 64 bits.
        """
        size = operator.index(length)
        host, address = self._host(address, size, "reads")
        try:
            data: bytes = self._card.faults.transfer(size, lambda size: host.read_memory(address, size))
        except MasterAbortError as error:
            self._card.complain(f"the card reads {size} bytes at {address:#x}: {error}")
        return data

    def write(self, address: SupportsIndex, data: bytes | bytearray | memoryview) -> None:
        """Write bytes to a bus address. The errors are those of `read`."""
        octets = bytes(data)
        host, address = self._host(address, len(octets), "writes")
        try:
            self._card.faults.transfer(octets, lambda octets: host.write_memory(address, octets))
        except MasterAbortError as error:
            self._card.complain(f"the card writes {len(octets)} bytes at {address:#x}: {error}")


class Card:
    """A card. A subclass says what it is by the attributes below, and what it does by methods.

    For a register ``control``, ``on_write_control(value)`` is called after the driver wrote it: what the register's
    `access` says was done, and `value` is what the driver wrote. ``on_read_control()`` is called before the driver
    reads it, and may return what it reads; if it returns None, that is the register's value. The hooks of
    ``channel[2].count`` are ``on_write_channel_count(index, value)`` and ``on_read_channel_count(index)``; those of a
    `Memory` get the number of the word likewise.

    All methods are called by one thread at a time. A method may raise `Complaint` by `complain`.

    Attributes:
        vendor, device: its ids, 16 bits each.
        subsystem: subsystem vendor and subsystem id; None for `vendor` and `device`.
        revision: 8 bits.
        class_code: 24 bits, base class first; 0xFF0000 is "unassigned".
        bars: what stands behind each BAR, by index: a size in bytes, a power of two, or a `BarSpace`. A BAR without
            registers is memory.
        registers: the register maps behind BARs, by index; the driver's own. Their names differ from one another.
        reset_values: values of registers after a reset, by name; the others are 0.
        narrow: names of registers that take accesses narrower than themselves, which reach only those bytes.
        interrupt_pin: 1 to 4 for INTA to INTD; 0 for no INTx.
        msi_vectors: how many MSI vectors, a power of two up to 32; 0 for none.
        msix_vectors: how many MSI-X vectors, up to 128; 0 for none. Their table gets a BAR of its own.
        capabilities: further capabilities of the configuration space.
        dma_mask: the highest bus address that the card has, 2^n - 1.
        regs: the registers by name, for the card: it may change what the driver may not, and no access has an effect.
        memory: the machine's memory, by bus address.
        faults: what goes wrong with the card; nothing at first.
        complaints: those that the card has made.
        raised: the interrupt vectors that are raised, and not lowered yet.
        function: the PCI side of the card.

    Raises:
        TypeError, ValueError: the attributes of the class do not make a card. Most are checked when the class is made.
    """

    vendor: ClassVar[int] = 0
    device: ClassVar[int] = 0
    subsystem: ClassVar[tuple[int, int] | None] = None
    revision: ClassVar[int] = 0
    class_code: ClassVar[int] = 0xFF0000
    bars: ClassVar[Mapping[int, int | BarSpace]] = {}
    registers: ClassVar[Mapping[int, type[RegisterMap]]] = {}
    reset_values: ClassVar[Mapping[str, int]] = {}
    narrow: ClassVar[Collection[str]] = ()
    interrupt_pin: ClassVar[int] = 1
    msi_vectors: ClassVar[int] = 0
    msix_vectors: ClassVar[int] = 0
    capabilities: ClassVar[Sequence[Capability]] = ()
    dma_mask: ClassVar[int] = (1 << 64) - 1

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Check the attributes. TypeError, ValueError: they do not make a card."""
        super().__init_subclass__(**keywords)
        check(cls, [*Card.__annotations__])

    def __init__(self) -> None:
        cls = type(self)
        self.name = cls.__name__
        spaces = checked_bars(cls)
        self._files = register_files(cls, spaces)
        for file in self._files.values():
            for slot in file.slots:
                slot.narrow = slot.hook in cls.narrow or slot.name in cls.narrow
                slot.on_read = getattr(self, f"on_read_{slot.hook}", None)
                slot.on_write = getattr(self, f"on_write_{slot.hook}", None)
        self._slots = {slot.name: (slot, file) for file in self._files.values() for slot in file.slots}
        self.regs: Any = _Names([file.view for file in self._files.values()])
        self._memories = {index: _zeros(bar.size) for index, bar in spaces.items() if index not in self._files}
        self.memory = CardMemory(self)
        self.complaints: list[Complaint] = []
        self.raised: set[int] = set()
        self._removed = False
        self._life = 0  # counts resets: what was planned before one does not happen
        subvendor, subsystem = cls.subsystem or (cls.vendor, cls.device)
        table_bar = msix_bar(cls, spaces) if cls.msix_vectors else 0
        if cls.msix_vectors:
            spaces[table_bar] = BarSpace(_MSIX_BAR)
        self.function = PciFunction(
            ids=(cls.vendor, cls.device, subvendor, subsystem),
            class_code=cls.class_code,
            revision=cls.revision,
            bars=spaces,
            pin=cls.interrupt_pin,
            msi=cls.msi_vectors,
            msix=cls.msix_vectors,
            msix_bar=table_bar,
            capabilities=cls.capabilities,
            read=self.read_bar,
            write=self.write_bar,
        )
        self.faults = Faults(self)
        self.reset()
        if not self._life:
            raise TypeError(f"{self.name}.reset() does not call super().reset(), so it resets no register")

    # ---- For the card's own methods ----

    @property
    def host(self) -> Host:
        """The machine that it is plugged into. RuntimeError: none."""
        if self.function.host is None:
            raise RuntimeError(f"{self.name} is not plugged in; pyuio.model.open() does that")
        return self.function.host

    def now(self) -> float:
        """Return the time in seconds: virtual in process, the clock's in a guest."""
        return self.host.now()

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Call `call` in `seconds`, unless the card is reset or removed meanwhile.

        ValueError: the seconds are negative, or beyond `pyuio.model.host.LONGEST`. TypeError: `call` cannot be called.
        """
        check_seconds(seconds, f"{self.name}: after()")
        if not callable(call):
            raise TypeError(f"{self.name}: after() takes a method, as in after(1e-3, self.done), not {call!r}")
        life = self._life

        def go() -> None:
            if life == self._life and not self._removed:
                self._do(call)

        self.host.after(seconds, go)

    def _do(self, call: Callable[..., object], *arguments: object) -> object:
        """Call a method of the card. A transfer that was made to fail ends it, and nobody is told."""
        try:
            return call(*arguments)
        except TransferError as error:
            _log.debug("%s: %s", self.name, error)
            return None

    def raise_interrupt(self, vector: SupportsIndex = 0) -> None:
        """Send the message of a vector, if messages are enabled; else assert the INTx line until `lower_interrupt`.

        ValueError: the card has no such vector, or no interrupts at all.
        """
        number = self._checked_vector(vector)
        self.raised.add(number)
        self.faults.interrupt(number)

    def lower_interrupt(self, vector: SupportsIndex = 0) -> None:
        """Deassert the INTx line, unless another vector still holds it. A message cannot be taken back."""
        number = self._checked_vector(vector)
        self.raised.discard(number)
        self.function.lower_interrupt(number)

    def _checked_vector(self, vector: SupportsIndex) -> int:
        number, count = operator.index(vector), max(self.msix_vectors, self.msi_vectors, self.interrupt_pin and 1)
        if not count:
            raise ValueError(f"{self.name} has no interrupts: interrupt_pin, msi_vectors and msix_vectors are 0")
        if not 0 <= number < count:
            raise ValueError(f"{self.name} has interrupt vectors 0 to {count - 1}, not {number}")
        return number

    def complain(self, text: str) -> NoReturn:
        """Raise `Complaint`: the driver did wrong. The driver's line that led here is added.

        If a fault has misled the driver (`Faults.misleading`), this raises `TransferError` instead, which ends the
        method of the card without anybody being told.
        """
        if self.faults.misleading:
            raise TransferError(f"{self.name}: {text}")
        line = driver_line()
        complaint = Complaint(f"{self.name}: {text}" + (f"\n  at {line}" if line else ""))
        self.complaints.append(complaint)
        raise complaint

    def reset(self) -> None:
        """Return to the state after power-on. A subclass extends it: ``super().reset()`` first."""
        self._life += 1
        self.raised.clear()
        self.function.reset()
        for file in self._files.values():
            file.reset()
        for index, memory in self._memories.items():
            self._memories[index] = _zeros(len(memory))
        for name, value in self.reset_values.items():
            slot, file = self._slots[name]
            file.store(slot.place, slot.word, operator.index(value))

    def remove(self) -> None:
        """Pull the card out: it reads as all ones from now on, and its driver is told. It cannot be undone."""
        if not self._removed:
            self._removed = True
            self._life += 1
            if self.function.host is not None:
                self.function.host.remove()

    @property
    def removed(self) -> bool:
        """Whether it was pulled out."""
        return self._removed

    def slot(self, register: str) -> Slot:
        """Return the place of a register by its name in the map. RegisterNotFoundError: there is none."""
        if register not in self._slots:
            raise RegisterNotFoundError(f"{self.name} has no register {register}{like(register, self._slots)}")
        return self._slots[register][0]

    def slot_at(self, bar: int, offset: int, *, writing: bool) -> Slot | None:
        """Return the place of the register that the driver reaches at an offset behind a BAR; None for memory."""
        file = self._files.get(bar)
        return None if file is None else file.find(offset, writing=writing)

    # ---- Accesses of the driver ----

    def read_bar(self, index: int, offset: int, width: int) -> int:
        """Return what the driver reads, by an access of `width` bytes, at `offset` behind a BAR."""
        faults = self.faults
        faults.accesses += 1
        if faults.planned:
            faults.before_access()
        if self._removed:
            return (1 << 8 * width) - 1
        file = self._files.get(index)
        if file is None:
            return int.from_bytes(self._memories[index][offset : offset + width], "little")
        slot = file.reads.get(offset)
        if slot is None or slot.word != width or slot.access_size != width:
            part: Any = self._do(self._read_part, file, index, offset, width)
            return part or 0
        value = None
        if slot.on_read is not None:
            value = self._hooked(slot, slot.indices, width)
        if self._removed:  # by the hook
            return (1 << 8 * width) - 1
        if value is None:
            value = file.loads[width](slot.place)
        if slot.reads_change:
            file.store(slot.place, width, slot.after_read(value))
        return faults.altered(slot.name, value, width) if faults.reads_altered else value

    def _hooked(self, slot: Slot, indices: tuple[int, ...], width: int) -> int | None:
        assert slot.on_read is not None
        value: Any = self._do(slot.on_read, *indices)
        if value is None:
            return None
        try:
            number = operator.index(value)
        except TypeError:
            raise TypeError(f"{self.name}.on_read_{slot.hook} returned {value!r}, which is no number") from None
        if not 0 <= number < 1 << 8 * width:
            raise ValueError(
                f"{self.name}.on_read_{slot.hook} returned {number:#x}, which does not fit {8 * width} bits"
            )
        return number

    def _read_part(self, file: RegisterFile, index: int, offset: int, width: int) -> int:
        """Read a word of a memory, one of several parts of a register, or some bytes of one."""
        slot, word, inside = self._part(file, index, offset, width, "read")
        place, indices = slot.place + word * slot.word, (*slot.indices, *((word,) if slot.is_memory else ()))
        alone = slot.narrow and width < slot.access_size  # no part of a wider access
        if slot.on_read is not None and (alone or inside == slot.first_part):
            slot.shown = word, self._hooked(slot, indices, slot.word)
            if self._removed:  # by the hook
                return (1 << 8 * width) - 1
        shown, value = slot.shown
        whole = file.load(place, slot.word) if value is None or shown != word else value
        if slot.reads_change and (alone or inside == slot.last_part):
            file.store(place, slot.word, slot.after_read(whole))
        whole = self.faults.altered(slot.name, whole, slot.word) if self.faults.reads_altered else whole
        return whole >> 8 * inside & (1 << 8 * width) - 1

    def write_bar(self, index: int, offset: int, width: int, value: int) -> None:
        """Take what the driver writes, by an access of `width` bytes, at `offset` behind a BAR."""
        faults = self.faults
        faults.accesses += 1
        if faults.planned:
            faults.before_access()
        if self._removed:
            return
        file = self._files.get(index)
        if file is None:
            self._memories[index][offset : offset + width] = value.to_bytes(width, "little")
            return
        slot = file.writes.get(offset)
        if slot is None or slot.word != width or slot.access_size != width:
            self._do(self._write_part, file, index, offset, width, value)
            return
        if slot.plain:
            file.stores[width](slot.place, value)
        else:
            file.store(slot.place, width, changed_by_write(slot, file.load(slot.place, width), value))
            slot.written = True
        if slot.on_write is not None:
            self._do(slot.on_write, *slot.indices, value)

    def _write_part(self, file: RegisterFile, index: int, offset: int, width: int, value: int) -> None:
        slot, word, inside = self._part(file, index, offset, width, "write")
        place, indices = slot.place + word * slot.word, (*slot.indices, *((word,) if slot.is_memory else ()))
        shift, mask = 8 * inside, (1 << 8 * width) - 1
        old = file.load(place, slot.word)
        file.store(place, slot.word, changed_by_write(slot, old, value << shift, mask << shift))
        whole = slot.gathered & ~(mask << shift) | value << shift
        slot.gathered = whole
        if (slot.narrow and width < slot.access_size) or inside == slot.last_part:
            slot.written, slot.gathered = True, 0
            if slot.on_write is not None:
                self._do(slot.on_write, *indices, whole)

    def _part(self, file: RegisterFile, index: int, offset: int, width: int, verb: str) -> tuple[Slot, int, int]:
        """Return the register of an access, the number of the word in it, and the bits of the word that it reaches.

        These are in bytes from the least significant.
        """
        slot = file.find(offset, writing=verb == "write")
        access = f"{'an' if width == 1 else 'a'} {8 * width}-bit {verb} at offset {offset:#x} of BAR {index}"
        if slot is None:
            self.complain(f"{access}: the card has no register there")
        if not (slot.writable if verb == "write" else slot.readable):
            self.complain(f"{access}: {slot.name} is {'read' if verb == 'write' else 'write'}-only")
        word, inside = slot.within(offset)
        narrower = slot.narrow and width < slot.access_size and inside % width == 0
        if not narrower and (width != slot.access_size or inside % slot.access_size):
            where = f" at {slot.offset:#x}" if offset != slot.offset else ""
            self.complain(f"{access}: {slot.name}{where} takes accesses of {8 * slot.access_size} bits")
        return slot, word, inside

    def __repr__(self) -> str:
        state = " removed" if self._removed else "" if self.function.host else " not plugged in"
        return f"<{self.name} {self.vendor:04x}:{self.device:04x}{state}>"


def _zeros(size: int) -> mmap.mmap:
    """Return memory for a BAR: the kernel gives each page when it is used, so that a large BAR costs nothing."""
    try:
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    except (OSError, OverflowError) as error:
        raise ValueError(f"a BAR of {size:#x} bytes of memory is more than this process can have: {error}") from error


class _Names:
    """The registers of all BARs by name."""

    def __init__(self, views: Iterable[RegisterMap]) -> None:
        for view in views:
            for name in type(view)._declared:
                self.__dict__[name] = getattr(view, name)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        if name in vars(self):
            raise AttributeError(f"{name} is no value: write regs.{name}.write({value!r}), or set a field")
        raise AttributeError(f"the card has no register {name}{like(name, vars(self))}")

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"the card has no register {name}{like(name, vars(self))}")
