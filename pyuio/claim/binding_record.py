# SPDX-License-Identifier: MIT
"""Which driver a PCI function had before pyuio bound another, kept where a later process finds it.

One file for each function in ``/run/pyuio/bindings``, which is gone after a reboot, as the bindings are. It is believed
only if root, or this user, alone could have written it, and if it is about the same device in the same boot.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from pyuio.kernel import trusted_file
from pyuio.kernel.trusted_file import boot_id
from pyuio.pci.address import ids_of

DIRECTORY = trusted_file.RUN / "bindings"
# What the kernel lets be a directory's name in sysfs, less what leads elsewhere.
_DRIVER = re.compile(r"(?!\.\.?$)[^/\s\0\ud800-\udfff](?:[^/\n\0\ud800-\udfff]{0,62}[^/\s\0\ud800-\udfff])?")
_IDS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")

_log = logging.getLogger("pyuio.binding")


@dataclass(frozen=True)
class BindingRecord:
    """What is remembered of a binding.

    Attributes:
        address: of the function.
        ids: its vendor and device id, ``1234:11e8``.
        driver: the kernel driver that was bound.
        previous: the driver that had the function before pyuio changed anything, or None.
        previous_override: ``driver_override`` before, "" for none.
        boot_id: of the boot that this was in.
    """

    address: str
    ids: str
    driver: str
    previous: str | None
    previous_override: str
    boot_id: str


def check_driver_name(name: str) -> None:
    """Raise ValueError for what cannot be the name of a kernel driver, as it would be a path to something else."""
    if not _DRIVER.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a kernel driver's name; /sys/bus/pci/drivers has those that are loaded")


def parse(text: str) -> BindingRecord:
    """Return the record in a file's text.

    Raises:
        ValueError: it is not one.
    """
    import json

    try:
        data = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    names = [field.name for field in dataclasses.fields(BindingRecord)]
    if not isinstance(data, dict) or sorted(data) != sorted(names):
        raise ValueError(f"not an object of {', '.join(names)}")
    drivers = (data["driver"], data["previous"], data["previous_override"])
    if not all(isinstance(value, str) or (value is None and name == "previous") for name, value in data.items()):
        raise ValueError("a value of the wrong type")
    if not all(_DRIVER.fullmatch(name) for name in drivers if name) or not data["driver"] or data["previous"] == "":
        raise ValueError("a driver's name that cannot be one")
    if not _IDS.fullmatch(data["ids"]):
        raise ValueError("an id pair that is none")
    return BindingRecord(**data)


def _path(address: str) -> Path:
    return DIRECTORY / f"{address}.json"


def save(record: BindingRecord) -> None:
    """Write a record, whole or not at all.

    Raises:
        PermissionDeniedError: the directory belongs to another user.
        OSError: the kernel refused.
    """
    import json

    trusted_file.write(_path(record.address), json.dumps(dataclasses.asdict(record)))


def load(address: str) -> BindingRecord | None:
    """Return what is remembered of a function that is there, or None for nothing, or nothing that can be believed.

    What cannot be believed is logged as a warning.
    """
    path = _path(address)
    try:
        record = parse(trusted_file.read(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warning("%s: what driver it had is not known: %s: %s", address, path, error)
        return None
    if (record.address, record.ids, record.boot_id) != (address, ids_of(address), boot_id()):
        return None  # of another device that was in this place, or from before a reboot
    return record


def forget(address: str) -> None:
    """Remove what is remembered of a function, if anything is. OSError: the kernel refused."""
    _path(address).unlink(missing_ok=True)
