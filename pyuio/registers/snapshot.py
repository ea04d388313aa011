# SPDX-License-Identifier: MIT
"""The values of a map's registers at one time, and what differs between two times: `RegisterMap.snapshot`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pyuio.registers.register import RegisterInfo


class Change(NamedTuple):
    """A register that two snapshots have with different values.

    Attributes:
        info: its name, place and declaration.
        before: its value in the first snapshot.
        after: its value in the second.
    """

    info: RegisterInfo
    before: int
    after: int

    @property
    def path(self) -> str:
        """The register's name in the map."""
        return self.info.path

    @property
    def fields(self) -> dict[str, tuple[int, int]]:
        """The values before and after of each field that differs and can be read, by its name."""
        found = {}
        for name, field in self.info.fields.items():
            values = field.extract(self.before), field.extract(self.after)
            if values[0] != values[1] and self.info.layout.reads(field):
                found[name] = values
        return found

    def __str__(self) -> str:
        """Return the values of the register, and the fields that differ: ``status 0x00 -> 0x80  interrupt 0 -> 1``."""
        digits = self.info.width // 4 + 2
        shown = f"{self.path} {self.before:#0{digits}x} -> {self.after:#0{digits}x}"
        fields = self.info.fields
        parts = [f"{name} {fields[name].text(self.before)} -> {fields[name].text(self.after)}" for name in self.fields]
        return f"{shown}  {', '.join(parts)}" if parts else shown


class Snapshot(Mapping[str, int]):
    """The values of registers by their names, as in ``before["dma.channel[2].count"]``; it does not change.

    Args:
        values: the value of each register, by its declaration.

    Attributes:
        infos: the declarations, in the order of `values`.
    """

    def __init__(self, values: Mapping[RegisterInfo, int]) -> None:
        self.infos = tuple(values)
        self._values = {info.path: value for info, value in values.items()}

    def __getitem__(self, path: str) -> int:
        return self._values[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def diff(self, later: Snapshot) -> list[Change]:
        """Return the registers whose bits that can be read differ, in the order of this snapshot.

        Args:
            later: another snapshot of the same kind of map. A register that only one of them has is left out.

        Raises:
            TypeError: `later` is no snapshot.
        """
        if not isinstance(later, Snapshot):
            raise TypeError(f"a snapshot is compared with another snapshot(), not with a {type(later).__name__}")
        return [
            Change(info, self[path], later[path])
            for path, info in ((info.path, info) for info in self.infos)
            if path in later and (self[path] ^ later[path]) & info.layout.readable
        ]

    def __repr__(self) -> str:
        return f"<Snapshot of {len(self)} registers>"
