# SPDX-License-Identifier: MIT
"""Groups of commands whose modules are imported at the first use.

Each command imports much that no other command needs, and every start of ``pyuio`` must be quick.
"""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

LOOK, DRIVE, MEASURE = "Look", "Drive", "Measure and develop"  # the groups in which --help lists the commands

# The commands of ``pyuio`` in the order of --help: the module whose `app` has the command, and its group.
COMMANDS = {
    "list": ("pyuio.cli.list_command", LOOK),
    "info": ("pyuio.cli.info", LOOK),
    "probe": ("pyuio.cli.probe", LOOK),
    "bind": ("pyuio.cli.bind", DRIVE),
    "unbind": ("pyuio.cli.bind", DRIVE),
    "setup": ("pyuio.cli.setup", DRIVE),
    "reset": ("pyuio.cli.reset", DRIVE),
    "remove": ("pyuio.cli.remove", DRIVE),
    "rescan": ("pyuio.cli.remove", DRIVE),
    "read": ("pyuio.cli.access", DRIVE),
    "write": ("pyuio.cli.access", DRIVE),
    "dump": ("pyuio.cli.dump", DRIVE),
    "watch": ("pyuio.cli.watch", DRIVE),
    "irq": ("pyuio.cli.irq", DRIVE),
    "save": ("pyuio.cli.state", DRIVE),
    "diff": ("pyuio.cli.state", DRIVE),
    "restore": ("pyuio.cli.state", DRIVE),
    "doctor": ("pyuio.cli.doctor", MEASURE),
    "new": ("pyuio.cli.new", MEASURE),
}
SHORT_HELP = {
    "install_completion": "Set up completion for this shell.",
}
HIDDEN = ("show_completion",)  # docs/command-line.md describes it


def unwrapped(command: Any) -> Any:
    """Join the lines of each paragraph of a command's help, which typer keeps as in the source; return the command."""
    if command is not None and command.help:
        command.help = "\n\n".join(" ".join(part.splitlines()) for part in command.help.split("\n\n"))
    return command


def imported(module: str) -> Any:
    """Import a module, and return the group of the commands of its `app`."""
    return get_group(importlib.import_module(module).app)


class Commands(TyperGroup):
    """The commands of ``pyuio``. Their help has one line for each option, so that it fits one screen."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands: Any = {**dict.fromkeys(COMMANDS), **self.commands}  # None: its module is not imported yet

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order in which they were added, as newer versions of typer do."""
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None."""
        if cmd_name in COMMANDS and self.commands[cmd_name] is None:
            module, panel = COMMANDS[cmd_name]
            self.commands[cmd_name] = command = imported(module).commands[cmd_name]
            command.rich_help_panel = panel
        return unwrapped(super().get_command(ctx, cmd_name))

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters; typer's own get a shorter help, or are hidden."""
        parameters: list[Any] = list(super().get_params(ctx))
        for parameter in parameters:
            if parameter.name in SHORT_HELP:
                parameter.help = SHORT_HELP[parameter.name]
            if parameter.name in HIDDEN:
                parameter.hidden = True
        return parameters


def later(module: str) -> typer.Typer:
    """Return a group with the commands of the `app` in `module`; the first use imports the module."""

    class Later(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return list(imported(module).list_commands(ctx))

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return unwrapped(imported(module).get_command(ctx, cmd_name))

    return typer.Typer(cls=Later, no_args_is_help=True)
