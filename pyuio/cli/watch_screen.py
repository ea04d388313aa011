# SPDX-License-Identifier: MIT
"""The screen of ``pyuio watch``, by textual. It makes no access that `pyuio.inspect.live` does not make for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Key
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, Static

from pyuio.cli.access import others
from pyuio.errors import DeviceRemovedError, PermissionDeniedError, PyuioError
from pyuio.inspect.cells import Cell, is_harmless
from pyuio.inspect.health import Health
from pyuio.inspect.inspection import Inspection
from pyuio.inspect.live import LiveView
from pyuio.kernel.sysfs import translated
from pyuio.pci.aer import LinkErrors
from pyuio.process.printable import printable, printable_name

_CHANGED = "bold reverse"
_NOT_READ = "not read, as that has an effect (r)"


def _text(text: object, style: str = "") -> Text:
    """Return a text of others as it can be shown: no markup, no control characters."""
    return Text(printable(text), style)


class _Dialog(ModalScreen[str]):
    """A question below the registers; the answer is a text, "" for none."""

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """Make the question."""
        with Vertical(classes="dialog"):
            yield Static(_text(self._question))

    def action_cancel(self) -> None:
        """End without an answer."""
        self.dismiss("")


class Confirm(_Dialog):
    """A question whose answer is y."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("n,escape", "cancel", "No")]

    def __init__(self, question: str) -> None:
        super().__init__(f"{question}\ny: yes, n: no")

    def key_y(self) -> None:
        """Answer yes."""
        self.dismiss("y")


class Ask(_Dialog):
    """A line to type; the answer is the line.

    Args:
        question: says what to type.
        given: what the line has at the beginning.
        check: raises ValueError or `PyuioError` for a line that cannot be taken; the message is shown.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", "Cancel")]

    def __init__(self, question: str, given: str, check: Callable[[str], object]) -> None:
        super().__init__(f"{question}\nenter: go on, escape: cancel")
        self._given, self._check = given, check

    def compose(self) -> ComposeResult:
        """Make the question, the line, and a place for what is wrong with it."""
        with Vertical(classes="dialog"):
            yield Static(_text(self._question))
            yield Input(self._given, compact=True, select_on_focus=False)
            yield Static(id="complaint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the line, or say what is wrong with it."""
        try:
            self._check(event.value)
        except (ValueError, PyuioError) as error:
            self.query_one("#complaint", Static).update(_text(_sentence(error), "bold"))
        else:
            self.dismiss(event.value)


class Ended(_Dialog):
    """The sentence at the end; the registers stay until a key is pressed."""

    def __init__(self, sentence: str) -> None:
        super().__init__(f"{sentence}\nThe values are those of the last look. Press a key to leave.")

    def on_key(self, event: Key) -> None:
        """Leave."""
        event.stop()
        self.app.exit()


def _sentence(error: Exception) -> str:
    return str(error.strerror if isinstance(error, OSError) and error.strerror else error)


