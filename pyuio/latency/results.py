# SPDX-License-Identifier: MIT
"""The result of a measurement, and its file: a `Run` of several `Series`, each of one way under one load.

Times are in nanoseconds in this module and in the files; tables and pictures show microseconds.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyuio.latency.errors import ResultFileError
from pyuio.latency.histogram import (
    HdrCookieException,
    HdrHistogram,
    HdrHistogramSettingsException,
    HdrLengthException,
)

FORMAT = "pyuio bench"
VERSION = 1
KINDS = ("latency", "timer", "rate")

REFERENCE = "C"  # the way that the others are compared with
TRIGGER_TAKES = "trigger() takes, us"  # a setting: the part of each latency in which the driver raises the interrupt

LOWEST, HIGHEST, DIGITS = 1, 100_000_000_000, 3  # of a histogram: 1 ns to 100 s, to 0.1 %

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "p99.99": 99.99}
FIGURES = ("min", *PERCENTILES, "max")
# Chance decides a percentile with fewer samples than this above it; it is marked.
ENOUGH = 10


def new_histogram() -> HdrHistogram:
    """Return an empty histogram; all histograms of a run have the same size."""
    return HdrHistogram(LOWEST, HIGHEST, DIGITS)


@dataclass
class Series:
    """The samples of one way under one load, and on one CPU if several are measured."""

    way: str
    load: str
    cpu: int | None = None
    histogram: HdrHistogram = field(default_factory=new_histogram)
    lost: int = 0  # expected events without a sample
    impossible: int = 0  # samples below 0 or above HIGHEST
    warm_up: int = 0  # samples left out at the start of each round
    late: int = 0  # samples of events that came before anyone waited for them
    seconds: float = 0.0  # the time that the samples took, without the warm-up
    reasons: list[str] = field(default_factory=list)  # further reasons why it is void
    _figures: tuple[int, dict[str, int | None]] = field(default=(-1, {}), init=False, repr=False, compare=False)

    @property
    def count(self) -> int:
        """The samples in the histogram."""
        return int(self.histogram.get_total_count())

    @property
    def rate(self) -> float | None:
        """Samples per second; None if no time was noted."""
        return self.count / self.seconds if self.seconds else None

    @property
    def name(self) -> str:
        """Way, load and CPU: "C, idle" or "C, idle, CPU 1"."""
        return ", ".join([self.way, self.condition])

    @property
    def condition(self) -> str:
        """The load, and the CPU if any. Series with the same condition can be compared."""
        return self.load if self.cpu is None else f"{self.load}, CPU {self.cpu}"

    def record(self, nanoseconds: Iterable[int]) -> HdrHistogram:
        """Add one round's samples; return a histogram of that round alone, for the log.

        A sample below 0 or above `HIGHEST` is impossible: it is counted in `impossible`, and makes the series void.
        """
        of_round = new_histogram()
        for value in nanoseconds:
            if not of_round.record_value(value):
                self.impossible += 1
        if of_round.get_total_count():  # the library takes 0 for the least value of an empty one
            self.histogram.add(of_round)
        return of_round

    def figures(self) -> dict[str, int | None]:
        """Return each of `FIGURES` in ns, or None if there are too few samples for it to mean anything."""
        # Callers ask again and again, and the library needs some ms to go through a histogram.
        if self._figures[0] != self.count:
            self._figures = self.count, self._find_figures()
        return dict(self._figures[1])

    def _find_figures(self) -> dict[str, int | None]:
        if not self.count:
            return dict.fromkeys(FIGURES)
        values = self.histogram.get_percentile_to_value_dict(list(PERCENTILES.values()))
        of_percentiles = {
            name: int(values[percentile]) if self._above(percentile) >= 1 else None
            for name, percentile in PERCENTILES.items()
        }
        least, most = int(self.histogram.get_min_value()), int(self.histogram.get_max_value())
        return {"min": least, **of_percentiles, "max": most}

    @property
    def worst(self) -> int:
        """The largest sample in ns, rounded down to the histogram's digits; 0 if there is none."""
        histogram = self.histogram
        return int(histogram.get_lowest_equivalent_value(histogram.get_max_value())) if self.count else 0

    def steps(self) -> list[tuple[int, int]]:
        """Return each value in ns that has samples, ascending, and the number of its samples.

        The library's iterators stop at each of the 28,000 counters, which takes 1000 times as long.
        """
        histogram = self.histogram
        return [
            (int(histogram.get_highest_equivalent_value(histogram.get_value_from_index(index))), count)
            for index, count in enumerate(histogram.counts)
            if count
        ]

    def doubtful(self) -> list[str]:
        """Return the names of those percentiles that rest on fewer than `ENOUGH` samples above them."""
        return [name for name, percentile in PERCENTILES.items() if 1 <= self._above(percentile) < ENOUGH]

    def _above(self, percentile: float) -> float:
        return round(self.count * (100 - percentile) / 100, 6)

    @property
    def void(self) -> list[str]:
        """Why the figures must not be used; [] when they may."""
        reasons = list(self.reasons)
        if self.lost:
            reasons.insert(0, f"{self.lost} of {self.count + self.lost + self.impossible} samples lost")
        if self.impossible:
            reasons.insert(0, f"{self.impossible} samples impossible (below 0, or above {HIGHEST // 10**9} s)")
        return reasons

    def as_dict(self) -> dict[str, Any]:
        """Return everything for JSON; the histogram in HdrHistogram's own encoding (V2, compressed, base64)."""
        return {
            "way": self.way,
            "load": self.load,
            "cpu": self.cpu,
            "count": self.count,
            "lost": self.lost,
            "impossible": self.impossible,
            "warm_up": self.warm_up,
            "late": self.late,
            "seconds": self.seconds,
            "rate": self.rate,
            "reasons": self.reasons,
            "void": self.void,
            "figures": self.figures(),
            "doubtful": self.doubtful(),
            "histogram": self.histogram.encode().decode("ascii"),
        }


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


