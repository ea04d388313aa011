# SPDX-License-Identifier: MIT
"""What software may do with a register or a field, and what that does: `Access` and `Effect`.

Import `Access` from `pyuio.registers`.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

# fmt: off
Access: TypeAlias = Literal[
    "ro", "wo", "rw", "w1c", "w1s", "w1t", "rc", "special",
    "w0c", "w0s", "w0t", "wc", "ws", "wu", "rw1", "rs", "ru",
    "wo1c", "wo1s", "wo1t", "wo0c", "wo0s", "wo0t", "woc", "wos", "wou", "wo1",
    "wrc", "w1crc", "w1src", "w1trc", "w0crc", "w0src", "w0trc", "wcrc", "wsrc", "wurc", "rw1rc",
    "wrs", "w1crs", "w1srs", "w1trs", "w0crs", "w0srs", "w0trs", "wcrs", "wsrs", "wurs", "rw1rs",
    "wru", "w1cru", "w1sru", "w1tru", "w0cru", "w0sru", "w0tru", "wcru", "wsru", "wuru", "rw1ru",
]
"""What software may do with a register, or a field of one. The names are those of UVM's field access policies, if it
has one; the rest is made in the same way:

* ``ro``, ``wo``, ``rw``: read, write, both. pyuio assumes that writing 0 to a wo field beside others has no effect.
* ``w1c``, ``w1s``, ``w1t``: reading has no effect; writing 1 to a bit clears, sets or toggles it, writing 0 does not.
* ``w0c``, ``w0s``, ``w0t``: writing 0 to a bit clears, sets or toggles it, writing 1 does not.
* ``wc``, ``ws``, ``wu``: any write clears the bits, sets them, or has another effect.
* ``rw1``: the first write after a reset counts, later ones do not.
* ``rc``, ``rs``, ``ru``: read-only, and reading clears the bits, or takes an entry from a queue; sets them; or has
  another effect.
* ``wo1c``, ``wo0c``, ``woc``, ``wo1`` and so on: like ``w1c``, ``w0c``, ``wc``, ``rw1``, and cannot be read.
* ``wrc``, ``w1crs`` and so on: writing is as in ``rw``, ``w1c``; reading has the effect of ``rc``, ``rs``.
* ``special``: read and write, with effects that none of the above describes.
"""
# fmt: on
ACCESSES: tuple[Access, ...] = get_args(Access)


class Effect(NamedTuple):
    """What an access does to the bits."""

    readable: bool
    read_effect: bool
    """Reading changes something."""
    write: Literal["none", "value", "ones", "zeros", "any"]
    """Which writes have an effect: none is possible; the value is stored; written 1s act; written 0s act; each acts."""

    @property
    def writable(self) -> bool:
        """Whether it may be written."""
        return self.write != "none"


_WRITES: dict[str, Literal["ones", "zeros", "any"]] = {
    **dict.fromkeys(("w1c", "w1s", "w1t"), "ones"),
    **dict.fromkeys(("w0c", "w0s", "w0t"), "zeros"),
    **dict.fromkeys(("wc", "ws", "wu", "rw1"), "any"),
}
EFFECTS: dict[str, Effect] = {
    "ro": Effect(True, False, "none"),
    "wo": Effect(False, False, "value"),
    "rw": Effect(True, False, "value"),
    "special": Effect(True, True, "any"),
    **{read: Effect(True, True, "none") for read in ("rc", "rs", "ru")},
    **{f"w{read}": Effect(True, True, "value") for read in ("rc", "rs", "ru")},
    **{name: Effect(True, False, write) for name, write in _WRITES.items()},
    **{f"wo{name.lstrip('rw')}": Effect(False, False, write) for name, write in _WRITES.items()},
    **{f"{name}{read}": Effect(True, True, write) for name, write in _WRITES.items() for read in ("rc", "rs", "ru")},
}
"""The effect of each access."""


def checked_access(access: str, what: str) -> Access:
    """Return `access`, or raise ValueError."""
    for known in ACCESSES:
        if access == known:
            return known
    raise ValueError(
        f"{what}: access is one of {', '.join(ACCESSES[:8])}, or another of pyuio.registers.Access, not {access!r}"
    )
