# SPDX-License-Identifier: MIT
"""A record of the driver that a PCI function had before pyuio bound another, for later processes.

There is one file for each function in ``/run/pyuio/bindings``. A reboot ends these files and the bindings alike. A
record is trusted only if nobody but root and this user could have written it, and if it describes the same device in
the same boot.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import NamedTuple

from pyuio.kernel import trusted_file
from pyuio.kernel.trusted_file import boot_id
from pyuio.pci.address import ids_of

DIRECTORY = trusted_file.RUN / "bindings"
# The names that the kernel admits for a directory in sysfs, without "." and "..", which lead elsewhere.
_DRIVER = re.compile(r"(?!\.\.?$)[^/\s\0\ud800-\udfff](?:[^/\n\0\ud800-\udfff]{0,62}[^/\s\0\ud800-\udfff])?")
_IDS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")

_log = logging.getLogger("pyuio.binding")


class BindingRecord(NamedTuple):
    """The record of a binding.

    Attributes:
        address: of the function.
        ids: its vendor and device id, ``1234:11e8``.
        driver: the kernel driver that was bound.
        previous: the driver that had the function before pyuio changed anything, or None.
        previous_override: ``driver_override`` before, "" for none.
        boot_id: the kernel's identifier of the boot in which pyuio bound it.
    """

    address: str
    ids: str
    driver: str
    previous: str | None
    previous_override: str
    boot_id: str


def check_driver_name(name: str) -> None:
    """Raise ValueError if `name` cannot be a kernel driver's name; it could be a path to something else."""
    if not _DRIVER.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a kernel driver's name; /sys/bus/pci/drivers has those that are loaded")


def parse(text: str) -> BindingRecord:
    """Return the record in a file's text.

    Raises:
        ValueError: the text is not a record.
    """
    import json

    try:
        data = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(data, dict) or sorted(data) != sorted(BindingRecord._fields):
        raise ValueError(f"not an object of {', '.join(BindingRecord._fields)}")
    drivers = (data["driver"], data["previous"], data["previous_override"])
    if not all(isinstance(value, str) or (value is None and name == "previous") for name, value in data.items()):
        raise ValueError("a value of the wrong type")
    if not all(_DRIVER.fullmatch(name) for name in drivers if name) or not data["driver"] or data["previous"] == "":
        raise ValueError("a name that no driver can have")
    if not _IDS.fullmatch(data["ids"]):
        raise ValueError("ids that are not an id pair")
    return BindingRecord(**data)


def _path(address: str) -> Path:
    return DIRECTORY / f"{address}.json"


def save(record: BindingRecord) -> None:
    """Write a record, whole or not at all.

    Raises:
        PermissionDeniedError: another user can write to the directory.
        OSError: the kernel refused.
    """
    import json

    trusted_file.write(_path(record.address), json.dumps(record._asdict()))


def load(address: str) -> BindingRecord | None:
    """Return the record of a present function, or None if there is none that can be trusted.

    A warning in the log tells of a record that cannot be trusted.
    """
    path = _path(address)
    try:
        record = parse(trusted_file.read(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warning("%s: its former driver is not known: %s: %s", address, path, error)
        return None
    if (record.address, record.ids, record.boot_id) != (address, ids_of(address), boot_id()):
        return None  # it describes another device that was in this slot, or an earlier boot
    return record


def forget(address: str) -> None:
    """Remove the record of a function, if there is one. OSError: the kernel refused."""
    _path(address).unlink(missing_ok=True)
