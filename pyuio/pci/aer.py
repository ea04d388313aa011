# SPDX-License-Identifier: MIT
"""Errors on PCI Express links that functions report (Advanced Error Reporting), as the kernel counts them.

A correctable error was repaired by the link itself. After a nonfatal one, a transaction is lost. After a fatal one the
link is not reliable any more, and the kernel resets it, with every function behind it.

Sources: PCI Express Base Specification 5.0, section 6.2; Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats
(``drivers/pci/pcie/aer.c``). Any user may read the counters. They are there if the function has the capability, and
start at 0 when the kernel finds the function.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pyuio.kernel.sysfs import read_optional, read_optional_number
from pyuio.pci.reset import bridge_above

_LINE = re.compile(r"(.*\S)\s+([0-9]{1,20})")
_SERVICES = Path("/sys/bus/pci_express/drivers/aer")


class Errors(NamedTuple):
    """Errors of one severity.

    Attributes:
        total: messages that told of errors; one may tell of several.
        by_name: those that came at least once, by the kernel's name: ``{"BadTLP": 2}``.
    """

    total: int
    by_name: Mapping[str, int]

    def since(self, before: Errors) -> Errors:
        """Return what came after `before`; everything, if the counters have begun anew."""
        if self.total < before.total:
            return self
        came = {name: count - before.by_name.get(name, 0) for name, count in self.by_name.items()}
        return Errors(self.total - before.total, {name: count for name, count in came.items() if count > 0})

    def __str__(self) -> str:
        names = ", ".join(f"{name} {count}" for name, count in self.by_name.items())
        return f"{self.total}{f' ({names})' if names else ''}"


_NONE = Errors(0, {})


class LinkErrors(NamedTuple):
    """The errors that a function has reported: of its own, and those that it has seen on its link.

    What is wrong with a card may be counted at the port above it, which sees it. A fatal error that a card reports is
    counted at the root port alone.

    Attributes:
        correctable: repaired by the link; performance alone was lost.
        nonfatal: a transaction was lost.
        fatal: the kernel has reset the link.
    """

    correctable: Errors = _NONE
    nonfatal: Errors = _NONE
    fatal: Errors = _NONE

    def since(self, before: LinkErrors) -> LinkErrors:
        """Return what came after `before`."""
        return LinkErrors(*(now.since(then) for now, then in zip(self, before, strict=True)))

    @property
    def uncorrectable(self) -> int:
        """How many messages told of errors that were not correctable."""
        return self.nonfatal.total + self.fatal.total

    def __bool__(self) -> bool:
        return any(errors.total or errors.by_name for errors in self)

    def __str__(self) -> str:
        """Return those that came: ``correctable 3 (BadTLP 3), fatal 1 (DLP 1)``; ``none`` if none came."""
        told = ((name, errors) for name, errors in zip(self._fields, self, strict=True) if errors != _NONE)
        return ", ".join(f"{name} {errors}" for name, errors in told) or "none"


def parse_errors(text: str) -> Errors:
    """Return the errors in the text of a counter: lines ``BadTLP 2``, then ``TOTAL_ERR_COR 2``; other lines are left.

    Kernels before 5.3 have names with blanks: ``Bad TLP 2``.
    """
    total, by_name = 0, {}
    for line in text.splitlines():
        if (match := _LINE.fullmatch(line.strip())) is None:
            continue
        name, count = match[1], int(match[2])
        if name.startswith("TOTAL_"):
            total = count
        elif count:
            by_name[name] = count
    return Errors(total, by_name)


def read_link_errors(directory: Path) -> LinkErrors | None:
    """Return the errors of the function with this directory in sysfs; None if the kernel has no counters for it.

    Raises:
        DeviceRemovedError: the function is going at this moment.
    """
    texts = [read_optional(directory / f"aer_dev_{severity}") for severity in LinkErrors._fields]
    if any(text is None for text in texts):
        return None
    errors = LinkErrors(*(parse_errors(text or "") for text in texts))
    # The kernel asks no function behind a link on which it was told of a fatal error (aer_get_device_error_info).
    fatal = read_optional_number(directory / "aer_rootport_total_err_fatal")
    return errors._replace(fatal=Errors(max(fatal, errors.fatal.total), errors.fatal.by_name))


def ports_above(directory: Path) -> Iterator[Path]:
    """Yield the directories of the ports, or bridges, between a function and the root, from the nearest one on."""
    while (above := bridge_above(directory)) is not None:
        yield above
        directory = above


def is_counted(directory: Path) -> bool:
    """Return whether the kernel gets the errors of a function, and so counts them.

    Otherwise the firmware has them (_OSC; "firmware first"), or the kernel was told to leave them (``pci=noaer``).
    The errors of a function on the root bus come to an event collector (``pcie602``: drivers/pci/pcie/portdrv.h).
    """
    function = directory.resolve()
    root = [function, *ports_above(function)][-1]
    services = [*_SERVICES.glob(f"{root.name}:*"), *(_SERVICES.glob("*:pcie602") if root == function else ())]
    return bool(services)


def fatal_errors(directory: Path) -> int:
    """Return how many fatal errors were counted for which the kernel resets a function.

    The kernel resets all behind the port that reports the error, or that is above the function that does
    (``drivers/pci/pcie/err.c``, pcie_do_recovery).
    """
    functions = {directory.resolve()}
    for port in ports_above(directory):
        functions |= {port, *port.glob("*:*:*.*")}
    counted = map(read_link_errors, functions)
    return sum(errors.fatal.total for errors in counted if errors is not None)
