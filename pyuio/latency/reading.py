# SPDX-License-Identifier: MIT
"""Reading a result file, which may be damaged, cut off, or something else altogether."""

from __future__ import annotations

import base64
import json
import math
import zlib
from typing import Any

from hdrh.codec import HdrCookieException, HdrHistogramSettingsException, HdrLengthException
from hdrh.histogram import HdrHistogram

from pyuio.errors import ResultFileError
from pyuio.latency.results import DIGITS, FORMAT, HIGHEST, KINDS, LOWEST, VERSION, Run, Series, new_histogram

MEASURE_AGAIN = "measure again, or take the file from a backup"

_MOST = (1 << 63) - 1  # a histogram's counters
# The library's decoder is C that trusts what it is given: nothing longer than what this version writes gets to it.
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
        ResultFileError: it is damaged, or not a result of this version; without the file's name.
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
    """Return an item of one of these types (int does for float, bool for no int)."""
    if name not in data:
        raise _Damaged(f'"{name}" is missing')
    value = data[name]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise _Damaged(f'"{name}" is {value!r:.40}')
    return value


def _counter(data: dict[str, Any], name: str) -> int:
    value = _item(data, name, int)
    if not 0 <= value <= _MOST:
        raise _Damaged(f'"{name}" is {value}')
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
    )
    names = [series.name for series in run.series]
    if len(set(names)) != len(names):
        raise _Damaged("it has the same series twice")
    # What follows from the series is written for other programs: where it differs, one of the two was changed.
    if data.get("void") != run.void:
        raise _Damaged('"void" is not what its series say')
    return run


def _series(data: Any) -> Series:
    if not isinstance(data, dict):
        raise _Damaged(f"a series is {data!r:.40}")
    seconds = _item(data, "seconds", int, float)
    if not (0 <= seconds < math.inf):
        raise _Damaged(f'"seconds" is {seconds}')
    reasons = _item(data, "reasons", list)
    if not all(isinstance(reason, str) for reason in reasons):
        raise _Damaged('"reasons" are not all text')
    series = Series(
        _item(data, "way", str),
        _item(data, "load", str),
        _item(data, "cpu", int, type(None)),
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
            raise _Damaged("a histogram is longer than any")
        histogram = HdrHistogram.decode(text)
    except _UNDECODABLE as error:
        raise _Damaged(f"a histogram cannot be decoded ({error or type(error).__name__})") from error
    size = histogram.lowest_trackable_value, histogram.highest_trackable_value, histogram.significant_figures
    if size != (LOWEST, HIGHEST, DIGITS):
        raise _Damaged("a histogram is of another size than this version's")
    if not 0 <= histogram.get_total_count() <= _MOST:
        raise _Damaged("a histogram has impossible counts")
    return histogram
