# SPDX-License-Identifier: MIT
"""A picture of the distributions: latency over percentile, one panel per load, one line per way."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from pyuio.latency import environment
from pyuio.latency.errors import PlotUnavailableError
from pyuio.latency.results import Run, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    if not available():
        raise PlotUnavailableError(MISSING)
    # A file needs neither a display nor pyplot's global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    conditions = [condition for condition in run.conditions if any(series.count for series in run.under(condition))]
    ways = list(dict.fromkeys(series.way for series in run.series))
    columns = min(3, max(1, len(conditions)))
    rows = -(-max(1, len(conditions)) // columns)
    figure = Figure(figsize=(max(7.0, 4.6 * columns), 4.6 * rows + 1.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    furthest = max([series.count for series in run.series] + [10])
    for axis, condition in zip(axes, conditions, strict=False):
        _panel(axis, condition, run.under(condition), ways, furthest)
    for axis in axes[len(conditions) :]:
        axis.set_visible(False)
    for index, axis in enumerate(axes):
        if index % columns == 0:
            axis.set_ylabel("latency, us")
        if index + columns >= len(conditions):
            axis.set_xlabel("percentile")
            axis.tick_params(labelbottom=True)
    figure.suptitle(_title(run), fontsize=11, color="#B00000" if run.void else "black")
    if not conditions:
        axes[0].set_title("no samples")
    figure.savefig(path, format="png", dpi=_DOTS_PER_INCH)


def _panel(axis: Axes, condition: str, several: list[Series], ways: list[str], furthest: int) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    for series in several:
        if not series.count:
            continue
        index = ways.index(series.way)
        label = f"{series.way} (n = {series.count:,})" + (" VOID" if series.void else "")
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
    axis.set_title(condition, fontsize=10)
    # Below the panel, where it hides no line.
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False)


def _title(run: Run) -> str:
    parts = [f"pyuio bench {run.kind}" + (f", {run.device}" if run.device else ""), environment.title(run.environment)]
    if run.void:
        parts.insert(0, "VOID: " + "; ".join(run.void)[:150])
    if run.interrupted:
        parts.append("interrupted before its end")
    return "\n".join(parts)
