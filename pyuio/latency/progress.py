# SPDX-License-Identifier: MIT
"""A progress bar on the terminal while a measurement runs; none if standard error is not a terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bar:
    """A bar that moves only between the turns of a measurement.

    A drawing thread would take the GIL from the measured code, so only `next` and `done` draw.

    Args:
        turns: the number of turns.
    """

    def __init__(self, turns: int) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            BarColumn(),
            TextColumn("{task.completed}/{task.total} turns"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.description}"),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=turns)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def next(self, what: str) -> None:
        """Show which turn begins now."""
        self._progress.update(self._task, description=what, refresh=True)

    def done(self) -> None:
        """Move on by one turn."""
        self._progress.update(self._task, advance=1, refresh=True)
