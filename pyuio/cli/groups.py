# SPDX-License-Identifier: MIT
"""Groups of commands whose module is imported at the first use.

The commands for measuring and for guests import much that no other command needs, and ``pyuio --help`` and the shell's
completion must be quick.
"""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

SHORT_HELP = {
    "install_completion": "Set up completion for this shell.",
}
HIDDEN = ("show_completion",)  # docs/command-line.md describes it


def unwrapped(command: Any) -> Any:
    """Join the lines of each paragraph of a command's help, which typer keeps as in the source; return the command."""
    if command is not None and command.help:
        command.help = "\n\n".join(" ".join(part.splitlines()) for part in command.help.split("\n\n"))
    return command


class Commands(TyperGroup):
    """The commands of ``pyuio``. Their help has one line for each option, so that it fits one screen."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order in which they were added, as newer versions of typer do."""
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None."""
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
        def _commands(self) -> Any:
            return get_group(importlib.import_module(module).app)

        def list_commands(self, ctx: Any) -> list[str]:
            return list(self._commands().list_commands(ctx))

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return unwrapped(self._commands().get_command(ctx, cmd_name))

    return typer.Typer(cls=Later, no_args_is_help=True)
