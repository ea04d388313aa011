# SPDX-License-Identifier: MIT
"""Arguments of every kind, for the tests of functions that must refuse most of them.

Not in tests/unit/test_bad_arguments.py, as the guest would import hypothesis and numpy with that.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pyuio

PROMISED = (TypeError, ValueError, pyuio.PyuioError)


class Index:
    """What is as good as an int."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


EDGES = sorted(
    {sign * (1 << bits) + more for sign in (-1, 1) for bits in (0, 4, 8, 16, 31, 32, 63, 64) for more in (-1, 0, 1)}
)
ODD = [
    *EDGES,
    *(10**400, -(10**400), Index(10**400), Index(8), Index(32), 0.5, 1e300, float("nan"), float("inf"), -float("inf")),
    *(
        1j,
        None,
        True,
        False,
        "",
        "a",
        "\0",
        "٣",
        b"",
        b"1234",
        (),
        [],
        [1],
        {},
        Decimal(3),
        Fraction(1, 2),
        ...,
        int,
        object(),
    ),
]