@dataclass
class Run:
    """One measurement: several series, and everything needed to compare it with another, from another box."""

    kind: str  # one of KINDS
    device: str | None = None  # the device that was measured; None if no device takes part
    environment: dict[str, Any] = field(default_factory=dict)  # `environment.read()`
    tuning: dict[str, Any] = field(default_factory=dict)  # real-time settings, by `tuning.of`
    settings: dict[str, Any] = field(default_factory=dict)  # interval, rounds, duration, count, ...
    series: list[Series] = field(default_factory=list)
    interrupted: bool = False  # it ended early, with fewer samples; these are valid
    when: str = field(default_factory=_now)  # the time of its start, ISO 8601, UTC
    limit: int | None = None  # ns that no sample may exceed
    trace: dict[str, Any] | None = None  # of the first sample beyond the limit, by `trace.kept`

    def add(self, way: str, load: str, cpu: int | None = None) -> Series:
        """Add an empty series, and return it."""
        self.series.append(Series(way, load, cpu))
        return self.series[-1]

    @property
    def conditions(self) -> list[str]:
        """Each load (and CPU) that has series, in order."""
        return list(dict.fromkeys(series.condition for series in self.series))

    def under(self, condition: str) -> list[Series]:
        """Return the series with this load (and CPU), which can be compared with each other."""
        return [series for series in self.series if series.condition == condition]

    def ratio(self, series: Series, figure: str) -> float | None:
        """Return a figure as a multiple of C's figure under the same load; None if one of the two is missing."""
        reference = [other for other in self.under(series.condition) if other.way == REFERENCE]
        if not reference:
            return None
        mine, theirs = series.figures()[figure], reference[0].figures()[figure]
        return mine / theirs if mine is not None and theirs else None

    @property
    def void(self) -> list[str]:
        """Why the run is void, each with the series; [] when it is not."""
        return [f"{series.name}: {reason}" for series in self.series for reason in series.void]

    @property
    def beyond(self) -> list[str]:
        """The names of the series with a sample beyond the limit, to the digits of a histogram; and the traced one."""
        if self.limit is None:
            return []
        traced = self.trace["series"] if self.trace else None
        return [series.name for series in self.series if series.worst > self.limit or series.name == traced]

    def as_dict(self) -> dict[str, Any]:
        """Return everything for JSON; figures, ratios and reasons are there for other programs to read."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind,
            "when": self.when,
            "interrupted": self.interrupted,
            "void": self.void,
            "limit": self.limit,
            "beyond": self.beyond,
            "device": self.device,
            "environment": self.environment,
            "tuning": self.tuning,
            "settings": self.settings,
            "unit": "ns",
            "series": [
                {**series.as_dict(), f"ratio to {REFERENCE}": {name: self.ratio(series, name) for name in FIGURES}}
                for series in self.series
            ],
            "trace": self.trace,
        }

    def save(self, path: Path) -> None:
        """Write the run to a JSON file. At every moment the file is complete: the earlier one, or the new one.

        Raises:
            OSError: it cannot be written.
        """
        text = json.dumps(self.as_dict(), indent=1) + "\n"
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)  # so that the new name is on the disk, too
        finally:
            os.close(directory)

    @classmethod
    def load(cls, path: Path) -> Run:
        """Return the run that a file holds.

        Raises:
            ResultFileError: the file cannot be read, is damaged, or is not a result of this version.
        """
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ResultFileError(f"{path}: cannot be read: {error.strerror or error}") from error
        try:
            return run_of(text)
        except ResultFileError as error:
            raise ResultFileError(f"{path}: {error}") from error


# -- reading a file, which may be damaged, cut off, or something else altogether --

MEASURE_AGAIN = "measure again, or take the file from a backup"

_MOST = (1 << 63) - 1  # a histogram's counters
# The library's decoder, in C, trusts its input, so it must not get more than this version writes.
_LONGEST = 9 * new_histogram().counts_len + 40

_UNDECODABLE = (
    ArithmeticError,
    HdrCookieException,
    HdrHistogramSettingsException,
    HdrLengthException,
    IndexError,
    TypeError,
    ValueError,
    zlib.error,
)


class _Damaged(ValueError):
    pass


def run_of(text: bytes) -> Run:
    """Return the run in the text of a result file.

    Raises:
        ResultFileError: it is damaged, or not a result of this version; the message does not name the file.
    """
    try:
        data = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        what = "is empty" if not text.strip() else f"is not JSON ({error}): damaged, cut off, or another kind of file"
        raise ResultFileError(f"{what}; {MEASURE_AGAIN}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ResultFileError('is JSON, but no result of "pyuio bench"; name the .json file that --out made')
    if data.get("version") != VERSION or isinstance(data["version"], bool):
        raise ResultFileError(
            f"is a result of format version {data.get('version')!r:.40}, and this pyuio reads version {VERSION}; "
            "use the pyuio that made it, or measure again"
        )
    try:
        return _run(data)
    except _Damaged as error:
        raise ResultFileError(f"is damaged: {error}; {MEASURE_AGAIN}") from error


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _item(data: dict[str, Any], name: str, *kinds: type) -> Any:
    """Return an item of one of these types; a bool does not count as an int."""
    if name not in data:
        raise _Damaged(f'"{name}" is missing')
    value = data[name]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise _Damaged(f'"{name}" is {value!r:.40}')
    return value


def _counter(data: dict[str, Any], name: str) -> int:
    value = _item(data, name, int)
    if not 0 <= value <= _MOST:
        raise _Damaged(f'"{name}" is {value!r:.40}')
    return int(value)


def _run(data: dict[str, Any]) -> Run:
    kind = _item(data, "kind", str)
    if kind not in KINDS:
        raise _Damaged(f'"kind" is {kind!r:.40}, which is none of {", ".join(KINDS)}')
    run = Run(
        kind,
        _item(data, "device", str, type(None)),
        _item(data, "environment", dict),
        _item(data, "tuning", dict),
        _item(data, "settings", dict),
        [_series(one) for one in _item(data, "series", list)],
        _item(data, "interrupted", bool),
        _item(data, "when", str),
        _limit(data),
        _trace(data),
    )
    names = [series.name for series in run.series]
    if len(set(names)) != len(names):
        raise _Damaged("it has the same series twice")
    # The file has `void` for other programs, although it follows from the series. If it differs, one of the two was
    # changed.
    if data.get("void") != run.void:
        raise _Damaged('"void" is not what its series say')
    if data.get("beyond", run.beyond) != run.beyond:
        raise _Damaged('"beyond" is not what its series say')
    return run


def _limit(data: dict[str, Any]) -> int | None:
    limit: int | None = _item({"limit": None, **data}, "limit", int, type(None))
    if limit is not None and not 0 < limit <= HIGHEST:
        raise _Damaged(f'"limit" is {limit!r:.40}')
    return limit


def _trace(data: dict[str, Any]) -> dict[str, Any] | None:
    """Return the trace, which results of earlier versions do not have."""
    trace: dict[str, Any] | None = _item({"trace": None, **data}, "trace", dict, type(None))
    if trace is not None:
        _item(trace, "series", str), _item(trace, "complete", bool)
        _counter(trace, "cpu"), _counter(trace, "latency")
        lines, ran = _item(trace, "lines", list), _item(trace, "ran", dict)
        if not all(isinstance(line, str) for line in lines):
            raise _Damaged('"trace" has lines that are no text')
        for name in ran:
            _counter(ran, name)
    return trace


def _series(data: Any) -> Series:
    if not isinstance(data, dict):
        raise _Damaged(f"a series is {data!r:.40}")
    seconds = _item(data, "seconds", int, float)
    if not 0 <= seconds <= _MOST:
        raise _Damaged(f'"seconds" is {seconds!r:.40}')
    reasons = _item(data, "reasons", list)
    if not all(isinstance(reason, str) for reason in reasons):
        raise _Damaged('"reasons" are not all text')
    series = Series(
        _item(data, "way", str),
        _item(data, "load", str),
        None if _item(data, "cpu", int, type(None)) is None else _counter(data, "cpu"),
        _histogram(_item(data, "histogram", str)),
        _counter(data, "lost"),
        _counter(data, "impossible"),
        _counter(data, "warm_up"),
        _counter(data, "late"),
        seconds,
        reasons,
    )
    if _counter(data, "count") != series.count or data.get("figures") != series.figures():
        raise _Damaged(f"count or figures of {series.name!r:.80} are not what its histogram says")
    return series


def _histogram(text: str) -> HdrHistogram:
    try:
        packed = base64.b64decode(text, validate=True)
        unpacked = zlib.decompressobj().decompress(packed[8:], _LONGEST + 1)
        if len(unpacked) > _LONGEST:
            raise _Damaged("a histogram is longer than any that this version writes")
        histogram = HdrHistogram.decode(text)
    except _UNDECODABLE as error:
        raise _Damaged(f"a histogram cannot be decoded ({error or type(error).__name__})") from error
    size = histogram.lowest_trackable_value, histogram.highest_trackable_value, histogram.significant_figures
    if size != (LOWEST, HIGHEST, DIGITS):
        raise _Damaged("a histogram has another size than those of this version")
    if not 0 <= histogram.get_total_count() <= _MOST:
        raise _Damaged("a histogram has impossible counts")
    return histogram
