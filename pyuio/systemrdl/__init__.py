# SPDX-License-Identifier: MIT
"""Register maps from SystemRDL 2.0, the language in which FPGA teams describe registers.

.. code-block:: python

    from pyuio import systemrdl

    Card = systemrdl.load("card.rdl")            # a RegisterMap
    registers = Card(device.bar(0))
    registers.status.enable = 1

``python -m pyuio.systemrdl card.rdl > card_registers.py`` writes the same map as a Python module, whose names mypy
checks. The program then needs neither the file nor the compiler.

This package needs systemrdl-compiler: ``pip install systemrdl-compiler``, or ``pip install '.[rdl]'`` in pyuio's
checkout.
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
    """A `RegisterMap` whose names come from a file at run time, so that mypy does not know them."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def load(
    path: str | os.PathLike[str], *, top: str | None = None, include: Sequence[str | os.PathLike[str]] = ()
) -> type[DescribedMap]:
    """Return the register map that a SystemRDL file describes.

    An addrmap or a regfile becomes a `RegisterMap`, a reg a `Register`, a field a `Field`, an enum an `enum.IntEnum`,
    an array an `Array`; ``desc`` and ``name`` become their documentation. ``sw``, ``onread`` and ``onwrite`` determine
    the access. A name that Python or pyuio uses already gets an underscore at its end: ``read_``. A mem is left out:
    access it by `Region.read` and the like. The byte order is that of the region.

    Args:
        path: the file.
        top: the name of the addrmap; the last one of the file if None.
        include: directories of the files that it includes.

    Raises:
        SystemRdlUnavailableError: systemrdl-compiler is not installed.
        SystemRdlError: the file cannot be read, is not SystemRDL, or describes something that pyuio cannot access; the
            message names file and line.
    """
    from pyuio.systemrdl.python_classes import Source

    node = _elaborated(path, top, include)
    source = Source(node, "DescribedMap")
    namespace: dict[str, Any] = {"__name__": f"{__name__}.{node.inst_name}", "DescribedMap": DescribedMap}
    try:
        exec(compile(source.text, f"<{os.fspath(path)}>", "exec"), namespace)
    except ValueError as error:  # a declaration is refused
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
    """Compile the file, and return its top addrmap."""
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
    except Exception as error:  # a defect of the compiler
        said = "\n".join([*messages, f"{type(error).__name__}: {error}"])
        raise SystemRdlError(f"{os.fspath(path)}: systemrdl-compiler failed: {said}") from error
