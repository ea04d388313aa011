# SPDX-License-Identifier: MIT
"""What makes no card, or asks a card for what it does not have, is a clear error, as early as it can be known."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import pytest

import pyuio.model
from pyuio import Array, Driver, Field, Memory, Register, RegisterMap
from pyuio.model import BarSpace, Capability, Card


class Channel(RegisterMap):
    control = Register(0x0)
    count = Register(0x4, access="ro")


class Registers(RegisterMap):
    control = Register(0x00)
    status = Register(0x04, access="ro")
    command = Register(0x08, access="wo")
    small = Register(0x0C, width=8)
    channel = Array(Channel.at(0x40), 4, stride=0x10)
    table = Memory(Register(0x100), 16)


class Other(RegisterMap):
    control = Register(0x00)


class Good(Card):
    """What the tests make wrong."""

    vendor, device = 0x1234, 0xC0DE
    bars: ClassVar = {0: 4096}
    registers: ClassVar = {0: Registers}


def hook(*names: str) -> Any:
    """Return a method that takes arguments of these names besides self."""
    made: dict[str, Any] = {}
    exec(f"def hook({', '.join(['self', *names])}): pass", made)
    return made["hook"]


def made(**attributes: Any) -> type[Good]:
    return type("Bad", (Good,), attributes)


@pytest.mark.parametrize(
    ("attributes", "error", "message"),
    [
        # Ids and the like.
        ({"vendor": 0x12345}, ValueError, "Bad.vendor is a number of 16 bits, not 74565"),
        ({"device": "c0de"}, ValueError, "Bad.device is a number of 16 bits, not 'c0de'"),
        ({"revision": -1}, ValueError, "Bad.revision is a number of 8 bits, not -1"),
        ({"class_code": 1 << 24}, ValueError, "Bad.class_code is a number of 24 bits, not 16777216"),
        (
            {"subsystem": (1, 1 << 16)},
            ValueError,
            "Bad.subsystem is a pair of numbers of 16 bits, or None, not (1, ",
        ),
        ({"subsystem": 5}, ValueError, "Bad.subsystem is a pair of numbers of 16 bits, or None, not 5"),
        ({"dma_mask": 1 << 32}, ValueError, "Bad.dma_mask is 2^n - 1, not 0x100000000"),
        ({"dma_mask": 1 << 64}, ValueError, "Bad.dma_mask is a number of 64 bits"),
        # Interrupts.
        ({"interrupt_pin": 5}, ValueError, "Bad.interrupt_pin is 0 to 4, not 5"),
        ({"interrupt_pin": "A"}, ValueError, "Bad.interrupt_pin is 0 to 4, not 'A'"),
        ({"msi_vectors": 3}, ValueError, "Bad.msi_vectors is 0, or a power of two up to 32, not 3"),
        ({"msix_vectors": 129}, ValueError, "Bad.msix_vectors is 0 to 128, not 129"),
        ({"msix_vectors": None}, ValueError, "Bad.msix_vectors is 0 to 128, not None"),
        (
            {"msix_vectors": 1, "bars": dict.fromkeys(range(6), 4096)},
            ValueError,
            "Bad.msix_vectors: the table of MSI-X needs a BAR, and all six are taken",
        ),
        # BARs.
        ({"bars": {0: 4097}}, ValueError, "Bad.bars[0]: the size of a BAR is a power of two from 16 on, not 0x1001"),
        ({"bars": {0: 8}}, ValueError, "Bad.bars[0]: the size of a BAR is a power of two from 16 on, not 0x8"),
        ({"bars": {0: 0}}, ValueError, "Bad.bars[0]: the size of a BAR is a power of two from 16 on, not 0x0"),
        ({"bars": {0: -4096}}, ValueError, "Bad.bars[0]: the size of a BAR is a power of two from 16 on, not -0x1000"),
        (
            {"bars": {0: 4096, 1: BarSpace(2, ports=True)}},
            ValueError,
            "Bad.bars[1]: the size of a BAR is a power of two from 4 on, not 0x2",
        ),
        ({"bars": {0: 1 << 32}}, ValueError, "Bad.bars[0]: a BAR of 0x100000000 bytes is too large for"),
        ({"bars": {0: "4K"}}, TypeError, "Bad.bars[0] is a size in bytes, or a BarSpace, not '4K'"),
        ({"bars": {0: 4096, 6: 4096}}, ValueError, "Bad.bars[6]: a card has BARs 0 to 5"),
        ({"bars": {0: 4096, "1": 4096}}, ValueError, "Bad.bars['1']: a card has BARs 0 to 5"),
        ({"bars": [4096]}, TypeError, "Bad.bars is a dict of BAR to size, not [4096]"),
        ({"bars": {0: BarSpace(4096, width=16)}}, ValueError, "Bad.bars[0]: an address has 32 or 64 bits, not 16"),
        (
            {"bars": {0: BarSpace(4096, width=64), 1: 4096}},
            ValueError,
            "Bad.bars[0]: an address of 64 bits is for memory, and takes the next BAR's place, too",
        ),
        (
            {"bars": {0: 4096, 5: BarSpace(4096, width=64)}},
            ValueError,
            "Bad.bars[5]: an address of 64 bits is for memory, and takes the next BAR's place, too",
        ),
        # Capabilities.
        ({"capabilities": iter(())}, TypeError, "Bad.capabilities is a tuple of Capability, not <tuple_iterator"),
        ({"capabilities": [Capability(9, "ab")]}, TypeError, "Bad.capabilities: `body` and `writable` are bytes"),  # type: ignore[arg-type]
        ({"capabilities": [9]}, TypeError, "Bad.capabilities are of type Capability, not 9"),
        ({"capabilities": [Capability(256, b"")]}, ValueError, "Bad.capabilities: an ID has 8 bits, not 256"),
        ({"capabilities": [Capability(9, b"a", b"bc")]}, ValueError, "Bad.capabilities: `writable` of Capability(id=9"),
        (
            {"capabilities": [Capability(9, bytes(190))], "msi_vectors": 1},
            ValueError,
            "Bad.capabilities, with those of the interrupts, take 208 bytes of 192",
        ),
        # Registers.
        ({"registers": {1: Registers}}, ValueError, "Bad.registers[1]: the card has no such BAR; see bars"),
        (
            {"registers": {0: Registers.at(0)}},
            TypeError,
            "Bad.registers[0]: the registers behind a BAR are a class",
        ),
        ({"registers": Registers}, TypeError, "Bad.registers is a dict of BAR to RegisterMap, not <class"),
        (
            {"bars": {0: 256}},
            ValueError,
            "Bad.registers[0]: table at 0x100 is beyond BAR 0, of 0x100 bytes",
        ),
        (
            {"bars": {0: 4096, 1: 4096}, "registers": {0: Registers, 1: Other}},
            ValueError,
            "Bad: BARs 0 and 1 both have a register control",
        ),
        (
            {"reset_values": {"contrl": 1}},
            ValueError,
            "no register is called contrl; did you mean control?",
        ),
        (
            {"reset_values": {"control": 1 << 32}},
            ValueError,
            "Bad.reset_values['control']: 0x100000000 does not fit",
        ),
        (
            {"reset_values": {"small": -1}},
            ValueError,
            "Bad.reset_values['small']: -0x1 does not fit the register's 8",
        ),
        ({"reset_values": {"control": "1"}}, TypeError, "Bad.reset_values['control'] is a number, not '1'"),
        ({"narrow": ("controls",)}, ValueError, "Bad.narrow: no register is called controls; did you mean control?"),
        ({"narrow": "control"}, TypeError, "Bad.narrow is a tuple of names of registers, not 'control'"),
        ({"narrow": 5}, TypeError, "Bad.narrow is a tuple of names of registers, not 5"),
        # Hooks.
        (
            {"on_write_contrl": hook("value")},
            ValueError,
            "Bad.on_write_contrl: no register is called contrl; did you mean control?",
        ),
        ({"on_read_xyz": hook()}, ValueError, "Bad.on_read_xyz: no register is called xyz"),
        (
            {"on_write_channel_counts": hook("index", "value")},
            ValueError,
            "Bad.on_write_channel_counts: no register is called channel_counts; did you mean channel_count?",
        ),
        (
            {"on_write_status": hook("value")},
            ValueError,
            "Bad.on_write_status is never called: status is read-only, so no driver writes it",
        ),
        (
            {"on_read_command": hook()},
            ValueError,
            "Bad.on_read_command is never called: command is write-only, so no driver reads it",
        ),
        ({"on_write_control": 5}, TypeError, "Bad.on_write_control is a method, not 5"),
        (
            {"on_write_control": hook()},
            TypeError,
            "Bad.on_write_control is called as on_write_control(self, value): too many positional arguments",
        ),
        (
            {"on_write_channel_control": hook("value")},
            TypeError,
            "Bad.on_write_channel_control is called as on_write_channel_control(self, index, value)",
        ),
        (
            {"on_read_table": hook()},
            TypeError,
            "Bad.on_read_table is called as on_read_table(self, index)",
        ),
    ],
    ids=lambda value: None if isinstance(value, type) else str(value)[:60],
)
def test_what_makes_no_card(attributes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        made(**attributes)


@pytest.mark.parametrize(
    ("name", "value", "near"),
    [("bar", {0: 4096}, "bars"), ("register", {0: Registers}, "registers"), ("msix_vector", 2, "msix_vectors")],
)
def test_a_misspelt_attribute(name: str, value: Any, near: str) -> None:
    with pytest.raises(ValueError, match=rf"^Bad.{name} says nothing of the card; did you mean {near}\?"):
        made(**{name: value})


def test_attributes_of_ones_own() -> None:
    assert made(version=1, channels=4, devices=lambda self: (), _bar=5)


def test_a_card_without_interrupts() -> None:
    card = made(interrupt_pin=0)()
    for method in (card.raise_interrupt, card.lower_interrupt):
        with pytest.raises(ValueError, match=r"^Bad has no interrupts: interrupt_pin, msi_vectors and"):
            method()


def _generator(self: Card, value: int) -> Any:
    yield value


async def _coroutine(self: Card, value: int) -> None: ...


@pytest.mark.parametrize("method", [_generator, _coroutine])
def test_a_hook_whose_lines_would_never_run(method: Any) -> None:
    with pytest.raises(TypeError, match=r"Bad\.on_write_control is an ordinary method: as `async def`, or with"):
        made(on_write_control=method)


def test_two_registers_at_one_place() -> None:
    with pytest.raises(ValueError, match="overlap"):

        class Twice(RegisterMap):
            one = Register(0x10)
            two = Register(0x12, width=16)


@pytest.mark.parametrize("thing", [None, 5, "edu", Registers, object()])
def test_what_is_no_card_is_not_opened(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"pyuio.model.open takes a Card, or a class that derives from it, not "):
        pyuio.model.open(thing)


@pytest.mark.parametrize("thing", [Good, Good()])
def test_a_card_that_is_not_open_has_no_driver(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"^Driver takes an open Device, not .*Good.*; .* pyuio.model.open\(\) opens"):
        Driver(thing)


def test_a_card_whose_init_forgot_the_base() -> None:
    class Forgot(Good):
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"^Forgot.__init__ does not call super\(\).__init__\(\), so it makes no card"):
        pyuio.model.open(Forgot)


def test_a_reset_that_forgot_the_base() -> None:
    class Forgot(Good):
        def reset(self) -> None:
            self.extra = 1

    with pytest.raises(TypeError, match=r"^Forgot.reset\(\) does not call super\(\).reset\(\)"):
        Forgot()


@pytest.mark.parametrize(("attributes", "last"), [({}, 0), ({"msi_vectors": 4}, 3), ({"msix_vectors": 2}, 1)])
def test_a_vector_that_the_card_does_not_have(attributes: dict[str, Any], last: int) -> None:
    card = made(**attributes)()
    with pyuio.model.open(card):
        card.raise_interrupt(last)
        for vector in (last + 1, -1):
            with pytest.raises(ValueError, match=f"^Bad has interrupt vectors 0 to {last}, not {vector}"):
                card.raise_interrupt(vector)
            with pytest.raises(ValueError, match=f"^Bad has interrupt vectors 0 to {last}, not {vector}"):
                card.lower_interrupt(vector)
        with pytest.raises(TypeError):
            card.raise_interrupt("0")  # type: ignore[arg-type]


def test_memory_beyond_64_bits() -> None:
    card = Good()
    with pyuio.model.open(card) as device:
        device.dma.alloc(64)
        for address in (-1, 1 << 64):
            with pytest.raises(ValueError, match=r"^Good reads 8 bytes at .*, beyond bus addresses of 64 bits"):
                card.memory.read(address, 8)
            with pytest.raises(ValueError, match=r"^Good writes 8 bytes at .*, beyond bus addresses of 64 bits"):
                card.memory.write(address, bytes(8))
        # The driver may have given such an address: then it is the driver's fault.
        with pytest.raises(pyuio.model.Complaint, match=r"8 bytes at 0xfffffffffffffffc, and its addresses end at"):
            card.memory.read((1 << 64) - 4, 8)


def test_a_value_that_does_not_fit() -> None:
    card = Good()
    for value in (1 << 32, -1):
        with pytest.raises(ValueError, match="control"):
            card.regs.control.write(value)
    with pytest.raises(AttributeError, match=r"the card has no register contrl; did you mean control\?"):
        card.regs.contrl.write(1)
    with pytest.raises(AttributeError, match=r"control is no value: write regs.control.write\(5\)"):
        card.regs.control = 5
    with pytest.raises(AttributeError, match=r"the card has no register contrl; did you mean control\?"):
        card.regs.contrl = 5


def test_a_fault_of_a_register_that_nobody_reads() -> None:
    card = Good()
    with pytest.raises(ValueError, match="command is write-only: no driver reads it, so nothing would happen"):
        card.faults.read_ones("command")


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (1 << 32, ValueError, "Wrong.on_read_control returned 0x100000000, which does not fit 32 bits"),
        (-1, ValueError, "Wrong.on_read_control returned -0x1, which does not fit 32 bits"),
        ("1", TypeError, "Wrong.on_read_control returned '1', which is no number"),
    ],
)
def test_what_a_hook_returns(value: Any, error: type[Exception], message: str) -> None:
    class Wrong(Good):
        def on_read_control(self) -> Any:
            return value

    with pyuio.model.open(Wrong) as device, pytest.raises(error, match=f"^{re.escape(message)}"):
        device.bar(0).read32(0)


def test_a_card_that_is_not_plugged_in_has_no_time() -> None:
    with pytest.raises(RuntimeError, match=r"^Good is not plugged in; pyuio.model.open\(\) does that"):
        Good().after(1, print)


class Flags(Register):
    ready = Field(0)


def test_values_of_a_register_are_reset_values() -> None:
    class Named(RegisterMap):
        flags = Flags(0x0)

    class Ready(Card):
        vendor, device = 0x1234, 0xC0DE
        bars: ClassVar = {0: 16}
        registers: ClassVar = {0: Named}
        reset_values: ClassVar = {"flags": Flags.value(ready=True)}

    with pyuio.model.open(Ready) as device:
        assert device.bar(0).read32(0) == 1
