# SPDX-License-Identifier: MIT
"""What is said of a card that failed in a process of its own."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

_PYUIO = str(Path(__file__).parent.parent / "_").removesuffix("_")  # with the separator: pyuio_drivers is another


class AccessError(Exception):
    """A method of a card raised an exception, its cause, at an access of the driver.

    Args:
        cause: the exception.
        bar: the index of the BAR.
        offset: in that, in bytes.
        width: in bytes.
        value: that was written; None for a read.
    """

    def __init__(self, cause: BaseException, bar: int, offset: int, width: int, value: int | None) -> None:
        what = "read" if value is None else f"write of {value:#x}"
        super().__init__(f"at a {8 * width}-bit {what} at offset {offset:#x} of BAR {bar}")
        self.__cause__ = cause


def describe(error: BaseException) -> tuple[str, str]:
    """Return what happened in one line, and the traceback from the card's first line on."""
    where = ""
    if isinstance(error, AccessError) and error.__cause__ is not None:
        where, error = f", {error}", error.__cause__
    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith((_PYUIO, "<")):
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    return f"{type(error).__name__}: {error}{where}", "".join(lines)
