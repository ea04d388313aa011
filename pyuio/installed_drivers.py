# SPDX-License-Identifier: MIT
"""The drivers that installed packages publish, in the entry-point group ``pyuio.drivers``.

A package's pyproject.toml names its driver's class there, as in ``edu = "pyuio_drivers.edu:Edu"``. pyuio loads a class
when it needs it. A class that does not load does not affect the others.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyuio.driver import Driver
from pyuio.errors import AmbiguousDriverError, DriverLoadError, DriverNotFoundError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "pyuio.drivers"
OWN = "pyuio-framework"  # this distribution; other packages' drivers have precedence over its sample drivers

_IDS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")


@dataclass(frozen=True)
class InstalledDriver:
    """A driver that an installed package publishes.

    Attributes:
        name: of the entry point, as in ``edu``.
        distribution: the package that publishes it, as in ``pyuio-framework``; "" if the metadata does not tell.
        entry_point: tells where the driver's class is.
    """

    name: str
    distribution: str
    entry_point: EntryPoint = field(repr=False)

    @functools.cached_property
    def driver(self) -> type[Driver]:
        """The class, loaded at the first use. DriverLoadError: it cannot be loaded, or is not a driver."""
        where = f"the driver {self.name} ({self.entry_point.value}, of {self.distribution or 'an unknown package'})"
        remedy = "repair that package or remove it (pip uninstall)"
        try:
            loaded = self.entry_point.load()
        except (Exception, SystemExit) as error:  # somebody else's module may raise anything
            raise DriverLoadError(f"{where} cannot be loaded: {type(error).__name__}: {error}; {remedy}") from error
        return checked_driver(loaded, where, remedy)

    @property
    def ids(self) -> tuple[str, ...]:
        """The id pairs that it serves. DriverLoadError: as `driver`."""
        return self.driver.ids

    @property
    def class_codes(self) -> tuple[int, ...]:
        """The class codes that it serves, 24 bits each. DriverLoadError: as `driver`."""
        return self.driver.class_codes

    @property
    def uio_names(self) -> tuple[str, ...]:
        """The names of UIO nodes that it serves. DriverLoadError: as `driver`."""
        return self.driver.uio_names

    @property
    def compatible(self) -> tuple[str, ...]:
        """What it serves by the device tree. DriverLoadError: as `driver`."""
        return self.driver.compatible

    def serves(
        self,
        ids: str | None,
        class_code: int | None = None,
        uio_name: str | None = None,
        compatible: Sequence[str] = (),
    ) -> bool:
        """Return whether it serves these ids, this class of cards, a node of this name, or what is compatible so.

        Raises:
            DriverLoadError: as `driver`.
        """
        by_class = class_code is not None and class_code in self.class_codes
        by_name = uio_name is not None and uio_name in self.uio_names
        by_tree = bool(compatible) and not set(compatible).isdisjoint(self.compatible)
        return by_class or by_name or by_tree or (ids is not None and ids.lower() in self.ids)

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution})" if self.distribution else self.name


def checked_driver(loaded: object, where: str, remedy: str) -> type[Driver]:
    """Return what was loaded as a driver's class.

    Args:
        loaded: it.
        where: names it in the message.
        remedy: what to do if it is none.

    Raises:
        DriverLoadError: it is not a driver, or says in a wrong form what it serves.
    """
    if not (isinstance(loaded, type) and issubclass(loaded, Driver)):
        raise DriverLoadError(f"{where} is not a class derived from pyuio.Driver; {remedy}")
    if not (isinstance(loaded.ids, tuple) and all(isinstance(ids, str) and _IDS.fullmatch(ids) for ids in loaded.ids)):
        raise DriverLoadError(f"{where}: its ids are {loaded.ids!r}, not as in ('1234:11e8',); {remedy}")
    for kind, example in (("uio_names", "regs"), ("compatible", "arm,pl031")):
        names = getattr(loaded, kind)
        if not (isinstance(names, tuple) and all(isinstance(name, str) for name in names)):
            raise DriverLoadError(f"{where}: its {kind} are {names!r}, not as in ({example!r},); {remedy}")
    return loaded


def installed_drivers() -> list[InstalledDriver]:
    """Return the drivers of all installed packages, sorted by name. Their classes are not loaded yet."""
    from importlib.metadata import entry_points

    found = {
        InstalledDriver(point.name, point.dist.name if point.dist else "", point): None
        for point in entry_points(group=GROUP)
    }
    return sorted(found, key=lambda driver: (driver.name, driver.distribution))


def drivers_for(
    ids: str | None, class_code: int | None = None, uio_name: str | None = None, compatible: Sequence[str] = ()
) -> tuple[list[InstalledDriver], list[DriverLoadError]]:
    """Return the drivers that serve a device, by any of these, and the errors of those that do not load.

    Args:
        ids: as in ``1234:11e8``; None, which no driver serves, if the device is not a PCI function.
        class_code: 24 bits, base class first; None not to look at it.
        uio_name: the name of the device's UIO node; None not to look at it.
        compatible: what the device tree says that the device is compatible with.
    """
    serving, failures = [], []
    for installed in installed_drivers():
        try:
            if installed.serves(ids, class_code, uio_name, compatible):
                serving.append(installed)
        except DriverLoadError as error:
            failures.append(error)
    return serving, failures


def driver_for(
    ids: str | None, class_code: int | None = None, uio_name: str | None = None, compatible: Sequence[str] = ()
) -> type[Driver]:
    """Return the class of the driver that serves a device.

    A driver that names the node has precedence over one that names the ids, and that one over one that serves the
    class. Another package's driver has precedence over pyuio's own samples.

    Args:
        ids: as in ``1234:11e8``; None, which no driver serves, if the device is not a PCI function.
        class_code: 24 bits, base class first; None not to look at it.
        uio_name: the name of the device's UIO node; None not to look at it.
        compatible: what the device tree says that the device is compatible with.

    Raises:
        DriverNotFoundError: no installed driver serves them; the message lists the installed drivers, and those that
            did not load.
        AmbiguousDriverError: several drivers serve them.
    """
    serving, failures = drivers_for(ids, class_code, uio_name, compatible)
    by_name = [installed for installed in serving if installed.serves(None, None, uio_name)]
    serving = by_name or [installed for installed in serving if installed.serves(ids)] or serving
    serving = [installed for installed in serving if installed.distribution != OWN] or serving
    what = ids or (f"the node {uio_name}" if uio_name else "a device that is not a PCI function")
    if len({installed.driver for installed in serving}) > 1:
        listing = ", ".join(map(str, serving))
        raise AmbiguousDriverError(f"{len(serving)} installed drivers serve {what}: {listing}; uninstall all but one")
    if serving:
        return serving[0].driver
    names = ", ".join(map(str, installed_drivers())) or "none"
    unloaded = "".join(f"\n  {error}" for error in failures)
    reason = f"no installed driver serves {what}; there are: {names}"
    raise DriverNotFoundError(f"{reason}; a package publishes one in the entry-point group {GROUP}{unloaded}")
