# SPDX-License-Identifier: MIT
"""A picture of the distributions: latency over percentile, one panel per load, one line per way."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pyuio.kernel.trusted_file import write_in_place
from pyuio.latency import environment
from pyuio.latency.errors import PlotUnavailableError
from pyuio.latency.results import Run, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pyuio.latency.comparison import Comparison

MISSING = "drawing needs matplotlib: pip install matplotlib"

_TICKS = (0, 50, 90, 99, 99.9, 99.99, 99.999, 99.9999)
# People who see no red and green can tell these colours apart, too (Okabe and Ito's); and the dashes differ.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1)), "dashdot")
_DOTS_PER_INCH = 110


def available() -> bool:
    """Return whether matplotlib, which draws, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def points(series: Series) -> tuple[list[float], list[float]]:
    """Return the line of a series: 1 / (1 - the part of the samples up to a value), and that value in us."""
    above_by: list[float] = []
    microseconds: list[float] = []
    total = series.count
    seen = 0
    for nanoseconds, count in series.steps():
        # A step begins where the values before it end; the last sample's own end is at infinity.
        above_by.append(total / (total - seen))
        microseconds.append(nanoseconds / 1000)
        seen += count
        above_by.append(total / max(total - seen, 0.5))
        microseconds.append(nanoseconds / 1000)
    return above_by, microseconds


def draw(run: Run, path: Path) -> None:
    """Draw a run into a PNG file.

    Raises:
        PlotUnavailableError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    ways = list(dict.fromkeys(series.way for series in run.series))
    panels = {
        condition: [(series.way, ways.index(series.way), series) for series in run.under(condition)]
        for condition in run.conditions
    }
    write_in_place(path, _drawn(panels, _title(run), void=bool(run.void)))


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Draw runs side by side into a PNG file: a panel for each way under each load, in it a line for each run.

    Errors are those of `draw`.
    """
    panels = {
        f"{way}, {condition}": [
            (entry.letter, number, series)
            for number, (entry, series) in enumerate(zip(comparison.entries, several, strict=True))
            if series is not None
        ]
        for condition, way, several in comparison.series()
    }
    title = f"pyuio bench compare, {len(comparison.entries)} results of {comparison.entries[0].run.kind}"
    path.write_bytes(_drawn(panels, title, void=any(entry.run.void for entry in comparison.entries)))


_Panel: TypeAlias = "list[tuple[str, int, Series]]"  # what each line is called, the number of its style, and its series


def _drawn(all_panels: dict[str, _Panel], title: str, *, void: bool) -> bytes:
    """Return a picture as PNG."""
    if not available():
        raise PlotUnavailableError(MISSING)
    # A file needs neither a display nor pyplot's global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {name: lines for name, lines in all_panels.items() if any(series.count for _, _, series in lines)}
    columns = min(3, max(1, len(panels)))
    rows = -(-max(1, len(panels)) // columns)
    figure = Figure(figsize=(max(7.0, 4.6 * columns), 4.6 * rows + 1.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    furthest = max([series.count for lines in panels.values() for _, _, series in lines] + [10])
    for axis, (name, lines) in zip(axes, panels.items(), strict=False):
        _panel(axis, name, lines, furthest)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    for index, axis in enumerate(axes):
        if index % columns == 0:
            axis.set_ylabel("latency, us")
        if index + columns >= len(panels):
            axis.set_xlabel("percentile")
            axis.tick_params(labelbottom=True)
    figure.suptitle(title, fontsize=11, color="#B00000" if void else "black")
    if not panels:
        axes[0].set_title("no samples")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH)
    return picture.getvalue()


def _panel(axis: Axes, name: str, lines: _Panel, furthest: int) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    for called, index, series in lines:
        if not series.count:
            continue
        label = f"{called} (n = {series.count:,})" + (" VOID" if series.void else "")
        colour, dashes = COLOURS[index % len(COLOURS)], _DASHES[index % len(_DASHES)]
        axis.plot(*points(series), color=colour, linestyle=dashes, linewidth=1.6, label=label)
    ticks = [tick for tick in _TICKS if 100 / (100 - tick) <= furthest * 2]
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(1, furthest * 2)
    axis.set_xticks([100 / (100 - tick) for tick in ticks], [f"{tick:g} %" for tick in ticks], rotation=30)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.grid(True, which="major", color="#cccccc", linewidth=0.8)
    axis.grid(True, which="minor", axis="y", color="#eeeeee", linewidth=0.5)
    axis.set_title(name, fontsize=10)
    # Below the panel, where it hides no line.
    columns = -(-len(lines) // 6)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False, ncols=columns)


def _title(run: Run) -> str:
    parts = [f"pyuio bench {run.kind}" + (f", {run.device}" if run.device else ""), environment.title(run.environment)]
    if run.void:
        parts.insert(0, "VOID: " + "; ".join(run.void)[:150])
    if run.interrupted:
        parts.append("interrupted before its end")
    return "\n".join(parts)
