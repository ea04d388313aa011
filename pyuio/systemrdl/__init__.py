# SPDX-License-Identifier: MIT
"""Register maps from SystemRDL 2.0, the language in which FPGA teams describe registers.

.. code-block:: python

    from pyuio import systemrdl

    Card = systemrdl.load("card.rdl")            # a RegisterMap
    registers = Card(device.bar(0))
    registers.status.enable = 1

``load(["types.rdl", "card.rdl"], parameters={"CHANNELS": 8})`` takes several files, and values for the parameters.

``python -m pyuio.systemrdl card.rdl > card_registers.py`` writes the same map as a Python module, whose names mypy
checks. The program then needs neither the file nor the compiler.

This package needs systemrdl-compiler: ``pip install systemrdl-compiler``, or ``pip install '.[rdl]'`` in pyuio's
checkout.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from pyuio.errors import SystemRdlError, SystemRdlUnavailableError
from pyuio.registers.python_text import DescribedMap

if TYPE_CHECKING:
    from pyuio.systemrdl.python_classes import Source

AnyPath: TypeAlias = "str | os.PathLike[str]"


def load(
    path: AnyPath | Sequence[AnyPath],
    *,
    top: str | None = None,
    include: Sequence[AnyPath] = (),
    parameters: Mapping[str, object] | None = None,
    bus_width: int | None = None,
    first: Literal["low", "high"] = "low",
) -> type[DescribedMap]:
    """Return the register map that SystemRDL files describe.

    An addrmap or a regfile becomes a `RegisterMap`, a reg a `Register`, a field a `Field`, an enum an `enum.IntEnum`,
    an array an `Array`, a mem a `Memory`; ``desc`` and ``name`` become their documentation. A mem that names registers
    becomes a `RegisterMap` with these, and with all its words as ``entries``. ``sw``, ``onread`` and ``onwrite``
    determine the access; what has ``sw = na`` is left out. The byte order is that of the region.

    A name stays as it is, unless Python or pyuio uses it: such a name gets an underscore at its end (``read_``), and
    one at the beginning comes to the end, unless a digit follows (``path_``, ``_2G5``).

    A register that is wider than the bus takes several accesses.

    Args:
        path: the file; or several, each after those that have its types.
        top: the name of the addrmap; the last one of all files if None.
        include: directories of the files that they include.
        parameters: values for the addrmap's parameters: an int, a bool or a str; for a parameter that is not a string,
            a str is an expression of SystemRDL, such as ``"speed_e::FAST"``.
        bus_width: bits of the widest access that the card understands: 8, 16, 32 or 64. None for the largest
            ``accesswidth`` in the files, but at least 32.
        first: which part of a wider register is accessed first: "low" for the least significant, or "high". A string
            property ``first_access`` of a reg, which the files define, comes before it.

    Raises:
        SystemRdlUnavailableError: systemrdl-compiler is not installed.
        SystemRdlError: a file cannot be read, is not SystemRDL, or describes something that pyuio cannot access; the
            message names file and line. There is no such addrmap or parameter, or it does not take that value; the
            message tells what there is.
        ValueError: there is no such `bus_width` or `first`.
    """
    paths = _paths(path)
    source = _source(paths, "DescribedMap", top, include, parameters, bus_width, first)
    found: type[DescribedMap] = source.run(", ".join(paths))[source.top]
    return found


def python_source(
    path: AnyPath | Sequence[AnyPath],
    *,
    top: str | None = None,
    include: Sequence[AnyPath] = (),
    parameters: Mapping[str, object] | None = None,
    bus_width: int | None = None,
    first: Literal["low", "high"] = "low",
) -> str:
    """Return the text of a Python module that declares what `load` returns; arguments and errors are the same."""
    paths = _paths(path)
    source = _source(paths, "RegisterMap", top, include, parameters, bus_width, first)
    source.run(", ".join(paths))  # so that what is returned can be imported
    return source.text


def _paths(path: AnyPath | Sequence[AnyPath]) -> list[str]:
    paths = [os.fspath(one) for one in ([path] if isinstance(path, (str, os.PathLike)) else path)]
    if not paths:
        raise SystemRdlError("no SystemRDL file was given")
    return paths


def _source(
    paths: Sequence[str],
    base: str,
    top: str | None,
    include: Sequence[AnyPath],
    parameters: Mapping[str, object] | None,
    bus_width: int | None,
    first: Literal["low", "high"],
) -> Source:
    """Return the text for the map that the files describe."""
    if bus_width not in (None, 8, 16, 32, 64):
        raise ValueError(f"the width of a bus is 8, 16, 32 or 64 bits, not {bus_width!r}")
    if first not in ("low", "high"):
        raise ValueError(f'the first of several accesses is "low" or "high", not {first!r}')
    try:
        from pyuio.systemrdl.compiling import elaborated
        from pyuio.systemrdl.python_classes import Source
    except ImportError as error:
        raise SystemRdlUnavailableError(
            f"reading {', '.join(paths)} needs systemrdl-compiler, which cannot be imported ({error}); install it: "
            "pip install systemrdl-compiler"
        ) from error
    return Source(elaborated(paths, top, [os.fspath(one) for one in include], parameters or {}), base, bus_width, first)
