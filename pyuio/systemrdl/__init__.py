# SPDX-License-Identifier: MIT
"""Registers that are described in SystemRDL 2.0, the language of FPGA teams' register files.

.. code-block:: python

    from pyuio import systemrdl

    Card = systemrdl.load("card.rdl")            # a RegisterMap
    registers = Card(device.bar(0))
    registers.status.enable = 1

``python -m pyuio.systemrdl card.rdl > card_registers.py`` writes the same as a Python module, whose names mypy checks;
the program then needs neither the file nor the compiler.

Needs systemrdl-compiler: ``pip install systemrdl-compiler``, or ``pip install '.[rdl]'`` in pyuio's checkout.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyuio.errors import SystemRdlError, SystemRdlUnavailableError
from pyuio.registers.register_map import RegisterMap

if TYPE_CHECKING:
    from systemrdl.node import AddrmapNode


class DescribedMap(RegisterMap):
    """A `RegisterMap` whose names came from a file when the program ran, so that mypy knows none of them."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def load(
    path: str | os.PathLike[str], *, top: str | None = None, include: Sequence[str | os.PathLike[str]] = ()
) -> type[DescribedMap]:
    """Return the register map that a SystemRDL file describes.

    An addrmap or a regfile becomes a `RegisterMap`, a reg a `Register`, a field a `Field`, an enum an `enum.IntEnum`,
    an array an `Array`; ``desc`` and ``name`` become their documentation. ``sw``, ``onread`` and ``onwrite`` say what
    the access is. A name that Python or pyuio has taken gets an underscore at its end: ``read_``. A mem is left out: it
    is for `Region.read` and its like. The byte order is that of the region.

    Args:
        path: the file.
        top: name of the addrmap; the last one of the file if None.
        include: directories of files that it includes.

    Raises:
        SystemRdlUnavailableError: systemrdl-compiler is not installed.
        SystemRdlError: the file cannot be read, is no SystemRDL, or has what pyuio cannot access; the message names
            file and line.
    """
    from pyuio.systemrdl.python_classes import Source

    node = _elaborated(path, top, include)
    source = Source(node, "DescribedMap")
    namespace: dict[str, Any] = {"__name__": f"{__name__}.{node.inst_name}", "DescribedMap": DescribedMap}
    try:
        exec(compile(source.text, f"<{os.fspath(path)}>", "exec"), namespace)
    except ValueError as error:  # what a declaration refuses
        raise SystemRdlError(f"{os.fspath(path)}: {error}") from error
    found: type[DescribedMap] = namespace[source.top]
    return found


def python_source(
    path: str | os.PathLike[str], *, top: str | None = None, include: Sequence[str | os.PathLike[str]] = ()
) -> str:
    """Return the text of a Python module that declares what `load` returns; arguments and errors are the same."""
    from pyuio.systemrdl.python_classes import Source

    return Source(_elaborated(path, top, include), "RegisterMap").text


def _elaborated(
    path: str | os.PathLike[str], top: str | None, include: Sequence[str | os.PathLike[str]]
) -> AddrmapNode:
    """Compile the file, and return its top."""
    try:
        from systemrdl.compiler import RDLCompiler
        from systemrdl.messages import MessagePrinter, RDLCompileError, Severity
        from systemrdl.source_ref import DetailedFileSourceRef, FileSourceRef
    except ImportError as error:
        raise SystemRdlUnavailableError(
            f"reading {os.fspath(path)} needs systemrdl-compiler, which cannot be imported ({error}); install it: "
            "pip install systemrdl-compiler"
        ) from error
    messages: list[str] = []

    class Keeper(MessagePrinter):
        def print_message(self, severity: Severity, text: str, src_ref: object) -> None:
            where = ""
            if isinstance(src_ref, DetailedFileSourceRef):
                where = f"{src_ref.path}:{src_ref.line}: "
            elif isinstance(src_ref, FileSourceRef):
                where = f"{src_ref.path}: "
            if severity >= Severity.ERROR:
                messages.append(where + text)

    compiler = RDLCompiler(message_printer=Keeper())
    try:
        compiler.compile_file(os.fspath(path), incl_search_paths=[os.fspath(one) for one in include])
        return compiler.elaborate(top_def_name=top).top
    except (RDLCompileError, OSError, UnicodeDecodeError) as error:
        raise SystemRdlError("\n".join(messages) or f"{os.fspath(path)}: {error}") from error
    except Exception as error:  # at what the compiler did not think of
        said = "\n".join([*messages, f"{type(error).__name__}: {error}"])
        raise SystemRdlError(f"{os.fspath(path)}: systemrdl-compiler fails at it: {said}") from error
