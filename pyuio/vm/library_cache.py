# SPDX-License-Identifier: MIT
"""The cache in which glibc's loader and ctypes look for libraries, for a system whose ldconfig does not run here.

The format is that of ldconfig since glibc 2.2: ``struct cache_file_new`` in glibc's sysdeps/generic/dl-cache.h. In the
guest ldconfig itself would take a second and a half at each start.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER, _ENTRY = "20sIIB3xI12x", "iIIIQ"
# The byte order of numbers, and how the file says so.
_LITTLE_ENDIAN, _BIG_ENDIAN = ("<", 2), (">", 3)
# sysdeps/generic/ldconfig.h: FLAG_ELF_LIBC6, and the kind of processor.
_FLAGS = {"arm64": 0x0A03, "amd64": 0x0303, "s390x": 0x0403}


def write(tree: Path, architecture: str, directories: tuple[str, ...]) -> None:
    """Write ``etc/ld.so.cache`` of a system.

    Args:
        tree: where the system's root is here.
        architecture: Debian's name for its processor.
        directories: where its libraries are, below the root; the first that has a library comes first.
    """
    found: dict[str, str] = {}
    for directory in directories:
        for path in (tree / directory).glob("lib*.so*"):
            found.setdefault(path.name, f"/{directory}/{path.name}")
    order, order_mark = _BIG_ENDIAN if architecture == "s390x" else _LITTLE_ENDIAN
    header, entry = struct.Struct(order + _HEADER), struct.Struct(order + _ENTRY)
    entries, strings = b"", b""
    first = header.size + len(found) * entry.size
    for name in sorted(found, key=_order, reverse=True):
        key = first + len(strings)
        strings += name.encode() + b"\0"
        value = first + len(strings)
        strings += found[name].encode() + b"\0"
        entries += entry.pack(_FLAGS[architecture], key, value, 0, 0)
    begin = header.pack(_MAGIC, len(found), len(strings), order_mark, 0)
    (tree / "etc/ld.so.cache").write_bytes(begin + entries + strings)


def _order(name: str) -> tuple[tuple[bool, int], ...]:
    """Return what a name is sorted by: numbers in it count as such (_dl_cache_libcmp in elf/dl-cache.c)."""
    return tuple((part.isdigit(), int(part) if part.isdigit() else ord(part)) for part in re.findall(r"\d+|\D", name))
