# SPDX-License-Identifier: MIT
"""What somebody's file says of registers, as text of Python: names, options, docstrings; and classes from such text.

Whatever the file has, only what is meant as code becomes code: a name consists of ASCII letters, digits and
underscores, and all else is in quotes.
"""

from __future__ import annotations

import enum
import keyword
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pyuio.registers.register import is_taken
from pyuio.registers.register_map import RegisterMap


class DescribedMap(RegisterMap):
    """A `RegisterMap` whose names come from a file at run time, so that mypy does not know them."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def classes(text: str, module: str, file: str) -> dict[str, Any]:
    """Run the text of a module that declares registers, and return what the module then contains.

    Args:
        text: of Python; it may derive classes from `DescribedMap`.
        module: the name that the classes get as that of their module.
        file: the file that the declarations come from, for tracebacks.
    """
    namespace: dict[str, Any] = {"__name__": module, "DescribedMap": DescribedMap}
    exec(compile(text, f"<{file}>", "exec"), namespace)
    return namespace


def identifier(name: str) -> str:
    """Return the name with underscores for all but ASCII letters, digits and underscores; it may begin with a digit."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def class_name(name: str, taken: dict[str, int]) -> str:
    """Return a name for a class, ``ControlReg`` for ``control_reg``, and add it to those that are taken."""
    word = "".join(part[:1].upper() + part[1:] for part in identifier(name).split("_")) or "Registers"
    return unused(word if word.isidentifier() and not keyword.iskeyword(word) else f"Registers{word}", taken)


def fitting_names(given: Iterable[str], base: type) -> dict[str, str]:
    """Return the names that instances or members get in a class, all different, by those that they have in the file.

    Args:
        given: the names in the file, all different.
        base: what the class derives from; its own names are not to be had.
    """
    wanted = {name: _fitting(name, base) for name in given}
    taken = {name: 0 for name, fit in wanted.items() if name == fit}  # these keep theirs
    return {name: name if name == fit else unused(fit, taken, "_") for name, fit in wanted.items()}


def _fitting(name: str, base: type) -> str:
    """Return the name that an instance or a member gets in a class, if no other has it.

    What begins with an underscore belongs to Python and pyuio: the underscore comes to the end. If a digit follows it,
    it stays, as a name cannot begin with the digit.
    """
    name = identifier(name)
    bare = name.lstrip("_")
    if not bare:
        return "underscore"
    if bare[0].isdigit():
        return f"_{bare.rstrip('_')}"
    fit = bare if bare == name else f"{bare}_"
    of_enumerations = ("mro", "name", "value") if base is enum.IntEnum else ()
    return f"{fit}_" if keyword.iskeyword(fit) or is_taken(fit, [base]) or fit in of_enumerations else fit


def unused(name: str, taken: dict[str, int], more: str = "") -> str:
    """Return the name, or a similar one if it is taken: with `more` behind it, up to three times, then with a number.

    Args:
        name: the name.
        taken: the names that cannot be had, each with how often it was tried; the one that is returned is added. So a
            file with very many names that are alike takes no longer than others.
        more: what is added.
    """
    one = name
    while one in taken:
        times = taken[name] = taken[name] + 1
        one = name + more * times if more and times < 4 else f"{name}{more}{times + 1}"
    taken[one] = 0
    return one


def option(name: str, value: object, default: object) -> str:
    """Return an argument, or nothing if it is the default."""
    quoted = f'"{value}"' if name != "doc" and isinstance(value, str) else repr(value)
    return "" if value == default else f", {name}={quoted}"


def docstring(text: str) -> str:
    """Return a docstring with this text."""
    shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text.replace("\\", "\\\\"))
    return '"""' + shown.replace('"', '\\"') + '"""'
