# SPDX-License-Identifier: MIT
"""Turns a SystemRDL description into the text of a Python module. Programs use `pyuio.systemrdl`.

This module needs systemrdl-compiler. Sections are those of the SystemRDL 2.0 specification (Accellera, January 2018).
"""

from __future__ import annotations

import enum
import keyword
import re
from collections.abc import Iterable
from typing import Any

from systemrdl.node import AddressableNode, AddrmapNode, FieldNode, MemNode, Node, RegfileNode, RegNode
from systemrdl.rdltypes.builtin_enums import AccessType, OnWriteType

from pyuio.errors import SystemRdlError
from pyuio.registers.fields import Access
from pyuio.registers.register import Register, is_taken
from pyuio.registers.register_map import RegisterMap

_IMPORTED = ("Array", "DescribedMap", "Field", "Register", "RegisterMap", "enum")
# Section 9.6, the effect of a software write. The other values of onwrite have effects that writing 0 does not prevent.
_ONES: dict[OnWriteType, Access] = {OnWriteType.woclr: "w1c", OnWriteType.woset: "w1s", OnWriteType.wot: "w1t"}


class Source:
    """The text of the Python module for an addrmap.

    Args:
        node: the addrmap, elaborated.
        base: the name of the class that its class derives from.

    Raises:
        SystemRdlError: it describes something that pyuio cannot access; the message names file and line.
    """

    def __init__(self, node: AddrmapNode, base: str) -> None:
        self._classes: dict[tuple[str, str], str] = {}  # the name of each class by its base and body
        self._names: set[str] = set(_IMPORTED)
        self._parts: list[str] = []
        self.top = self._map(node, base)
        """The name of the addrmap's class."""
        used = "".join(self._parts)
        imports = [name for name in ("Array", "Field", "Register", "RegisterMap") if re.search(rf"\b{name}\b", used)]
        head = [f'"""Registers of {node.inst_name}, made from SystemRDL by ``python -m pyuio.systemrdl``."""\n']
        if "(enum.IntEnum)" in used:
            head.append("import enum\n")
        head.append(f"from pyuio import {', '.join(imports)}\n")
        self.text = "\n".join(head) + "".join(f"\n\n{part}" for part in self._parts)
        """The text of the module."""

    # ---- The kinds of class ----

    def _map(self, node: AddrmapNode | RegfileNode, base: str = "RegisterMap") -> str:
        """Return the name of the class for an addrmap or a regfile."""
        lines = []
        names = _Names(RegisterMap, node)
        for child in node.children():
            if isinstance(child, MemNode) or not isinstance(child, AddressableNode):
                continue
            offset = f"{child.raw_address_offset:#x}"
            if isinstance(child, RegNode):
                declared = f"{self._register(child)}({offset})"
            elif isinstance(child, (AddrmapNode, RegfileNode)):
                declared = f"{self._map(child)}.at({offset})"
            else:
                raise _unsupported(child, f"a {type(child).__name__}")
            if child.is_array:
                declared = _array(child, declared)
            lines.append(f"{names.fit(child)} = {declared}")
        return self._class(node, base, "", lines)

    def _register(self, node: RegNode) -> str:
        """Return the name of the class for a reg."""
        width, access_width = node.get_property("regwidth"), node.get_property("accesswidth")
        if width not in (8, 16, 32, 64) or access_width < width:
            how = f"regwidth = {width}, accesswidth = {access_width}"
            raise _unsupported(node, f"{how}: a register must have 8, 16, 32 or 64 bits, and be accessed as a whole")
        fields = node.fields()
        accesses = {_access(field) for field in fields}
        whole = _whole(accesses)
        names = _Names(Register, node)
        lines = [f"{names.fit(field)} = {self._field(field, whole)}" for field in fields]
        options = f", width={width}" * (width != 32) + f', access="{whole}"' * (whole != "rw")
        return self._class(node, "Register", options, lines)

    def _field(self, node: FieldNode, whole: Access) -> str:
        if node.msb < node.lsb:
            raise _unsupported(node, "msb0: the order of its bits is reversed")
        encode, access, doc = node.get_property("encode"), _access(node), _doc(node)
        arguments = f"{node.high}" if node.high == node.low else f"{node.high}, {node.low}"
        if encode is not None:
            arguments += f", enum={self._enum(node, encode)}"
        if access != whole:
            arguments += f', access="{access}"'
        return f"Field({arguments}{f', doc={doc!r}' * bool(doc)})"

    def _enum(self, node: FieldNode, encode: Any) -> str:
        names = _Names(enum.IntEnum, node)
        lines = [f"{names.fit_name(member.name)} = {member.value:#x}" for member in encode]
        return self._named(encode.type_name or node.inst_name, "enum.IntEnum", "", lines)

    # ---- Their text ----

    def _class(self, node: Node, base: str, options: str, lines: list[str]) -> str:
        doc = _doc(node)
        quoted = doc.replace("\\", "\\\\").replace('"', '\\"')
        name = node.orig_type_name or node.inst_name
        return self._named(name, base, options, [f'"""{quoted}"""\n'] * bool(doc) + lines)

    def _named(self, name: str, base: str, options: str, lines: list[str]) -> str:
        body = "".join(f"    {line}\n" for line in lines) or "    pass\n"
        key = (base + options, f"{name}\n{body}")
        if key not in self._classes:
            word = "".join(part[:1].upper() + part[1:] for part in name.split("_")) or "Registers"
            word = word if word.isidentifier() and not keyword.iskeyword(word) else f"Registers{word}"
            self._classes[key] = unique = _unused(word, self._names)
            self._parts.append(f"class {unique}({base}{options}):\n{body}")
        return self._classes[key]


