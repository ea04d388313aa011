# SPDX-License-Identifier: MIT
"""Processors by number, and the kernel's lists of them: ``0-3,5`` (Documentation/core-api/cpu_hotplug.rst)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pyuio.errors import KernelFileError

_ONLINE = Path("/sys/devices/system/cpu/online")
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_HIGHEST = 0xFFFF  # far more than CONFIG_NR_CPUS allows


def parse_list(text: str) -> frozenset[int]:
    """Return the numbers in a list such as ``0-3,5``; an empty set for an empty list.

    Raises:
        KernelFileError: the text does not have that form.
    """
    text = text.strip()
    numbers: set[int] = set()
    for part in text.split(",") if text else ():
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= _HIGHEST:
            raise KernelFileError(f"a list of processors looks like 0-3,5, not like {text[:80]!r}")
        numbers.update(range(first, last + 1))
    return frozenset(numbers)


def format_list(numbers: Iterable[int]) -> str:
    """Return numbers as the kernel writes them: ``0-3,5``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def online() -> frozenset[int]:
    """Return the processors that are online."""
    return parse_list(_ONLINE.read_text())


def checked(name: str, cpus: int | Iterable[int]) -> tuple[int, ...]:
    """Return the processors that `cpus` names, in its order.

    Args:
        name: of the caller's argument, for the message.
        cpus: one number or several.

    Raises:
        TypeError: `cpus` is neither an int nor an iterable of ints.
        ValueError: `cpus` is empty, or names a processor that is offline or that this machine does not have.
    """
    if isinstance(cpus, (str, bytes)) or not isinstance(cpus, (int, Iterable)):
        raise TypeError(f"{name} is the number of a processor or several, not {type(cpus).__name__}")
    numbers = (cpus,) if isinstance(cpus, int) else tuple(cpus)
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError(f"{name}: a processor is an int, not {type(number).__name__}")
    if not numbers:
        raise ValueError(f"{name} names no processor")
    if wrong := set(numbers) - online():
        raise ValueError(f"{name}: processors {format_list(online())} are online, and not {format_list(wrong)}")
    return numbers
