# SPDX-License-Identifier: MIT
"""The screen of ``pyuio watch``, on cards in Python."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest
import typer
from pyuio_drivers.models.edu import EduCard
from textual.widgets import Input

import pyuio
import pyuio.model
from pyuio.cli import watch as command
from pyuio.cli.watch_screen import Watch
from pyuio.errors import DeviceBusyError, RegisterAccessError
from pyuio.inspect.health import Health, InterruptCount
from pyuio.inspect.inspection import Inspection
from pyuio.model import Card
from pyuio.pci.aer import Errors, LinkErrors
from pyuio.pci.config_image import Command, Status
from pyuio.pci.link import Link
from pyuio.region import PortRegion, Region
from pyuio.registers import Field, Register, RegisterMap, bank

PAGE = (Path(__file__).resolve().parents[2] / "docs/watch.md").read_text()


class OnCard(Inspection):
    """An inspection of a card in this process."""

    kernel_driver = None
    uio_name = None
    compatible = ()

    def __init__(self, card: Card) -> None:
        self.card, self.device = card, pyuio.model.open(card)
        assert self.device.address is not None
        self.name = self.address = "0000:00:04.0"
        self.ids, self.class_code = self.device.ids, self.device.class_code
        self._directory, self._config = Path("/no/such/device"), self.device.config
        self.users: list[str] = []

    def processes(self) -> list[str]:
        return self.users

    def bar(self, index: int) -> Region | PortRegion:
        return self.device.bar(index)

    def close(self) -> None:
        self.device.close()


class Screen:
    """A screen that is up, its card, and what is told of that."""

    def __init__(self, card: Any) -> None:
        self.card, self.on_card, self.interrupts, self.time = card, OnCard(card), 0, 0.0
        self.link_errors: LinkErrors | None = None
        self.view = command.live_view(self.on_card, None, None, self.health)
        self.view._clock = lambda: self.time
        self.view.look()
        self.app = Watch(self.view, 3600, self.refuse)
        self.refusal: Exception | None = None
        self.pilot: Any = None

    def health(self) -> Health:
        self.on_card.require_answer()
        return Health(
            "uio_pci_generic",
            InterruptCount(self.interrupts, "uio0"),
            Link(5.0, 1, 8.0, 4),
            Status.RECEIVED_MASTER_ABORT,
            self.link_errors,
        )

    def refuse(self, _inspection: Inspection) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def press(self, *keys: str) -> str:
        await self.pilot.press(*keys)
        await self.pilot.pause()
        return self.text()

    def text(self) -> str:
        """Return the picture of the screen as text, without blanks at the ends of lines."""
        return "\n".join(strip.text.rstrip() for strip in self.app.screen._compositor.render_strips())


def run(screen: Screen, body: Callable[[Screen], Awaitable[None]], size: tuple[int, int] = (80, 24)) -> None:
    async def session() -> None:
        async with screen.app.run_test(size=size) as screen.pilot:
            await screen.pilot.pause()
            await body(screen)

    try:
        asyncio.run(session())
    finally:
        screen.on_card.close()


class Control(Register):
    """Of a card whose words come from elsewhere."""

    mode = Field(7, 4, doc="a mode")
    go = Field(0)


class Registers(RegisterMap):
    control = Control(0x00, doc="\x1b]0;title\x07 [bold]not markup")
    level = Register(0x04, access="ro")
    queue = Register(0x08, access="rc")
    page = Register(0x0C)
    tone = bank(Register(0x10), select="page", value=1)


class OddDriver(pyuio.Driver):
    ids = ("1234:0009",)
    register_maps: ClassVar = {0: Registers}


class OddCard(Card):
    """Counts what is read of its queue, and written to its page register."""

    vendor, device, class_code = 0x1234, 0x0009, 0xFF0000
    bars: ClassVar = {0: 4096}
    registers: ClassVar = {0: Registers}
    taken = 0
    pages = 0

    def on_read_queue(self) -> int:
        self.taken += 1
        return 0x55

    def on_write_page(self, value: int) -> None:
        self.pages += 1


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setattr("pyuio.inspect.chosen_driver.driver_for", lambda *identity: OddDriver)
    return Screen(OddCard())


def words(text: str) -> str:
    """Return the words of a text, which a dialog may have wrapped."""
    return " ".join(text.replace("│", " ").split())


def line(text: str, word: str) -> str:
    return next(one for one in text.splitlines() if word in one)


def test_the_picture_in_the_documentation() -> None:
    """What a look finds changed is marked, interrupts are counted a second, and the screen has 24 lines of 80."""

    async def body(screen: Screen) -> None:
        screen.on_card.bar(0).write32(0x08, 5)
        pyuio.model.clock.sleep(0.001)
        screen.time, screen.interrupts = 2.0, 84
        shown = await screen.press("l", "down", "down")
        picture = shown.replace("every 3600 s", "every 1 s")
        assert picture in PAGE, picture
        assert len(shown.splitlines()) == 24
        assert not re.search(r"^\*", await screen.press("l"), re.MULTILINE), "nothing changed since"

    run(Screen(EduCard()), body)


def test_errors_on_the_link() -> None:
    async def body(screen: Screen) -> None:
        assert "link errors" not in screen.text(), "the kernel counts none"
        screen.link_errors = LinkErrors(Errors(2, {"BadTLP": 2}))
        assert line(await screen.press("l"), "link errors") == " link errors correctable 2 (BadTLP 2)"
        screen.link_errors = LinkErrors(Errors(5, {"BadTLP": 2, "RxErr": 3}))
        assert "(BadTLP 2, RxErr 3); since the last look: correctable 3 (RxErr 3)" in words(await screen.press("l"))
        assert "since" not in await screen.press("l")

    run(Screen(EduCard()), body)


def test_a_write_is_made_after_a_confirmation() -> None:
    async def body(screen: Screen) -> None:
        bar = screen.on_card.bar(0)
        assert "bar0.identification =" in await screen.press("w")
        line_typed = screen.app.screen.query_one(Input)
        line_typed.value = "bar0.dma_sourc = 1"
        assert "there is dma_source, dma_count" in words(await screen.press("enter"))
        line_typed.value = "bar0.dma_command.direction = to_memory"
        assert "Write 1 (TO_MEMORY) to bar0.dma_command.direction?" in await screen.press("enter")
        await screen.press("n")
        assert bar.read64(0x98) == 0
        await screen.press("w")
        screen.on_card.users = ["process 7 (dd) has /dev/uio0 open"]
        screen.app.screen.query_one(Input).value = "bar0.dma_source = 0x40000"
        shown = await screen.press("enter")
        assert "Write 0x0000000000040000 to bar0.dma_source?" in shown
        assert "! process 7 (dd) has /dev/uio0 open, and may not expect writes" in shown
        assert "* bar0.dma_source" in await screen.press("y")
        assert bar.read64(0x80) == 0x40000
        screen.refusal = DeviceBusyError(16, "0000:00:04.0 is held by the kernel driver nvme")
        screen.app._write(*screen.view.parse_write("bar0.dma_source = 1"))
        assert "! 0000:00:04.0 is held by the kernel driver nvme" in await screen.press()
        assert bar.read64(0x80) == 0x40000
        await screen.press("w")
        assert "Write a register" not in await screen.press("escape")

    run(Screen(EduCard()), body)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("bar0.identification = 1", "bar0.identification is read-only"),
        ("bar0.dma_source = x", "not 'x'"),
        ("bar0.dma_count", "NAME = VALUE"),
        ("bar1.dma_count = 1", "'bar1.dma_count' is no register of bar0"),
        ("bar0+0x80 = 1", "'bar0+0x80' is no register of bar0"),
        ("bar0.dma_command.start = 2", "the value 0x2 does not fit the 1 bits"),
    ],
)
def test_a_line_that_names_no_write(text: str, complaint: str) -> None:
    screen = Screen(EduCard())
    with closing(screen.on_card), pytest.raises((ValueError, RegisterAccessError), match=re.escape(complaint)):
        screen.view.parse_write(text)


def test_a_register_with_an_effect_is_read_when_the_user_says_so(odd: Screen) -> None:
    async def body(screen: Screen) -> None:
        shown = screen.text()
        assert "\\x1b]0;title\\x07 [bold]not markup" in shown
        assert "\x1b" not in shown
        shown = await screen.press("l", "down", "down")
        assert "not read, as that has an effect" in line(shown, "bar0.queue  ")
        assert "Read bar0.queue? That has an effect on the device." in await screen.press("r")
        await screen.press("n")
        assert odd.card.taken == 0
        shown = await screen.press("r", "y")
        assert odd.card.taken == 1
        assert "0x00000055" in line(shown, "bar0.queue  ")
        assert "0x00000055" in line(await screen.press("l"), "bar0.queue  ")
        assert odd.card.taken == 1
        await screen.press("up", "r")  # without an effect: at once
        assert len(screen.app.screen_stack) == 1

    run(odd, body)


def test_a_bank_is_not_selected_while_somebody_else_has_the_device(odd: Screen) -> None:
    with closing(odd.on_card):
        assert odd.card.pages == 1
        odd.on_card.users = ["process 7 (driver) has /dev/uio0 open"]
        odd.view.look()
        assert odd.card.pages == 1
        odd.on_card.users = []
        odd.view.look()
        assert odd.card.pages == 2


def test_a_card_that_is_pulled_out() -> None:
    async def body(screen: Screen) -> None:
        screen.card.remove()
        shown = await screen.press("l")
        assert "Press a key to leave" in shown
        assert "0x010000ed" in line(shown, "bar0.identification")
        assert isinstance(screen.app.ended, pyuio.DeviceRemovedError)
        assert str(screen.app.ended.strerror)[:30] in words(shown)
        screen.app._tick()  # no further look
        assert screen.app.is_running
        await screen.pilot.press("x")
        await screen.pilot.pause()
        assert screen.app._exit

    run(Screen(EduCard()), body)


def test_permission_that_is_lost() -> None:
    async def body(screen: Screen) -> None:
        def refuse() -> Health:
            raise PermissionError(13, "Permission denied")

        screen.view._ask = refuse
        assert "Permission denied; this needs" in words(await screen.press("l"))
        assert isinstance(screen.app.ended, pyuio.PermissionDeniedError)

    run(Screen(EduCard()), body)


def test_a_pause_a_bar_that_is_switched_off_and_ctrl_c_in_a_small_terminal() -> None:
    async def body(screen: Screen) -> None:
        assert "  paused" in await screen.press("space")
        screen.interrupts = 7
        screen.app._tick()
        assert "interrupts 0 (uio0)" in await screen.press()
        assert "every 3600 s" in await screen.press("space")
        config = screen.on_card.config
        on = config.command
        with config.unlocked():
            config.write16(4, on & ~Command.MEMORY_SPACE)
        shown = await screen.press("l")
        assert "! BAR 0 of 0000:00:04.0 does not answer" in words(shown)
        assert "0x010000ed" in line(shown, "bar0.identification")
        with config.unlocked():
            config.write16(4, on)
        assert "does not answer" not in await screen.press("l")
        await screen.pilot.press("ctrl+c")
        assert isinstance(screen.app.ended, KeyboardInterrupt)

    run(Screen(EduCard()), body, size=(50, 16))


def test_a_part_of_the_names() -> None:
    health: Any = None
    with closing(OnCard(EduCard())) as on_card:
        part = command.live_view(on_card, "bar0.status", None, health)
        assert [str(one.cell.place) for one in part.registers] == ["bar0.status"]
        header = command.live_view(on_card, "config", None, health)
        assert header.registers[0].cell.read() == 0x1234
        with pytest.raises(ValueError, match=r"'bar0\.status' is no register of a driver"):
            header.parse_write("bar0.status = 1")
        for wrong in ("bar0+4", "bar0.status.computing", "config+4", "?"):
            with pytest.raises(typer.Exit):
                command.live_view(on_card, wrong, None, health)


def test_interrupts_since() -> None:
    before = InterruptCount((1 << 32) - 2, "uio0")
    assert InterruptCount(3, "uio0").since(before) == 5
    assert InterruptCount(3, "uio1").since(before) is None
    assert InterruptCount(3, "uio0").since(None) is None


def test_without_textual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pyuio.cli.watch_screen")
    monkeypatch.setitem(sys.modules, "textual.app", None)
    with pytest.raises(pyuio.TextualUnavailableError, match=r"pip install 'pyuio-framework\[watch\]'"):
        command.screen_class()
