# SPDX-License-Identifier: MIT
"""Turns a SystemRDL description into the text of a Python module. Programs use `pyuio.systemrdl`.

This module needs systemrdl-compiler. Sections are those of the SystemRDL 2.0 specification (Accellera, January 2018).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from systemrdl.node import AddressableNode, AddrmapNode, FieldNode, MemNode, Node, RegfileNode, RegNode
from systemrdl.rdltypes.builtin_enums import AccessType, OnReadType, OnWriteType

from pyuio.errors import SystemRdlError
from pyuio.registers.access import EFFECTS, Access, checked_access
from pyuio.registers.python_text import class_name, classes, docstring, fitting_names, identifier, option
from pyuio.registers.register import Register
from pyuio.registers.register_map import RegisterMap

_IMPORTED = ("Array", "Field", "Memory", "Register", "RegisterMap")
_WIDEST = 64  # bits of one access
_COMMON = 32  # bits that each bus of a card can access at once
# Section 9.6: what a read, and a write, by software does.
_ON_READ = {None: "", OnReadType.rclr: "rc", OnReadType.rset: "rs", OnReadType.ruser: "ru"}
_ON_WRITE = {
    OnWriteType.woset: "w1s",
    OnWriteType.woclr: "w1c",
    OnWriteType.wot: "w1t",
    OnWriteType.wzs: "w0s",
    OnWriteType.wzc: "w0c",
    OnWriteType.wzt: "w0t",
    OnWriteType.wclr: "wc",
    OnWriteType.wset: "ws",
    OnWriteType.wuser: "wu",
}


class Source:
    """The text of the Python module for an addrmap.

    Args:
        node: the addrmap, elaborated.
        base: the name of the class that its class derives from.
        bus_width: bits of the widest access that the card understands; None for the largest accesswidth, and 32 at
            least.
        first: which part of a wider register is accessed first, unless the register's property ``first_access`` says
            that.

    Raises:
        SystemRdlError: it describes something that pyuio cannot access; the message names file and line.
    """

    def __init__(
        self, node: AddrmapNode, base: str, bus_width: int | None = None, first: Literal["low", "high"] = "low"
    ) -> None:
        widest = max((one.get_property("accesswidth") for one in _registers(node)), default=_COMMON)
        self._bus_width = bus_width or min(max(widest, _COMMON), _WIDEST)
        self._first = first
        self._classes: dict[tuple[str, str], str] = {}  # the name of each class by its base and body
        self._names: dict[str, int] = dict.fromkeys((*_IMPORTED, "DescribedMap", "enum"), 0)
        self._parts: list[tuple[str, str]] = []  # the name and the text of each class
        self._used: set[str] = set()
        self._hidden: set[str] = set()  # names that the body of a class uses although it declares them, too
        self.top = self._map(node, base)
        """The name of the addrmap's class."""
        self.text = self._text(node)
        """The text of the module."""

    def run(self, files: str) -> dict[str, Any]:
        """Make the classes, and return what the module then contains.

        Raises:
            SystemRdlError: a declaration is refused; the message begins with `files`, the description's.
        """
        try:
            return classes(self.text, f"pyuio.systemrdl.{self.top}", files)
        except Exception as error:
            raise SystemRdlError(f"{files}: {error or type(error).__name__}") from error

    def _text(self, node: AddrmapNode) -> str:
        head = [f'"""Registers of {identifier(node.inst_name)}, made by pyuio from a register description."""\n']
        if "enum" in self._used:
            head.append("import enum\n")
        imported = [name for name in _IMPORTED if name in self._used]
        renamed = [f"{name} as _{name}" for name in _IMPORTED if name in self._hidden]
        head.append(f"from pyuio import {', '.join([*imported, *renamed])}\n")
        parts = [text + f"\n\n_{name} = {name}\n" * (name in self._hidden) for name, text in self._parts]
        return "\n".join(head) + "".join(f"\n\n{part}" for part in parts)

    # ---- The kinds of class ----

    def _map(self, node: AddrmapNode | RegfileNode | MemNode, base: str = "RegisterMap") -> str:
        """Return the name of the class for an addrmap, a regfile, or a mem in which registers are named."""
        children = [one for one in node.children() if isinstance(one, AddressableNode) and _accessible(one)]
        if isinstance(node, AddrmapNode) and node.get_property("bridge"):
            _check_bridge(node)
        given = [one.inst_name for one in children]
        words = "entries"
        while words in given:
            words += "_"
        body = _Body(self, RegisterMap, [*given, *[words] * isinstance(node, MemNode)])
        for child in children:
            body.lines.append(f"{body.names[child.inst_name]} = {self._instance(child, body)}")
        if isinstance(node, MemNode):
            body.lines.append(f"{body.names[words]} = {self._words(node, body, 0)}")
        return self._class(node, base, "", body)

    def _instance(self, node: AddressableNode, body: _Body) -> str:
        """Return the declaration of a register, a map, a memory, or an array of them."""
        offset = node.raw_address_offset
        if isinstance(node, RegNode):
            declared = f"{body.use(self._register(node))}({offset:#x})"
            if node.is_array and isinstance(node.parent, MemNode) and node.array_stride == node.size:
                return f"{body.use('Memory')}({declared}, {node.n_elements})"  # there may be very many
        elif isinstance(node, MemNode) and not list(node.children()):
            declared = self._words(node, body, offset)
        elif isinstance(node, (AddrmapNode, RegfileNode, MemNode)):
            declared = f"{body.use(self._map(node))}.at({offset:#x})"
        else:
            raise _unsupported(node, f"a {type(node).__name__}")
        stride = node.array_stride
        for count in reversed(node.array_dimensions or []):  # the innermost dimension comes first
            declared = f"{body.use('Array')}({declared}, {count}, stride={stride:#x})"
            stride = (stride or 0) * count
        return declared

    def _words(self, node: MemNode, body: _Body, offset: int) -> str:
        """Return the declaration of the words of a mem. The compiler gives each a power of 2 as its size."""
        count = node.get_property("mementries")
        options = self._width(node.size // count * 8) + option("access", _memory_access(node), "rw")
        options += option("doc", "" if list(node.children()) else _doc(node), "")
        return f"{body.use('Memory')}({body.use('Register')}({offset:#x}{options}), {count})"

    def _register(self, node: RegNode) -> str:
        """Return the name of the class for a reg."""
        fields = node.fields()
        whole = _whole(map(_access, fields))
        body = _Body(self, Register, [one.inst_name for one in fields])
        for field in fields:
            body.lines.append(f"{body.names[field.inst_name]} = {self._field(field, whole, body)}")
        options = self._width(node.get_property("regwidth"), node) + option("access", whole, "rw")
        return self._class(node, "Register", options, body)

    def _width(self, width: int, node: RegNode | None = None) -> str:
        """Return the options that tell a register's width, and how it is accessed if that is beyond the bus."""
        options = option("width", width, 32)
        if width > self._bus_width:
            first = self._first if node is None else node.get_property("first_access", default=self._first)
            if first not in ("low", "high"):
                assert node is not None
                raise _unsupported(node, f'first_access is "low" or "high", not {first!r}')
            options += option("access_width", self._bus_width, None) + option("first", first, "low")
        return options

    def _field(self, node: FieldNode, whole: Access, body: _Body) -> str:
        encode, doc = node.get_property("encode"), _doc(node)
        arguments = f"{node.high}" if node.high == node.low else f"{node.high}, {node.low}"
        if encode is not None:
            arguments += f", enum={body.use(self._enum(node, encode))}"
        arguments += option("access", _access(node), whole) + option("doc", doc, "")
        arguments += option("msb0", node.msb < node.lsb, False)
        return f"{body.use('Field')}({arguments})"

    def _enum(self, node: FieldNode, encode: Any) -> str:
        members = list(encode)
        body = _Body(self, enum.IntEnum, [one.name for one in members])
        body.lines += [f"{body.names[one.name]} = {one.value:#x}" for one in members]
        self._used.add("enum")
        return self._named(encode.type_name or node.inst_name, "enum.IntEnum", "", body.lines)

    # ---- Their text ----

    def _class(self, node: Node, base: str, options: str, body: _Body) -> str:
        self._used |= {base} & {*_IMPORTED}
        doc = _doc(node)
        lines = [docstring(doc) + "\n"] * bool(doc) + body.lines
        return self._named(node.orig_type_name or node.inst_name, base, options, lines)

    def _named(self, name: str, base: str, options: str, lines: list[str]) -> str:
        text = "".join(f"    {line}\n" for line in lines) or "    pass\n"
        key = (base + options, f"{name}\n{text}")
        if key not in self._classes:
            self._classes[key] = unique = class_name(name, self._names)
            self._parts.append((unique, f"class {unique}({base}{options}):\n{text}"))
        return self._classes[key]

    def use(self, name: str, declared: Iterable[str]) -> str:
        """Return the name by which the body of a class, which declares these names itself, uses one of the module."""
        if name in declared:
            self._hidden.add(name)
            return f"_{name}"
        self._used.add(name)
        return name


class _Body:
    """The body of one class.

    Attributes:
        names: the name in Python of each instance or member.
        lines: the lines.
    """

    def __init__(self, source: Source, base: type, given: Iterable[str]) -> None:
        self._source = source
        self.lines: list[str] = []
        self.names = fitting_names(given, base)

    def use(self, name: str) -> str:
        """Return the name by which this body uses a class of the module."""
        return self._source.use(name, self.names.values())


def _check_bridge(node: AddrmapNode) -> None:
    """Raise SystemRdlError if the maps of a bridge (section 13.4) overlap: no access reaches all of them."""
    end, before = 0, ""
    for child in sorted(node.children(), key=lambda one: getattr(one, "raw_address_offset", 0)):
        if isinstance(child, AddressableNode):
            if child.raw_address_offset < end:
                which = f"in this bridge, {before} and {child.inst_name} overlap"
                raise _unsupported(node, f"{which}; take the map that the card's bus reaches")
            end, before = child.raw_address_offset + child.total_size, child.inst_name


def _registers(node: Node) -> Iterator[RegNode]:
    for child in node.children():
        if isinstance(child, RegNode):
            yield child
        else:
            yield from _registers(child)


def _accessible(node: AddressableNode) -> bool:
    """Return whether software may access it at all; a mem can have sw = na."""
    return not isinstance(node, MemNode) or _memory_access(node) is not None


def _memory_access(node: MemNode) -> Access | None:
    readable, writable = node.is_sw_readable, node.is_sw_writable
    return "rw" if readable and writable else "ro" if readable else "wo" if writable else None


def _access(node: FieldNode) -> Access:
    """Return what software may do with a field, by sections 9.5 (sw; not na) and 9.6 (onread, onwrite)."""
    software, onwrite = node.get_property("sw"), node.get_property("onwrite")
    reads = _ON_READ[node.get_property("onread")]
    if software is AccessType.r:
        return checked_access(reads or "ro", node.inst_name)
    once = software in (AccessType.rw1, AccessType.w1)
    writes = "rw1" if once else "rw" if onwrite is None else _ON_WRITE[onwrite]
    if software in (AccessType.w, AccessType.w1):
        return checked_access(f"wo{writes.lstrip('rw')}", node.inst_name)
    return checked_access("w" + reads if reads and writes == "rw" else writes + reads, node.inst_name)


def _whole(accesses: Iterable[Access]) -> Access:
    """Return the access of a register, and of its bits outside of the fields, which have no function."""
    kinds = set(accesses)
    effects = [EFFECTS[kind] for kind in kinds]
    reads = any(effect.readable for effect in effects)
    changed = any(effect.read_effect for effect in effects)
    # Bits without a function are neither kept by a read that has an effect, nor written as 1 because writing 0 has one.
    if len(kinds) == 1 and (not effects[0].writable or not (changed or effects[0].write == "zeros")):
        return kinds.pop()
    return "wo" if not reads else "rw" if "rw" in kinds and not changed else "ro"


def _doc(node: Node) -> str:
    """Return the name, if one is given, and the description in one line."""
    name, description = node.get_property("name"), node.get_property("desc")
    parts = [name if name != node.inst_name else "", description or ""]
    return " ".join(": ".join(part for part in parts if part).split())


def _unsupported(node: Node, why: str) -> SystemRdlError:
    reference: Any = node.inst_src_ref or node.def_src_ref
    where = f"{reference.path}:{reference.line}: " if hasattr(reference, "line") else ""
    return SystemRdlError(f"{where}pyuio cannot access {node.get_path()}: {why}")
