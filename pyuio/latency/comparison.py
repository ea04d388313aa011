# SPDX-License-Identifier: MIT
"""``pyuio bench compare``: runs side by side, and the differences between the boxes that they come from."""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from pyuio.latency import environment, table
from pyuio.latency.errors import ResultFileError
from pyuio.latency.results import FIGURES, Run, Series

_SIDE_BY_SIDE = 4  # runs whose differences are in columns; more have them in words
_UNKNOWN = "-"


@dataclass(frozen=True)
class Entry:
    """One run among those compared: its letter, and the file that it came from."""

    letter: str
    path: Path
    run: Run


class Comparison:
    """Runs of one kind, side by side; the others are compared with the first.

    Args:
        paths: of the result files, two or more.
        limit: in ns, that no sample may exceed; None for the limit that each run had.

    Raises:
        ResultFileError: one cannot be read, or they are of different kinds.
        ValueError: too few.
    """

    def __init__(self, paths: Sequence[Path], limit: int | None = None) -> None:
        if len(paths) < 2:
            raise ValueError(f"two results or more can be compared, not {len(paths)}")
        self.entries = [Entry(letter, path, Run.load(path)) for letter, path in zip(_letters(), paths, strict=False)]
        if limit is not None:
            for entry in self.entries:
                entry.run.limit = limit
        first = self.entries[0]
        for other in self.entries[1:]:
            if other.run.kind != first.run.kind:
                raise ResultFileError(
                    f"{other.path} is a result of bench {other.run.kind}, {first.path} one of bench {first.run.kind}: "
                    "only results of one kind can be compared"
                )

    def series(self) -> list[tuple[str, str, list[Series | None]]]:
        """Return condition and way of each series that any run has, and each run's series, None where it has none."""
        names = dict.fromkeys((series.condition, series.way) for entry in self.entries for series in entry.run.series)
        conditions = list(dict.fromkeys(condition for condition, _ in names))
        ordered = sorted(names, key=lambda name: conditions.index(name[0]))
        found = [{(series.condition, series.way): series for series in entry.run.series} for entry in self.entries]
        return [(*name, [one.get(name) for one in found]) for name in ordered]

    @property
    def beyond(self) -> list[str]:
        """The letters of the runs with a sample beyond their limit."""
        return [entry.letter for entry in self.entries if entry.run.beyond]

    def worst_first(self, several: Sequence[Series | None]) -> list[tuple[Entry, Series | None]]:
        """Return the runs with their series of one way and condition: the worst sample first, those without last."""
        pairs = list(zip(self.entries, several, strict=True))
        return sorted(pairs, key=lambda pair: pair[1].worst if pair[1] is not None else -1, reverse=True)

    def differences(self) -> list[tuple[str, list[str]]]:
        """Return the name of each fact that is not the same in all runs, and its value in each run."""
        each = [facts(entry.run) for entry in self.entries]
        names = dict.fromkeys(name for one in each for name in one)
        rows = [(name, [one.get(name, _UNKNOWN) for one in each]) for name in names]
        return [(name, values) for name, values in rows if len(set(values)) > 1]

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison for JSON; times in ns."""
        return {
            "kind": self.entries[0].run.kind,
            "unit": "ns",
            "runs": [
                {
                    "letter": entry.letter,
                    "file": str(entry.path),
                    "when": entry.run.when,
                    "interrupted": entry.run.interrupted,
                    "void": entry.run.void,
                    "limit": entry.run.limit,
                    "beyond": entry.run.beyond,
                }
                for entry in self.entries
            ],
            "differences": [
                {"name": name, **{entry.letter: value for entry, value in zip(self.entries, values, strict=True)}}
                for name, values in self.differences()
            ],
            "series": [
                {
                    "condition": condition,
                    "way": way,
                    "figures": {
                        entry.letter: one.figures() if one else None
                        for entry, one in zip(self.entries, several, strict=True)
                    },
                    "worst first": [entry.letter for entry, _ in self.worst_first(several)],
                    "ratios": {
                        f"{entry.letter}/A": ratios(one, several[0])
                        for entry, one in zip(self.entries[1:], several[1:], strict=True)
                    },
                }
                for condition, way, several in self.series()
            ],
        }

    def show(self, console: Console) -> None:
        """Print the comparison."""
        for entry in self.entries:
            console.print(Text(f"{entry.letter}: {entry.path}", style="bold"), soft_wrap=True)
            console.print(Text(f"   {environment.title(entry.run.environment)}, {entry.run.when}"))
            if entry.run.interrupted:
                console.print(Text("   interrupted before its end", style="yellow"))
            for reason in entry.run.void:
                console.print(Text(f"   VOID: {reason}", style=table.VOID_STYLE))
            for line in table.beyond(entry.run):
                console.print(Text(f"   {line}", style=table.VOID_STYLE))
        self._show_differences(console)
        self._show_figures(console)

    def _show_differences(self, console: Console) -> None:
        console.print()
        differences = self.differences()
        if not differences:
            console.print("The boxes, their tuning and the settings are the same.")
            return
        if len(self.entries) > _SIDE_BY_SIDE:
            console.print(Text("what is different", style="bold"))
            letters = [entry.letter for entry in self.entries]
            for name, values in differences:
                who = {
                    value: [one for one, other in zip(letters, values, strict=True) if other == value]
                    for value in values
                }
                words = "; ".join(f"{value} ({', '.join(having)})" for value, having in who.items())
                console.print(Text(f"  {name}: {words}"), soft_wrap=True)
            return
        shown = table.plain("what is different")
        shown.add_column("")
        for entry in self.entries:
            shown.add_column(entry.letter, overflow="fold", style="yellow")
        for name, values in differences:
            shown.add_row(name, *map(Text, values))
        console.print(shown)

    def _show_figures(self, console: Console) -> None:
        shown_condition = None
        for condition, way, several in self.series():
            if condition != shown_condition:
                console.print()
                console.print(Text(f"{condition}, us", style="bold"))
                shown_condition = condition
            shown = table.plain()
            shown.add_column(way, min_width=16)
            for name in FIGURES:
                shown.add_column(name, justify="right", no_wrap=True, min_width=6)
            worst_first = self.worst_first(several)
            for entry, one in worst_first:
                if one is None:
                    shown.add_row(f"  {entry.letter}", *["-"] * len(FIGURES))
                    continue
                style = table.VOID_STYLE if one.void or one.name in entry.run.beyond else None
                shown.add_row(f"  {entry.letter}" + (" VOID" if one.void else ""), *table.figures(one), style=style)
            for entry, one in worst_first:
                if entry is not self.entries[0]:
                    compared = ratios(one, several[0])
                    cells = (table.ratio(compared[name]) for name in FIGURES)
                    shown.add_row(f"  {entry.letter}/A", *cells, style="bold")
            console.print(shown)


def _letters() -> Iterator[str]:
    """Yield A to Z, AA to AZ, BA and so on."""
    size = 1
    while True:
        for letters in itertools.product(string.ascii_uppercase, repeat=size):
            yield "".join(letters)
        size += 1


def ratios(series: Series | None, reference: Series | None) -> dict[str, float | None]:
    """Return each figure as a multiple of the reference's; None where one of them has none."""
    if series is None or reference is None:
        return dict.fromkeys(FIGURES)
    mine, theirs = series.figures(), reference.figures()
    found: dict[str, float | None] = {}
    for name in FIGURES:
        own, other = mine[name], theirs[name]
        found[name] = own / other if own is not None and other else None
    return found


def facts(run: Run) -> dict[str, str]:
    """Return every fact in which runs may differ, as text."""
    found = {name: _words(value) for name, value in run.environment.items() if not isinstance(value, dict)}
    for name, value in run.environment.items():
        if isinstance(value, dict):
            found.update({f"{name}: {key}": _words(one) for key, one in value.items()})
    for name, setting in run.tuning.items():
        found[f"tuning: {name}"] = _setting(setting)
    found.update({f"setting: {name}": _words(value) for name, value in run.settings.items()})
    found["device"] = _words(run.device)
    return found


def _setting(setting: Any) -> str:
    """Return a setting as text, without values that vary from run to run, such as the amount of locked memory."""
    if not isinstance(setting, dict) or "asked" not in setting:
        return _words(setting)
    return f"{setting['asked']}" + (f", REFUSED ({setting['missing']})" if setting.get("missing") else "")


def _words(value: Any) -> str:
    if value is None or value == [] or value == "":
        return _UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(one)}" for key, one in value.items())
    return str(value)