class _Names:
    """The names in one class: each is valid in Python and used once."""

    def __init__(self, base: type, node: Node) -> None:
        self._base = base
        self._node = node
        self._taken: set[str] = set()

    def fit(self, node: Node) -> str:
        """Return the name for an instance."""
        return self.fit_name(node.inst_name)

    def fit_name(self, name: str) -> str:
        """Return the name, with an underscore at its end if Python or pyuio uses it already."""
        name = name.lstrip("_") + "_" * name.startswith("_")
        if not name.isidentifier():
            raise _unsupported(self._node, f"{name!r} is not a valid name in Python")
        of_enumerations = ("mro", "name", "value") if self._base is enum.IntEnum else ()
        if keyword.iskeyword(name) or is_taken(name, [self._base]) or name in of_enumerations:
            name += "_"
        return _unused(name, self._taken, "_")


def _unused(name: str, taken: set[str], more: str = "") -> str:
    """Return the name, or a similar one if it is taken, and add it to `taken`."""
    number, one = 2, name
    while one in taken:
        one = one + more if more else f"{name}{number}"
        number += 1
    taken.add(one)
    return one


def _access(node: FieldNode) -> Access:
    """Return what software may do with a field, by sections 9.5 (sw) and 9.6 (onread, onwrite)."""
    software, onread, onwrite = (node.get_property(name) for name in ("sw", "onread", "onwrite"))
    if software is AccessType.r:
        return "ro" if onread is None else "rc"
    if software is AccessType.w:
        return "wo"
    if software is not AccessType.rw or onread is not None:  # rw1 and w1 can be written only once
        return "special"
    return "rw" if onwrite is None else _ONES.get(onwrite, "special")


def _whole(accesses: Iterable[Access]) -> Access:
    """Return the access of a register, and of its bits outside of the fields, which have no function."""
    kinds = set(accesses)
    if len(kinds) == 1:
        return kinds.pop()
    return "rw" if kinds & {"rw", "special"} else "ro"


def _array(node: AddressableNode, declared: str) -> str:
    """Return the declaration of an array; the innermost dimension comes first."""
    stride = node.array_stride
    for count in reversed(node.array_dimensions or []):
        declared = f"Array({declared}, {count}, stride={stride:#x})"
        stride = (stride or 0) * count
    return declared


def _doc(node: Node) -> str:
    """Return the name, if one is given, and the description in one line."""
    name, description = node.get_property("name"), node.get_property("desc")
    parts = [name if name != node.inst_name else "", description or ""]
    return " ".join(": ".join(part for part in parts if part).split())


def _unsupported(node: Node, why: str) -> SystemRdlError:
    reference: Any = node.inst_src_ref
    where = f"{reference.path}:{reference.line}: " if hasattr(reference, "line") else ""
    return SystemRdlError(f"{where}pyuio cannot access {node.get_path()}: {why}")
