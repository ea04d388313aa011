# SPDX-License-Identifier: MIT
"""``--report``: a run as one HTML file without scripts and without anything from elsewhere, ready to mail."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pyuio.kernel.trusted_directory import open_directory
from pyuio.kernel.trusted_file import write_in_place
from pyuio.latency import environment, table, tuning
from pyuio.latency.comparison import facts
from pyuio.latency.errors import OutputDirectoryError, ResultExistsError
from pyuio.latency.plot import COLOURS
from pyuio.latency.results import FIGURES, REFERENCE, Run, Series
from pyuio.process.html import text

_STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em; color: #222; background: #fff }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse } th, td { padding: .15em .7em; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child, table.facts td { text-align: left; vertical-align: top; white-space: nowrap }
td { font-variant-numeric: tabular-nums } table.facts td + td { overflow-wrap: anywhere; white-space: normal }
.bad { color: #b00000; font-weight: bold } .dim { color: #666 }
pre { overflow-x: auto; font-size: 12px; background: #f6f6f6; padding: .7em }
svg { width: 100%; height: auto } svg text { font: 12px sans-serif; fill: #444 }
"""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 760, 260, 60, 36  # of a histogram, in its own units
_PER_DECADE = 25  # bars


class Report:
    """The file of a report. Making it checks, before anything is measured, that it can be written.

    Args:
        path: the file.
        overwrite: replace one that is there.

    Raises:
        ResultExistsError: the file is there, and `overwrite` is not set.
        OutputDirectoryError: its directory is not there, or cannot be written to.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path
        try:
            # Whatever comes in the place of the directory later, the report goes to the one that is there now.
            self._directory = open_directory(path.parent)
        except OSError as error:
            raise self._failed(error) from error
        try:
            self._check(overwrite=overwrite)
        except BaseException:
            os.close(self._directory)
            raise

    def _check(self, *, overwrite: bool) -> None:
        path, place = self.path, self._place
        if place.exists() and not overwrite:
            reason = f"{path} is there already; name another file, or add --overwrite to replace it"
            raise ResultExistsError(errno.EEXIST, reason)
        if place.is_dir() or not os.access(place.parent, os.W_OK | os.X_OK):
            reason = f"{path}: a report cannot be written there; name a file in a directory that you may write to"
            raise OutputDirectoryError(errno.EACCES, reason)

    @property
    def _place(self) -> Path:
        return Path(f"/proc/self/fd/{self._directory}", self.path.name)

    def write(self, run: Run) -> None:
        """Write it, in one step, once. OutputDirectoryError: it cannot be written."""
        try:
            write_in_place(self._place, html(run))
        except OSError as error:
            raise self._failed(error) from error
        finally:
            os.close(self._directory)

    def _failed(self, error: OSError) -> OutputDirectoryError:
        reason = f"{self.path}: the report cannot be written: {error.strerror or error}"
        return OutputDirectoryError(error.errno, reason)


def html(run: Run) -> str:
    """Return the report of a run."""
    title = f"pyuio bench {run.kind}" + (f", {run.device}" if run.device else "")
    parts = [
        f"<h1>{text(title)}</h1>",
        f"<p>{text(environment.title(run.environment))}<br>{text(run.when)}</p>",
        *_verdict(run),
    ]
    ways = list(dict.fromkeys(series.way for series in run.series))
    for condition in run.conditions:
        several = run.under(condition)
        parts += [f"<h2>{text(condition)}</h2>", _figures(run, several), histogram(several, ways, run.limit)]
    if run.trace is not None:
        parts += _trace(run.trace)
    refused = [f'<p class="bad">without {text(one)}</p>' for one in tuning.missing(run.tuning)]
    parts += ["<h2>The box, its tuning, and the settings</h2>", *refused, _facts(run)]
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{text(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _verdict(run: Run) -> list[str]:
    lines = [f'<p class="bad">VOID: {text(reason)}</p>' for reason in run.void]
    if run.interrupted:
        lines.append("<p>Interrupted: what follows was measured until then.</p>")
    if run.limit is not None:
        limit = table.microseconds(run.limit)
        lines += [f'<p class="bad">{text(line)}</p>' for line in table.beyond(run)]
        if not run.beyond:
            lines.append(f"<p>No sample is beyond {limit} us.</p>")
    return lines


def _row(cells: Iterable[object], kind: str = "td", attributes: str = "") -> str:
    return f"<tr{attributes}>" + "".join(f"<{kind}>{text(cell)}</{kind}>" for cell in cells) + "</tr>"


def _figures(run: Run, several: Sequence[Series]) -> str:
    rows = [_row(["us", *FIGURES, "samples", f"p99/{REFERENCE}"], "th")]
    for series in several:
        cells = [series.way, *table.figures(series), f"{series.count:,}", table.ratio(run.ratio(series, "p99"))]
        bad = series.void or series.name in run.beyond
        rows.append(_row(cells, attributes=' class="bad"' if bad else ""))
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _facts(run: Run) -> str:
    rows = "\n".join(_row(pair) for pair in facts(run).items())
    return f'<table class="facts">\n{rows}\n</table>'


def _trace(trace: dict[str, Any]) -> list[str]:
    lines = table.cause(trace)
    shown = "\n".join(text(line) for line in trace["lines"]) or "the trace has no line of that time"
    return [
        "<h2>The first sample beyond the limit</h2>",
        *(f"<p>{text(line)}</p>" for line in lines),
        f"<details><summary>the kernel's trace, in us from the event on</summary><pre>{shown}</pre></details>",
    ]


def histogram(several: Sequence[Series], ways: Sequence[str], limit: int | None) -> str:
    """Return a picture in SVG: how many samples of each series have which latency; both axes are logarithmic.

    Args:
        several: the series.
        ways: all ways of the run, which have a colour each.
        limit: in ns, drawn as a line; None for none.
    """
    bars = [(series, _bars(series)) for series in several if series.count]
    if not bars:
        return '<p class="dim">no samples</p>'
    edges = [edge for _, one in bars for edge in one]
    marks = [] if limit is None else [math.log10(limit / 1000)]
    low = math.floor(min([min(edges) / _PER_DECADE, *marks]))
    high = math.ceil(max([(max(edges) + 1) / _PER_DECADE, *marks]) + 1e-9)
    most = max(count for _, one in bars for count in one.values())
    top = math.log10(most) + 0.3

    def across(decades: float) -> float:
        return _LEFT + (decades - low) / max(high - low, 1) * (_WIDTH - _LEFT)

    def up(count: float) -> float:  # 0 and 1 must differ
        return _HEIGHT - _BOTTOM - (math.log10(count) + 0.3) / (top + 0.3) * (_HEIGHT - _BOTTOM - 10) if count else base

    base = _HEIGHT - _BOTTOM
    described = ", ".join(series.way for series, _ in bars)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 18 * len(bars)}" role="img">',
        f"<title>{text(f'samples by latency: {described}')}</title>",
    ]
    for decade in range(low, high + 1):
        x = f"{across(decade):.1f}"
        parts.append(f'<line x1="{x}" x2="{x}" y1="10" y2="{base}" stroke="#ddd"/>')
        anchor = "end" if decade == high else "middle"
        parts.append(f'<text x="{x}" y="{base + 16}" text-anchor="{anchor}">{10.0**decade:,g} us</text>')
    for decade in range(int(top) + 1):
        height = f"{up(10**decade):.1f}"
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{height}" y2="{height}" stroke="#eee"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{height}" dy="4" text-anchor="end">{10**decade:,}</text>')
    for number, (series, one) in enumerate(bars):
        colour = COLOURS[ways.index(series.way) % len(COLOURS)]
        points = [f"{across(min(one) / _PER_DECADE):.1f},{base}"]
        for edge in range(min(one), max(one) + 1):
            y = up(one.get(edge, 0))
            points += [f"{across(at / _PER_DECADE):.1f},{y:.1f}" for at in (edge, edge + 1)]
        points.append(f"{across((max(one) + 1) / _PER_DECADE):.1f},{base}")
        parts.append(
            f'<polygon points="{" ".join(points)}" fill="{colour}" fill-opacity=".15" stroke="{colour}" '
            'stroke-width="1.5"/>'
        )
        y = _HEIGHT + 18 * number
        parts.append(f'<rect x="{_LEFT}" y="{y}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + 18}" y="{y + 11}">{text(series.way)}, {series.count:,} samples</text>')
    for mark in marks:
        x = f"{across(mark):.1f}"
        parts.append(f'<line x1="{x}" x2="{x}" y1="10" y2="{base}" stroke="#b00000" stroke-dasharray="5 3"/>')
    return "\n".join([*parts, "</svg>"])


def _bars(series: Series) -> dict[int, int]:
    """Return how many samples are in each bar; bar N begins at 10 to the power of N / `_PER_DECADE` us."""
    bars: dict[int, int] = {}
    for nanoseconds, count in series.steps():
        place = math.floor(math.log10(max(nanoseconds, 1) / 1000) * _PER_DECADE)
        bars[place] = bars.get(place, 0) + count
    return bars
