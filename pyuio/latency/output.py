# SPDX-License-Identifier: MIT
"""The files of a run, written as it goes on, so that a long run that ends early loses nothing.

`KIND.json` is the whole run. `KIND.hlog` has each round of each series as a line of an HdrHistogram log, under a tag.
At the end come `KIND-SERIES.hgrm`, the percentile distributions in the format of HdrHistogram's plotter, and
`KIND.png`.
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

from pyuio.kernel.trusted_directory import open_directory
from pyuio.kernel.trusted_file import write_in_place
from pyuio.latency import plot
from pyuio.latency.errors import OutputDirectoryError, ResultExistsError
from pyuio.latency.histogram import HdrHistogram, HistogramLogWriter
from pyuio.latency.results import Run, Series

_MICROSECOND = 1000  # ns
_MILLISECOND = 1_000_000
_TICKS = 5  # lines of a distribution each time that the rest to 100 % is halved; the library's default


class Output:
    """The files of one run in a directory.

    Opening it makes the directory and checks that it can be written to, before anything is measured.

    Args:
        directory: the directory; made if it does not exist.
        kind: the kind of the run, after which the files are named.
        overwrite: replace the results of an earlier run of this kind.

    Raises:
        ResultExistsError: the directory has results of this kind, and `overwrite` is not set.
        OutputDirectoryError: the directory cannot be made or written to.
    """

    def __init__(self, directory: Path, kind: str, *, overwrite: bool = False) -> None:
        self.directory = directory
        self.kind = kind
        self._start = time.time()
        self._files = contextlib.ExitStack()
        # Whatever comes in the place of the directory later, the files go to the one that is there now.
        self._place = directory
        try:
            self._open(overwrite=overwrite)
        except ResultExistsError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise self._failed(error) from error

    def _open(self, *, overwrite: bool) -> None:
        held = open_directory(self.directory, make=True)
        self._files.callback(os.close, held)
        self._place = Path(f"/proc/self/fd/{held}")
        there = self._earlier()
        if there and not overwrite:
            reason = f"{self.directory / there[0].name} is there already"
            raise ResultExistsError(errno.EEXIST, f"{reason}; name another directory, or add --overwrite to replace it")
        log = self._place / f"{self.kind}.hlog"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        os.close(os.open(log, flags, 0o666))
        for path in {*there, log}:
            path.unlink(missing_ok=True)
        # The file is made anew: no link leads root to another.
        self._log = self._files.enter_context(log.open("x", encoding="ascii"))
        self._write_head()

    def _earlier(self) -> list[Path]:
        names = [f"{self.kind}.json", f"{self.kind}.hlog", f"{self.kind}.png", f"{self.kind}-*.hgrm"]
        return [path for name in names for path in sorted(self._place.glob(name))]

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_head(self) -> None:
        # Neither the library's reader nor HdrHistogram's accepts the library's own lines of the start and base time.
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
            series: the series of the round.
            histogram: the result of `Series.record`.
            began: `time.time()` when the round began.
            ended: `time.time()` when it ended.

        Raises:
            OutputDirectoryError: the disk is full, or gone.
        """
        # The clock may be set meanwhile, but no line of a log may have a start before the log's own.
        self._log.write(f"Tag={tag(series)},")
        try:
            HistogramLogWriter(self._log).output_interval_histogram(
                histogram, max(began - self._start, 1e-6), max(ended - self._start, 1e-6), _MILLISECOND
            )
            self._log.flush()
        except OSError as error:
            raise self._failed(error) from error

    def save(self, run: Run) -> None:
        """Write the run as it is now to the JSON file, in full and in one step, and flush the log to the disk.

        Raises:
            OutputDirectoryError: the file cannot be written; the earlier one is still there.
        """
        try:
            os.fsync(self._log.fileno())
            run.save(self._place / f"{self.kind}.json")
        except OSError as error:
            raise self._failed(error) from error

    def finish(self, run: Run, *, picture: bool = True) -> list[Path]:
        """Write everything, also the distributions and the picture, and return the files.

        Without matplotlib there is no picture: see `plot.available`.

        Raises:
            OutputDirectoryError: something cannot be written.
        """
        self.save(run)
        names = [f"{self.kind}.json", f"{self.kind}.hlog"]
        measured = [series for series in run.series if series.count]
        try:
            for series in measured:
                names.append(f"{self.kind}-{tag(series)}.hgrm")
                write_in_place(self._place / names[-1], distribution(series))
            if picture and measured and plot.available():
                names.append(f"{self.kind}.png")
                plot.draw(run, self._place / names[-1])
        except OSError as error:
            raise self._failed(error) from error
        return [self.directory / name for name in names]

    def close(self) -> None:
        """Close the log and the directory."""
        with contextlib.suppress(OSError):
            self._files.close()

    def _failed(self, error: OSError) -> OutputDirectoryError:
        name = str(error.filename or "").replace(str(self._place), str(self.directory))
        where = f" ({name})" if name and name != str(self.directory) else ""
        return OutputDirectoryError(
            error.errno,
            f"{self.directory}: results cannot be written there: {error.strerror or error}{where}; "
            "name another directory with --out, or make room and grant access",
        )


def distribution(series: Series) -> str:
    """Return a series in HdrHistogram's ``.hgrm`` format, which its plotter reads: percentiles, with values in us.

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
    """Return a series' name for a log and a file, without commas, spaces and slashes."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", series.name).strip("-.") or "series"
