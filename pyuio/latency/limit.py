# SPDX-License-Identifier: MIT
"""``--max``: the latency that no sample may exceed."""

from __future__ import annotations

import re

_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_LARGEST = 100 * _UNITS["s"]


def parse(text: str) -> int:
    """Return a time such as ``100us``, ``0.5ms`` or ``100`` (us) in ns.

    Raises:
        ValueError: it is none, or is not from 1 ns to 100 s.
    """
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?(ns|us|ms|s)?", text)
    limit = round(float(found[1]) * _UNITS[found[2] or "us"]) if found else 0
    if not 1 <= limit <= _LARGEST:
        raise ValueError(f"--max is a time from 1ns to 100s, such as 100us, 0.5ms or 100 (us), not {text!r}")
    return limit
