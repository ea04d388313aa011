# SPDX-License-Identifier: MIT
"""The files of a run, written as it goes on, so that nothing is lost of a long one that ends before its time.

`KIND.json` is the whole run; `KIND.hlog` has each round of each series as a line of an HdrHistogram log, under a tag;
at the end come `KIND-SERIES.hgrm`, the percentile distributions as HdrHistogram's plotter takes them, and `KIND.png`.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import math
import os
import re
import time
from pathlib import Path
from types import TracebackType

from pyuio.latency import plot
from pyuio.latency.errors import OutputDirectoryError, ResultExistsError
from pyuio.latency.histogram import HdrHistogram, HistogramLogWriter
from pyuio.latency.results import Run, Series

_MICROSECOND = 1000  # ns
_MILLISECOND = 1_000_000
_TICKS = 5  # lines of a distribution for each halving of what is left to 100 %, as the library's default is


class Output:
    """The files of one run in a directory.

    Opening it, before anything is measured, makes the directory, and finds out whether it can be written to.

    Args:
        directory: where to; made if it is not there.
        kind: the run's, which the files are named after.
        overwrite: replace the results of an earlier run of this kind.

    Raises:
        ResultExistsError: results of this kind are there, and `overwrite` is not set.
        OutputDirectoryError: it cannot be made or written to.
    """

    def __init__(self, directory: Path, kind: str, *, overwrite: bool = False) -> None:
        self.directory = directory
        self.kind = kind
        self.json = directory / f"{kind}.json"
        self.written: list[Path] = []
        self._start = time.time()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            there = self._earlier()
            if there and not overwrite:
                raise ResultExistsError(
                    errno.EEXIST,
                    f"{there[0]} is there already; name another directory, or add --overwrite to replace it",
                )
            self._log = (directory / f"{kind}.hlog").open("a", encoding="ascii")
        except ResultExistsError:
            raise
        except OSError as error:
            raise _failed(directory, error) from error
        try:
            for path in there:
                path.unlink(missing_ok=True)
            # Removed or not, the log that is open must be the one that the directory has.
            self._log.close()
            self._log = (directory / f"{kind}.hlog").open("w", encoding="ascii")
            self._write_head()
        except OSError as error:
            self.close()
            raise _failed(directory, error) from error

    def _earlier(self) -> list[Path]:
        names = [f"{self.kind}.json", f"{self.kind}.hlog", f"{self.kind}.png", f"{self.kind}-*.hgrm"]
        return [path for name in names for path in sorted(self.directory.glob(name))]

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_head(self) -> None:
        # The library's own lines of the start and base time are not what its reader, or HdrHistogram's, takes.
        start = datetime.datetime.fromtimestamp(self._start, datetime.timezone.utc)
        writer = HistogramLogWriter(self._log)
        writer.output_comment(f"[pyuio bench {self.kind}: latency in ns, one line per round and series]")
        writer.output_log_format_version()
        writer.output_comment(f"[StartTime: {self._start:.3f} (seconds since epoch), {start:%Y-%m-%dT%H:%M:%SZ}]")
        writer.output_comment(f"[BaseTime: {self._start:.3f} (seconds since epoch)]")
        writer.output_legend()
        self._log.flush()

    def add_round(self, series: Series, histogram: HdrHistogram, began: float, ended: float) -> None:
        """Append one round of a series to the log.

        Args:
            series: the one it belongs to.
            histogram: what `Series.record` returned.
            began: `time.time()` when the round began.
            ended: and when it ended.

        Raises:
            OutputDirectoryError: the disk is full, or gone.
        """
        # No line of a log has a start before the log's own, should the clock be set meanwhile.
        self._log.write(f"Tag={tag(series)},")
        try:
            HistogramLogWriter(self._log).output_interval_histogram(
                histogram, max(began - self._start, 1e-6), max(ended - self._start, 1e-6), _MILLISECOND
            )
            self._log.flush()
        except OSError as error:
            raise _failed(self.directory, error) from error

    def save(self, run: Run) -> None:
        """Write the run as it is by now: JSON, in full, at once; and see to it that the log is on the disk.

        Raises:
            OutputDirectoryError: it cannot be written; the earlier one is still there.
        """
        try:
            os.fsync(self._log.fileno())
            run.save(self.json)
        except OSError as error:
            raise _failed(self.directory, error) from error

    def finish(self, run: Run, *, picture: bool = True) -> list[Path]:
        """Write everything, the distributions and the picture too; return the files.

        Without matplotlib there is no picture: see `plot.available`.

        Raises:
            OutputDirectoryError: something cannot be written.
        """
        self.save(run)
        files = [self.json, Path(self._log.name)]
        measured = [series for series in run.series if series.count]
        try:
            for series in measured:
                path = self.directory / f"{self.kind}-{tag(series)}.hgrm"
                path.write_text(distribution(series), encoding="ascii")
                files.append(path)
            if picture and measured and plot.available():
                path = self.directory / f"{self.kind}.png"
                plot.draw(run, path)
                files.append(path)
        except OSError as error:
            raise _failed(self.directory, error) from error
        return files

    def close(self) -> None:
        """Close the log."""
        with contextlib.suppress(OSError):
            self._log.close()


def distribution(series: Series) -> str:
    """Return a series as HdrHistogram's ``.hgrm`` has it: percentiles, in us, as its plotter takes them.

    The library's own writer leaves the standard deviation in ns, and takes a second for each series.
    """
    histogram, total = series.histogram, series.count
    steps = [(nanoseconds / _MICROSECOND, count) for nanoseconds, count in series.steps()]
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    level, seen = 0.0, 0
    for value, count in steps:
        seen += count
        while seen / total >= level:
            lines.append(f"{value:12.3f} {level:2.12f} {seen:10d} {1 / (1 - level):14.2f}")
            level += (1 - level) / (2 * _TICKS)
            if seen == total:
                break
    lines.append(f"{steps[-1][0]:12.3f} {1:2.12f} {total:10d}")
    mean = math.fsum(value * count for value, count in steps) / total
    deviation = math.sqrt(math.fsum((value - mean) ** 2 * count for value, count in steps) / total)
    largest = histogram.get_max_value() / _MICROSECOND
    lines += [
        f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]",
        f"#[Max     = {largest:12.3f}, TotalCount     = {total:12d}]",
        f"#[Buckets = {histogram.bucket_count:12d}, SubBuckets     = {histogram.sub_bucket_count:12d}]",
    ]
    return "\n".join(lines) + "\n"


def tag(series: Series) -> str:
    """Return a series' name for a log and a file: no comma, no space, no slash."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", series.name).strip("-.") or "series"


def _failed(directory: Path, error: OSError) -> OutputDirectoryError:
    where = f" ({error.filename})" if error.filename and str(error.filename) != str(directory) else ""
    return OutputDirectoryError(
        error.errno,
        f"{directory}: results cannot be written there: {error.strerror or error}{where}; "
        "name another directory with --out, or make room and grant access",
    )
