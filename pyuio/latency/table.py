# SPDX-License-Identifier: MIT
"""A run as tables on the terminal, or in a pipe: one for each load, one line for each way."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pyuio.latency import environment, tuning
from pyuio.latency.results import FIGURES, REFERENCE, TRIGGER_TAKES, Run, Series

RATIOS = ("p50", "p99")
VOID_STYLE = "bold red"


def microseconds(nanoseconds: int | None, *, doubtful: bool = False) -> str:
    """Return a time in us with its significant digits: "2.31", "23.1", "2,310"; "-" for None."""
    if nanoseconds is None:
        return "-"
    value = nanoseconds / 1000
    text = f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"
    if value >= 999_999.5:
        text = f"{value:.2e}".replace("e+0", "e")
    return "~" + text if doubtful else text


def ratio(value: float | None) -> str:
    """Return a ratio with three digits; "-" for None."""
    if value is None:
        return "-"
    if value < 0.0995:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def figures(series: Series) -> list[str]:
    """Return each of `FIGURES` as text for a table."""
    doubtful = series.doubtful()
    return [microseconds(value, doubtful=name in doubtful) for name, value in series.figures().items()]


def plain(title: str = "") -> Table:
    """Return an empty table that fits 80 columns."""
    return Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))


def show(run: Run, console: Console) -> None:
    """Print a run."""
    what = f"pyuio bench {run.kind}" + (f", {run.device}" if run.device else "")
    console.print(Text(what, style="bold"), Text(environment.title(run.environment)), sep="\n")
    if run.void:
        console.print(Text("VOID: these figures must not be used", style=VOID_STYLE))
    if run.interrupted:
        console.print(Text("interrupted: what follows was measured until then", style="yellow"))
    for condition in run.conditions:
        console.print()
        console.print(_table(run, condition))
        for line in _notes(run.kind, run.under(condition)):
            console.print(Text("  " + line, style="dim"))
    console.print()
    for reason in run.void:
        console.print(Text(f"VOID: {reason}", style=VOID_STYLE))
    for line in _beyond(run):
        console.print(Text(line, style=VOID_STYLE))
    for text in tuning.missing(run.tuning):
        console.print(Text(f"without {text}", style="yellow"))
    for line in _legend(run):
        console.print(Text(line, style="dim"))


def _beyond(run: Run) -> list[str]:
    return beyond(run) + ([] if run.trace is None else cause(run.trace))


def beyond(run: Run) -> list[str]:
    """Return a line for each series with a sample beyond the limit: the limit, the series, its worst sample."""
    if run.limit is None:
        return []
    limit = microseconds(run.limit)
    return [
        f"beyond {limit} us: {series.name}, {microseconds(series.figures()['max'])} us"
        for series in run.series
        if series.name in run.beyond
    ]


def cause(trace: dict[str, Any]) -> list[str]:
    """Return in words what the trace of a sample, by `trace.kept`, shows of its cause."""
    ran = ", ".join(f"{name} {microseconds(took)} us" for name, took in list(trace["ran"].items())[:6])
    lines = [
        f"traced: {trace['series']}, {microseconds(trace['latency'])} us; meanwhile CPU {trace['cpu']} ran "
        f"{ran or 'nothing that was recorded'}"
    ]
    if not trace["complete"]:
        lines.append("the trace does not reach back to the event: more was recorded than it holds")
    return lines


def _table(run: Run, condition: str) -> Table:
    table = plain(f"{condition}, us")
    table.add_column("")
    several = run.under(condition)
    compared = any(run.ratio(series, name) for series in several if series.way != REFERENCE for name in RATIOS)
    headings = [*FIGURES, *(f"{name}/{REFERENCE}" for name in RATIOS if compared)]
    for name in headings:
        table.add_column(name, justify="right", no_wrap=True)
    for series in several:
        ratios = [ratio(run.ratio(series, name)) for name in RATIOS if compared]
        name = series.way + (" VOID" if series.void else "")
        table.add_row(name, *figures(series), *ratios, style=VOID_STYLE if series.void else None)
    return table


def _notes(kind: str, several: list[Series]) -> list[str]:
    notes = []
    for series in several:
        parts = [f"{series.count:,} samples", f"{series.lost:,} lost", f"{series.warm_up:,} warm-up left out"]
        if kind == "rate" and series.rate is not None:
            parts.insert(0, f"{series.rate:,.0f} a second")
        if series.late:
            parts.append(f"{series.late:,} late")
        notes.append((series.way, ", ".join(parts)))
    if len({text for _, text in notes}) == 1:
        return [("each: " if len(notes) > 1 else "") + notes[0][1]]
    return [f"{way}: {text}" for way, text in notes]


def _legend(run: Run) -> list[str]:
    compared = any(series.way == REFERENCE for series in run.series)
    texts = []
    if compared:
        texts.append(f"p50/{REFERENCE}: as a multiple of {REFERENCE}'s under the same load.")
    if any(series.late for series in run.series):
        texts.append("late: came before anyone waited for it.")
    if any(series.doubtful() for series in run.series):
        texts.append("~: rests on fewer than 10 samples.")
    if any(None in series.figures().values() for series in run.series):
        texts.append("-: too few samples.")
    lines = [" ".join(texts)] if texts else []
    if not compared:
        why = "knows how this card's interrupt is acknowledged"
        if run.settings.get("loop") == "in process":
            why = "reaches a card in Python; a latency is the processor time of driver and card"
        lines.append(f"No ratios: there is no {REFERENCE} program that {why}.")
    if (took := run.settings.get(TRIGGER_TAKES)) is not None:
        lines.append(f"Each latency includes what the driver's trigger() takes: {took:.3g} us (median).")
    return lines