class Watch(App[None]):
    """The screen.

    Args:
        view: the registers.
        interval: seconds between two looks.
        refuse: raises a `PyuioError` if the device is not to be written to.

    Attributes:
        ended: the error that ended the view, if one did; or KeyboardInterrupt.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; }
    #head { height: auto; max-height: 8; padding: 0 1; }
    #detail { height: 4; padding: 0 1; }
    DataTable { height: 1fr; scrollbar-size-horizontal: 0; }
    ModalScreen { background: transparent; align: center bottom; }
    .dialog { height: auto; max-height: 12; padding: 0 1; border: round; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("w", "write", "Write"),
        Binding("r", "read", "Read this one"),
        Binding("l", "look", "Look now"),
        Binding("space", "pause", "Pause"),
        Binding("ctrl+c", "interrupt", "Quit", show=False, priority=True),
    ]

    def __init__(self, view: LiveView, interval: float, refuse: Callable[[Inspection], object]) -> None:
        super().__init__()
        self._view, self._interval, self._refuse = view, interval, refuse
        self._others = others(view.inspection, "reads")
        self._notice = ""
        self._paused = False
        self._drawn: list[object] = [None] * len(view.registers)
        self.ended: BaseException | None = None

    def compose(self) -> ComposeResult:
        """Make the parts of the screen, from above."""
        yield Static(id="head")
        yield DataTable[Text](cursor_type="row", cell_padding=0, show_header=True)
        yield Static(id="detail")
        yield Footer()

    def on_mount(self) -> None:
        """Fill the table, and begin to look."""
        table = self._table
        for key, label in (("name", "  register"), ("value", "  value"), ("fields", "  fields")):
            table.add_column(label, key=key)
        for at in range(len(self._view.registers)):
            table.add_row(*self._row(at), key=str(at))
        self._show()
        self.set_interval(self._interval, self._tick)

    @property
    def _table(self) -> DataTable[Text]:
        return self._registers.query_one(DataTable)

    @property
    def _registers(self) -> Screen[object]:
        """The screen below the dialogs."""
        return self.screen_stack[0]

    # ---- What is shown ----

    def _row(self, at: int) -> tuple[Text, Text, Text]:
        register, value = self._view.registers[at], self._view.values[at]
        changed = at in self._view.changes
        name = Text(f"{'*' if changed else ' '} {register.cell.place}", _CHANGED if changed else "")
        if value is None:
            return name, Text("  -", "dim"), Text(f"  {_NOT_READ if register.info.readable else 'write-only'}", "dim")
        digits = f"  {value:#0{register.cell.width // 4 + 2}x}"
        return name, Text(digits, "bold" if changed else ""), self._fields(at, value)

    def _fields(self, at: int, value: int) -> Text:
        info, change = self._view.registers[at].info, self._view.changes.get(at)
        differ = {} if change is None else change.fields
        shown = Text(" ")
        for name, field in info.fields.items():
            if info.layout.reads(field):
                shown.append(" ")
                shown.append(printable_name(f"{name}={field.text(value)}"), _CHANGED if name in differ else "")
        return shown

    def _show(self) -> None:
        view, table = self._view, self._table
        for at, value in enumerate(view.values):
            state = (value, view.changes.get(at))
            if state != self._drawn[at]:
                self._drawn[at] = state
                for key, cell in zip(("name", "value", "fields"), self._row(at), strict=True):
                    table.update_cell(str(at), key, cell, update_width=True)
        self._registers.query_one("#head", Static).update(self._head())
        self._show_detail()

    def _head(self) -> Text:
        view = self._view
        names = filter(None, (view.inspection.name, view.inspection.ids or view.inspection.uio_name))
        paused = "paused" if self._paused else f"every {self._interval:g} s"
        lines = [_text("  ".join(map(printable_name, names)), "bold").append(f"  {paused}", "dim")]
        if view.health is not None:
            lines += map(_text, described(view.health, view.rate, view.link_errors))
        lines += [_text(f"! {line}", "yellow") for line in (*self._others, view.doubt, self._notice) if line]
        return Text("\n").join(lines)

    def _show_detail(self) -> None:
        """Show the register under the cursor: where it is, what it is for, its fields, and what changed."""
        at = self._table.cursor_row
        info, place = self._view.registers[at].info, self._view.registers[at].cell.place
        value, change = self._view.values[at], self._view.changes.get(at)
        doc = info.doc.partition("\n")[0]
        lines = [f"{place} at {info.offset:#x}, {info.width} bits, {info.access}{'  ' * bool(doc)}{doc}"]
        if change is not None:
            lines.append(f"changed: {change}")
        elif info.fields:
            shown = (
                f"{name}{field.bits}{'' if value is None or not info.layout.reads(field) else f'={field.text(value)}'}"
                for name, field in info.fields.items()
            )
            lines.append(f"fields: {' '.join(shown)}")
        self._registers.query_one("#detail", Static).update(_text("\n".join(map(printable_name, lines))))

    def on_data_table_row_highlighted(self) -> None:
        """Show the register to which the cursor went."""
        self._show_detail()

    # ---- What is done ----

    def _tick(self) -> None:
        if not self._paused:
            self.action_look()

    def action_look(self) -> None:
        """Look at the registers; what changed since the last look is marked."""
        self._try(self._view.look)

    def action_pause(self) -> None:
        """Stop looking, or go on."""
        self._paused = not self._paused
        self._show()

    def action_interrupt(self) -> None:
        """End as Ctrl-C does."""
        self.ended = KeyboardInterrupt()
        self.exit()

    def _try(self, action: Callable[[], object]) -> None:
        """Do something with the device and show what it has then; what fails is shown, and may end the view."""
        if self.ended is not None:
            return
        self._notice = ""
        try:
            action()
        except (PyuioError, OSError, ValueError) as error:
            told: Exception = error
            if isinstance(error, OSError) and not isinstance(error, PyuioError):
                told = translated(error, "looking at the device")
            self._notice = _sentence(told)
            if isinstance(told, (DeviceRemovedError, PermissionDeniedError)):
                self.ended, self._notice = told, ""
                self.push_screen(Ended(_sentence(told)))
        self._show()

    def action_read(self) -> None:
        """Read the register under the cursor, after a confirmation if that has an effect."""
        at = self._table.cursor_row
        register = self._view.registers[at]
        if not register.info.readable:
            self._notice = f"{register.cell.place} is write-only"
            self._show()
        elif is_harmless(register.info, driven=self._view.inspection.is_driven_now()):
            self._read(at)
        else:
            question = f"Read {register.cell.place}? That has an effect on the device."
            self.push_screen(Confirm(question), lambda answer: self._read(at) if answer else None)

    def _read(self, at: int) -> None:
        self._try(lambda: self._view.read(at))

    def action_write(self) -> None:
        """Ask for a register and a value, ask again, and write."""
        place = self._view.registers[self._table.cursor_row].cell.place
        question = "Write a register or a field: NAME = VALUE"
        self.push_screen(Ask(question, f"{place} = ", self._view.parse_write), self._confirm_write)

    def _confirm_write(self, text: str | None) -> None:
        if not text:
            return
        cell, number = self._view.parse_write(text)
        warnings = "".join(f"\n! {line}" for line in others(self._view.inspection, "writes"))
        question = f"Write {cell.text(number)} to {cell.place}?{warnings}"
        self.push_screen(Confirm(question), lambda answer: self._write(cell, number) if answer else None)

    def _write(self, cell: Cell, number: int) -> None:
        def write() -> None:
            self._refuse(self._view.inspection)
            cell.write(number)
            self._view.look()

        self._try(write)


def described(health: Health, rate: float | None, came: LinkErrors | None = None) -> list[str]:
    """Return lines: the driver and the interrupts of a device, its link and its errors, and the link's, if counted.

    Args:
        health: what is told of the device.
        rate: interrupts a second; None if it is not known.
        came: errors on the link since the last look; None if that is not known.
    """
    if (counted := health.interrupts) is None:
        interrupts = "not counted, as no driver handles them"
    else:
        interrupts = f"{counted.total}{'' if rate is None else f', {rate:.0f}/s'} ({counted.source})"
    errors = ", ".join(str(health.errors).split("|")) if health.errors else "none"
    lines = [
        f"driver {health.driver or 'none'}   interrupts {interrupts}",
        f"link {health.link or 'none (no PCI Express)'}   errors {errors}",
    ]
    if health.link_errors is not None:
        lines.append(f"link errors {health.link_errors}{f'; since the last look: {came}' if came else ''}")
    return lines
