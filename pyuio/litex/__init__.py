# SPDX-License-Identifier: MIT
"""Register maps from LiteX, which builds systems for FPGAs and writes their registers to ``csr.json``.

.. code-block:: python

    from pyuio import litex

    Soc = litex.load("csr.json")                 # a RegisterMap
    soc = Soc(device.bar(0))
    soc.ctrl_scratch.write(0x12345678)

``python -m pyuio.litex csr.json > soc_registers.py`` writes the same map as a Python module, whose names mypy checks.
The sources cited are LiteX's ``litex/soc/integration/export.py`` and ``litex/soc/interconnect/csr.py``.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from pyuio.errors import CsrFileError
from pyuio.process.printable import printable_name
from pyuio.registers.access import Access
from pyuio.registers.python_text import DescribedMap, classes, fitting_names, option
from pyuio.registers.register_map import RegisterMap

AnyPath: TypeAlias = "str | os.PathLike[str]"

_ACCESSES: dict[object, Access] = {"ro": "ro", "rw": "rw", "wo": "wo"}
_LARGEST = 1 << 64  # no address is beyond
_MOST_WORDS = 1024  # of one register
_LONGEST_NUMBER = 40  # characters


def load(path: AnyPath, *, base: int | None = None) -> type[DescribedMap]:
    """Return the register map that LiteX's ``csr.json`` or ``csr.csv`` describes; ``.csv`` tells the latter.

    A register is called as in LiteX: the name of its block, an underscore, its own name. One of several words of the
    CSR bus is a wide register, the most significant word at the lowest address, which is accessed first. On a bus of
    8-bit words, each of which takes 32 bits of address space, it is an `Array` of its words in that order.

    The file has no fields, and of the access only whether software may write. What ends in ``ev_pending`` is cleared by
    writing 1, whatever the file says. LiteX's SVD file has fields: see `pyuio.peakrdl.exporter`.

    Args:
        path: the file.
        base: the address in the system that is at the start of the BAR. None for that of the CSR bus: of the memory
            ``csr``, or if the file has none of this name, of the first block.

    Raises:
        CsrFileError: the file cannot be read, or is no such file; the message says what is wrong with it. A register is
            before the base.
    """
    file = os.fspath(path)
    text = _text(_read(file, base), "DescribedMap")
    found: type[DescribedMap] = _classes(text, file)["Soc"]
    return found


def python_source(path: AnyPath, *, base: int | None = None) -> str:
    """Return the text of a Python module that declares what `load` returns; arguments and errors are the same."""
    file = os.fspath(path)
    text = _text(_read(file, base), "RegisterMap")
    _classes(text, file)  # so that what is returned can be imported
    return text


class _Csr(NamedTuple):
    """One register: its offset in bytes, its number of words, and the type that the file gives."""

    name: str
    offset: int
    words: int
    access: Access


class _Soc(NamedTuple):
    """The registers, and the bits of a word of the CSR bus and from one word to the next."""

    registers: list[_Csr]
    word: int
    distance: int


def _read(file: str, base: int | None) -> _Soc:
    try:
        text = Path(file).read_text(encoding="utf-8")
        data = _from_csv(text) if file.lower().endswith(".csv") else json.loads(text)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise CsrFileError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return _soc(data, base)
    except CsrFileError as error:
        raise CsrFileError(f"{file}: {error}; name the file that LiteX's --csr-json or --csr-csv made") from None


def _from_csv(text: str) -> dict[str, Any]:
    """Return what ``csr.csv`` has, as ``csr.json`` has it."""
    data: dict[str, Any] = {"csr_bases": {}, "csr_registers": {}, "constants": {}, "memories": {}}
    for row in csv.reader(line for line in text.splitlines() if line and not line.startswith("#")):
        if len(row) != 5:
            raise ValueError(f"a line has {len(row)} columns, not 5: {','.join(row)[:60]!r}")
        kind, name, value, size, what = row
        if kind == "csr_base":
            data["csr_bases"][name] = _csv_number(value)
        elif kind == "csr_register":
            data["csr_registers"][name] = {"addr": _csv_number(value), "size": _csv_number(size), "type": what}
        elif kind == "constant":
            data["constants"][name] = int(value) if value.isdecimal() else value
        elif kind == "memory_region":
            data["memories"][name] = {"base": _csv_number(value), "size": _csv_number(size), "type": what}
    return data


def _csv_number(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number has {len(text)} digits: {text[:40]!r}...")
    return int(text, 0)


def _soc(data: object, base: int | None) -> _Soc:
    parts = {name: _table(data, name) for name in ("csr_bases", "csr_registers", "constants", "memories")}
    constants, memories = parts["constants"], parts["memories"]
    word = _number(constants, "config_csr_data_width", 8, 32, of="constants")
    distance = _number({"config_csr_alignment": 32, **constants}, "config_csr_alignment", 32, 64, of="constants")
    if word not in (8, 32) or distance not in (32, 64):
        raise CsrFileError(f"words of {word} bits, {distance} bits apart, are none that LiteX makes")
    if base is None:
        if "csr" in memories:
            base = _number(_table(memories, "csr"), "base", 0, _LARGEST, of="csr")
        else:
            bases = parts["csr_bases"]
            base = min((_number(bases, name, 0, _LARGEST, of="csr_bases") for name in bases), default=0)
    return _Soc([_csr(name, parts["csr_registers"], base) for name in parts["csr_registers"]], word, distance)


def _csr(name: str, registers: dict[str, Any], base: int) -> _Csr:
    entry = _table(registers, name)
    address = _number(entry, "addr", 0, _LARGEST, of=name)
    if address < base:
        raise CsrFileError(f"{printable_name(name)} at {address:#x} is before {base:#x}, where the map starts")
    if address % 4:
        raise CsrFileError(f"{printable_name(name)} at {address:#x} is not at a multiple of 4")
    access = _ACCESSES.get(entry.get("type"))
    if access is None:
        raise CsrFileError(f'the type of {printable_name(name)} is {entry.get("type")!r:.40}, not "ro" or "rw"')
    if name.endswith("ev_pending"):
        access = "w1c"  # class EventManager: software clears an event by writing 1
    return _Csr(name, address - base, _number(entry, "size", 1, _MOST_WORDS, of=name), access)


def _table(data: object, name: str) -> dict[str, Any]:
    found = data.get(name) if isinstance(data, dict) else None
    if not isinstance(found, dict):
        raise CsrFileError(f"{printable_name(name)} is missing, or is no table of names")
    return found


def _number(table: dict[str, Any], name: str, lowest: int, highest: int, *, of: str) -> int:
    found = table.get(name)
    if not isinstance(found, int) or isinstance(found, bool) or not lowest <= found <= highest:
        said = f"{printable_name(name)} of {printable_name(of)}"
        raise CsrFileError(f"{said} is {found!r:.40}, not a number from {lowest} to {highest}")
    return found


def _text(soc: _Soc, base: str) -> str:
    """Return the text of the module, whose class is called ``Soc``."""
    names = fitting_names([one.name for one in soc.registers], RegisterMap)
    lines = [f"    {names[one.name]} = {_declaration(one, soc)}\n" for one in soc.registers] or ["    pass\n"]
    used = [name for name in ("Array", "Register") if any(f"{name}(" in line for line in lines)]
    imported = f"from pyuio import {', '.join([*used, 'RegisterMap'])}\n\n\n"
    head = '"""Registers of a system that LiteX built, made by pyuio from its list of registers."""\n\n'
    return f"{head}{imported}class Soc({base}):\n{''.join(lines)}"


def _declaration(one: _Csr, soc: _Soc) -> str:
    access = option("access", one.access, "rw")
    if one.words == 1:
        return f"Register({one.offset:#x}{access})"
    if soc.word == soc.distance:  # the words of one register lie side by side
        several = f', access_width={soc.word}, first="high", word_order="big"'
        return f"Register({one.offset:#x}, width={soc.word * one.words}{several}{access})"
    return f"Array(Register({one.offset:#x}{access}), {one.words}, stride={soc.distance // 8:#x})"


def _classes(text: str, file: str) -> dict[str, Any]:
    try:
        return classes(text, f"{__name__}.Soc", file)
    except Exception as error:  # a declaration is refused
        raise CsrFileError(f"{file}: {error}") from error
