# SPDX-License-Identifier: MIT
"""The state of a device: its named registers and its configuration space, taken, written as YAML, and read again.

A file looks like this. Numbers are those of the registers; a row of ``bytes`` has 16 bytes of configuration space, and
rows of zeros are left out::

    format: 1
    device: 1234:11e8
    registers:
      bar0:
        identification: 0x10000ed
        status: 0x80
    config:
      size: 0x100
      bytes:
        0x0: 34 12 e8 11 07 01 10 00 10 00 ff 00 00 00 00 00

Whoever wrote a file may be anybody, so `parse` takes nothing but this form: no tags, no aliases, nothing twice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from pyuio.errors import MappingError, RegisterNotFoundError, StateFileError, YamlUnavailableError
from pyuio.inspect.cells import is_harmless
from pyuio.inspect.config_header import DeviceHeader, header_of
from pyuio.inspect.inspection import Inspection
from pyuio.inspect.location import Location, parse_location
from pyuio.registers.register import Register, RegisterInfo
from pyuio.registers.register_map import RegisterMap
from pyuio.registers.snapshot import Change, Snapshot

FORMAT = 1
_LIMIT = 2 << 20  # bytes of a file; 4096 bytes of configuration space and 10,000 registers take less than one MiB
_DEEPEST = 8  # mappings inside each other; a state has three
_NUMBER = re.compile(r"-?(?:0x[0-9a-fA-F]{1,3500}|[0-9]{1,4000})\Z")  # Python shows no number of 4300 digits
_ROW = 16  # bytes of configuration space in a line
_SIZES = (64, 256, 4096)
_BYTES = re.compile(r"[0-9a-f]{2}(?: [0-9a-f]{2}){15}")

Maps = Mapping[str, type[RegisterMap]]
"""The register maps of a device by the name of the space: ``bar0``, ``map0``, or a map's name."""


class State(NamedTuple):
    """What a device held at one time.

    Attributes:
        device: its vendor and device id; of a device that is not a PCI function, the name of its UIO node.
        registers: the values by the name of the space and of the register.
        config: its configuration space; None if it has none.
    """

    device: str
    registers: Mapping[str, Mapping[str, int]]
    config: bytes | None


def take(inspection: Inspection, maps: Maps, *, every: bool = False) -> State:
    """Read the state of a device.

    Args:
        inspection: the device.
        maps: its named registers.
        every: also read registers when reading them has an effect.

    Raises:
        MappingError, DeviceRemovedError, PermissionDeniedError: as `Inspection.space`.
    """
    registers = {space: dict(_read(inspection, space, kind.walk(), every)) for space, kind in maps.items()}
    config = inspection.config.read(0, inspection.config.size) if inspection.has_config else None
    return State(identity(inspection), registers, config)


def _read(inspection: Inspection, space: str, infos: Iterable[RegisterInfo], every: bool) -> Snapshot:
    """Read registers, without those that only a read with an effect gives, unless `every` is set."""
    region = inspection.registers(parse_location(space))
    wanted = [
        info
        for info in infos
        if info.readable and (every or is_harmless(info, driven=info.bank is not None and inspection.is_driven))
    ]
    return Snapshot({info: info.bind(region).read() for info in wanted})


def identity(inspection: Inspection) -> str:
    """Return what a file calls the device: its ids, or the name of its UIO node."""
    return inspection.ids or inspection.uio_name or inspection.name


def require_same_kind(state: State, inspection: Inspection) -> None:
    """Raise StateFileError if a state is that of another kind of device."""
    if state.device != identity(inspection):
        raise StateFileError(f"the state is that of a {state.device}, and {inspection.name} is {identity(inspection)}")


# ---- The file ----


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        reason = f"a saved state needs PyYAML ({error}): pip install 'pyuio-framework[state]'"
        raise YamlUnavailableError(reason) from error
    return yaml


class _Hex(int):
    """A number that is written in hexadecimal."""


