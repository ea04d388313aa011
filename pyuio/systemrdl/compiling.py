# SPDX-License-Identifier: MIT
"""Compiles SystemRDL files. Programs use `pyuio.systemrdl`; this module needs systemrdl-compiler."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from systemrdl.compiler import RDLCompiler
from systemrdl.component import Addrmap
from systemrdl.messages import MessagePrinter, RDLCompileError, Severity
from systemrdl.node import AddrmapNode
from systemrdl.source_ref import DetailedFileSourceRef, FileSourceRef

from pyuio.errors import SystemRdlError


class _Keeper(MessagePrinter):
    """Keeps the messages of errors; `path` is for those that have no place in a file."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.kept: list[str] = []

    def print_message(self, severity: Severity, text: str, src_ref: object) -> None:
        where = f"{self.path}: "
        if isinstance(src_ref, DetailedFileSourceRef):
            where = f"{src_ref.path}:{src_ref.line}: "
        elif isinstance(src_ref, FileSourceRef):
            where = f"{src_ref.path}: "
        if severity >= Severity.ERROR:
            self.kept.append(where + text)


def elaborated(
    paths: Sequence[str], top: str | None, include: Sequence[str], parameters: Mapping[str, object]
) -> AddrmapNode:
    """Compile the files in this order, and return the top addrmap; see `pyuio.systemrdl.load`."""
    path = ", ".join(paths)
    messages = _Keeper(path)
    compiler = RDLCompiler(message_printer=messages)
    try:
        for one in paths:
            compiler.compile_file(one, incl_search_paths=list(include))
        return compiler.elaborate(top, parameters=_values(compiler, top, parameters, path)).top
    except SystemRdlError:
        raise
    except (RDLCompileError, OSError, UnicodeDecodeError) as error:
        more = _others(str(error.filename)) if isinstance(error, FileNotFoundError) else ""
        raise SystemRdlError("\n".join(messages.kept) or f"{path}: {error}{more}") from error
    except Exception as error:  # a defect of the compiler
        said = "\n".join([*messages.kept, f"{type(error).__name__}: {error}"])
        raise SystemRdlError(f"{path}: systemrdl-compiler failed: {said}") from error


def _values(compiler: RDLCompiler, top: str | None, given: Mapping[str, object], paths: str) -> dict[str, Any]:
    """Return the values of the top's parameters, as the compiler takes them."""
    maps = {name: one for name, one in compiler.root.comp_defs.items() if isinstance(one, Addrmap)}
    if not maps:
        raise SystemRdlError(f"{paths}: no addrmap is defined there")
    chosen = list(maps)[-1] if top is None else top
    if chosen not in maps:
        raise SystemRdlError(f"{paths}: there is no addrmap {chosen}; there is {', '.join(maps)}")
    known = maps[chosen].parameters_dict
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            there = ", ".join(known) or "none"
            raise SystemRdlError(f"{paths}: addrmap {chosen} has no parameter {name}; its parameters: {there}")
        kind: Any = known[name].param_type
        wanted = {int: "a number", bool: "a boolean", str: "a string"}.get(kind, f"a {getattr(kind, '__name__', kind)}")
        types = {int: (int, enum.Enum), bool: (int, enum.Enum)}.get(kind, kind if isinstance(kind, type) else object)
        try:
            values[name] = compiler.eval(value) if isinstance(value, str) and kind is not str else value
            why = "" if isinstance(values[name], types) else f"that is a {type(values[name]).__name__}"
        except (ValueError, RDLCompileError) as error:
            why = str(error)
        if why:
            raise SystemRdlError(f"{paths}: parameter {name} of addrmap {chosen} takes {wanted}, not {value!r}: {why}")
    return values


def _others(path: str) -> str:
    """Return the end of a message about a file that is missing: the files that its directory has."""
    there = sorted(one.name for one in Path(path).parent.glob("*.rdl"))
    return f"; {Path(path).parent} has {', '.join(there) or 'no .rdl file'}"