def text_of(state: State) -> str:
    """Return a state as the text of a file. YamlUnavailableError: PyYAML is not installed."""
    yaml = _yaml()

    class Dumper(yaml.SafeDumper):  # type: ignore[misc, name-defined]
        pass

    Dumper.add_representer(_Hex, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:int", hex(value)))
    registers = {
        space: {path: _Hex(value) for path, value in values.items()} for space, values in state.registers.items()
    }
    data: dict[str, Any] = {"format": FORMAT, "device": state.device, "registers": registers}
    if state.config is not None:
        rows = {
            _Hex(at): state.config[at : at + _ROW].hex(" ")
            for at in range(0, len(state.config), _ROW)
            if any(state.config[at : at + _ROW])
        }
        data["config"] = {"size": _Hex(len(state.config)), "bytes": rows}
    return str(yaml.dump(data, Dumper=Dumper, sort_keys=False, width=100))


def load(path: Path) -> State:
    """Return the state in a file.

    Raises:
        StateFileError: the file cannot be read, or is no such file.
        YamlUnavailableError: PyYAML is not installed.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_LIMIT + 1)
    except OSError as error:
        raise StateFileError(f"{path}: {error.strerror}") from error
    if len(text) > _LIMIT:
        raise StateFileError(f"{path} has more than {_LIMIT >> 20} MiB, and is no saved state")
    return parse(text, str(path))


def parse(text: bytes, name: str) -> State:
    """Return the state in the text of a file called `name`. Errors: as `load`."""
    data = _Checked(_plain(text, name), name, "the file")
    if data.number("format") != FORMAT:
        data.fail(f"its format is {data.value['format']!r}; this version of pyuio reads format {FORMAT}")
    spaces = data.mapping("registers")
    registers = {space: _values(spaces.mapping(space)) for space in map(spaces.name, spaces.value)}
    config = _config(data.mapping("config")) if "config" in data.value else None
    data.only("format", "device", "registers", "config")
    return State(data.text("device"), registers, config)


def _plain(text: bytes, name: str) -> Any:
    """Return what YAML says, without tags, aliases and keys that come twice; what is no number is text."""
    yaml = _yaml()

    class Loader(yaml.SafeLoader):  # type: ignore[misc, name-defined]
        # YAML's own numbers may take hours: 1:59:59:59... is one, to the base of 60.
        yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}
        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise yaml.composer.ComposerError(
                    None, None, "anchors and aliases are not for this file", event.start_mark
                )
            if getattr(event, "tag", None):
                raise yaml.composer.ComposerError(None, None, "tags are not for this file", event.start_mark)
            if self.depth > _DEEPEST:
                raise yaml.composer.ComposerError(None, None, "it is nested too deeply", event.start_mark)
            self.depth += 1
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = Counter(self.construct_object(key) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            if twice := [key for key, times in keys.items() if times > 1]:
                raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} comes twice", node.start_mark)
            return super().construct_mapping(node, deep)

    def number(loader: Any, node: Any) -> int:
        return int(node.value, 0 if "x" in node.value else 10)

    Loader.add_implicit_resolver("tag:yaml.org,2002:int", _NUMBER, list("-0123456789"))
    Loader.add_constructor("tag:yaml.org,2002:int", number)

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        raise StateFileError(f"{name}{where}: {getattr(error, 'problem', None) or error}") from error
    except (ValueError, TypeError) as error:  # bytes that are no text, an odd key
        raise StateFileError(f"{name}: {error}") from error


class _Checked:
    """A mapping in a file, whose parts are checked when they are asked for.

    Args:
        value: the mapping.
        file: the file's name.
        where: the place in it, for messages.

    Raises:
        StateFileError: it is no mapping.
    """

    def __init__(self, value: Any, file: str, where: str) -> None:
        self._file, self._where = file, where
        if not isinstance(value, dict):
            self.fail("a mapping is needed, as pyuio save writes it")
        self.value: dict[Any, Any] = value

    def fail(self, reason: str) -> Any:
        raise StateFileError(f"{self._file}: {self._where}: {reason[:200]}")

    def _get(self, key: object, kind: type, what: str) -> Any:
        if key not in self.value:
            self.fail(f"{key!r} is missing")
        found = self.value[key]
        if not isinstance(found, kind) or isinstance(found, bool):
            self.fail(f"{key!r} is {found!r}, not {what}")
        return found

    def number(self, key: object) -> int:
        found: int = self._get(key, int, "a number")
        if found < 0:
            self.fail(f"{key!r} is {found}, which is below 0")
        return found

    def text(self, key: object) -> str:
        found: str = self._get(key, str, "text")
        return found

    def mapping(self, key: object) -> _Checked:
        return _Checked(self._get(key, dict, "a mapping"), self._file, str(key))

    def name(self, key: object) -> str:
        if not isinstance(key, str):
            self.fail(f"{key!r} is not a name")
        return str(key)

    def only(self, *keys: str) -> None:
        if unknown := [key for key in self.value if key not in keys]:
            self.fail(f"{unknown[0]!r} is not a part of a saved state")


def _values(registers: _Checked) -> dict[str, int]:
    return {registers.name(path): registers.number(path) for path in registers.value}


def _config(config: _Checked) -> bytes:
    size = config.number("size")
    if size not in _SIZES:
        config.fail(f"the size is 0x40, 0x100 or 0x1000, not {size:#x}")
    rows, image = config.mapping("bytes"), bytearray(size)
    for at in rows.value:
        if not isinstance(at, int) or at % _ROW or not 0 <= at < size:
            rows.fail(f"a row begins at a multiple of {_ROW} below {size:#x}, not at {at!r}")
        if not _BYTES.fullmatch(row := rows.text(at)):
            rows.fail(f"row {at:#x} is not {_ROW} bytes in hexadecimal")
        image[at : at + _ROW] = bytes.fromhex(row)
    config.only("size", "bytes")
    return bytes(image)


# ---- Comparing ----


class Difference(NamedTuple):
    """A register whose value in a state is not the one that the device has.

    Attributes:
        place: the register, by name; in configuration space beyond the header, by offset.
        change: the values, saved and present.
    """

    place: Location
    change: Change

    def __str__(self) -> str:
        named = str(self.change)
        return f"{self.place.space}.{named}" if self.place.name else f"{self.place} {named.partition(' ')[2]}"

    def data(self) -> dict[str, Any]:
        """Return it as data for JSON."""
        fields = {name: {"saved": saved, "present": now} for name, (saved, now) in self.change.fields.items()}
        found = {"place": str(self.place), "saved": self.change.before, "present": self.change.after}
        return {**found, "fields": fields} if fields else found

    def reversed(self) -> Difference:
        """Return the difference from the device to the state."""
        change = self.change
        return self._replace(change=change._replace(before=change.after, after=change.before))

    @property
    def restorable(self) -> bool:
        """Whether `put_back` may write it: not in configuration space, and a write does nothing but store the value."""
        layout = self.change.info.layout
        plain = layout.updatable and not layout.ones and not layout.zeros and not layout.blind
        changed = (self.change.before ^ self.change.after) & layout.needed
        return not self.place.is_config and plain and bool(changed)


def put_back(inspection: Inspection, difference: Difference) -> bool:
    """Write the saved value of a register that is `restorable`, and return whether the register holds it then.

    Bits that cannot be written keep the value that was read. A register of several accesses takes several writes.

    Raises:
        DeviceRemovedError: the device is gone.
    """
    info, saved, present = difference.change
    stored = info.layout.needed
    register = info.bind(inspection.registers(difference.place))
    register.write(saved & stored | present & ~stored)
    return not (register.read() ^ saved) & stored


def snapshots(state: State, maps: Maps) -> dict[str, Snapshot]:
    """Return the saved values of registers as snapshots, in the order of their offsets, by the name of the space.

    Raises:
        StateFileError: the maps have no such space or register, or it cannot hold the value.
    """
    found = {}
    for space, values in state.registers.items():
        if space not in maps:
            raise StateFileError(
                f"the state has registers of {space}; there are names for: {', '.join(maps) or 'none'}"
            )
        infos = {}
        for path, value in values.items():
            try:
                info = maps[space].find(path)
            except RegisterNotFoundError as error:
                raise StateFileError(f"the state has {space}.{path}, but {error}") from error
            if info.field is not None or not info.readable:
                what = "a field, not a register" if info.field is not None else "write-only"
                raise StateFileError(f"the state has {space}.{path}, which is {what}")
            if value >> info.width:
                raise StateFileError(f"the state has {value:#x} for {space}.{path}, which has {info.width} bits")
            infos[info] = value
        found[space] = Snapshot(dict(sorted(infos.items(), key=lambda item: item[0].offset)))
    return found


def compare(
    state: State, inspection: Inspection, maps: Maps, *, every: bool = False
) -> tuple[list[Difference], list[Location]]:
    """Return what differs between a state and a device; this reads the registers that the state has, and no others.

    The second list has the registers that were not compared, because reading them has an effect.

    Args:
        state: the saved state.
        inspection: the device.
        maps: its named registers.
        every: also read registers when reading them has an effect.

    Raises:
        StateFileError: as `snapshots`, or the state is that of another kind of device.
        MappingError, DeviceRemovedError, PermissionDeniedError: as `Inspection.space`.
    """
    require_same_kind(state, inspection)
    saved = snapshots(state, maps)
    if state.config is not None and not inspection.has_config:
        raise MappingError(0, f"{inspection.name} has no configuration space")
    found, unread = [], []
    for space, before in saved.items():
        where = parse_location(space)
        after = _read(inspection, space, before.infos, every)
        unread += [where.at(info.offset, info.path) for info in before.infos if info.path not in after]
        found += [Difference(where.at(one.info.offset, one.path), one) for one in before.diff(after)]
    if state.config is not None:
        found += _config_differences(state.config, inspection.config.read(0, inspection.config.size))
    return found, unread


class _Word(RegisterMap):
    """32 bits of configuration space that have no name here."""

    value = Register(0, access="ro")


def _config_differences(before: bytes, after: bytes) -> list[Difference]:
    place = parse_location("config")
    kind = header_of(after)
    changes = kind(bytearray(before[:64])).snapshot().diff(kind(bytearray(after[:64])).snapshot())
    found = [Difference(place.at(one.info.offset, one.path), one) for one in changes]
    word = _Word.find("value")
    for at in range(64 if kind is DeviceHeader else 16, min(len(before), len(after)), 4):
        one, other = (int.from_bytes(image[at : at + 4], "little") for image in (before, after))
        if one != other:
            found.append(Difference(place.at(at), Change(word, one, other)))
    return found
