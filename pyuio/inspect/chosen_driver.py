# SPDX-License-Identifier: MIT
"""The driver that knows a device's registers: an installed one, or one in a file that the command line names.

A file of Python is a program, and whoever can write to its directory chooses what it does. So pyuio, which often runs
as root here, takes none that another user could have put there (`pyuio.kernel.trusted_import`).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pyuio.errors import DriverLoadError, DriverNotFoundError
from pyuio.installed_drivers import checked_driver, driver_for, installed_drivers
from pyuio.kernel import trusted_import
from pyuio.kernel.trusted_directory import stranger

if TYPE_CHECKING:
    from types import ModuleType

    from pyuio.device import Device
    from pyuio.driver import Driver
    from pyuio.inspect.inspection import Inspection

FORMS = "FILE.py:CLASS, or the name of an installed driver (pyuio probe)"


def driver_of(device: Inspection | Device, text: str | None) -> type[Driver]:
    """Return the class of the driver for a device.

    Args:
        device: the device.
        text: names the driver, as `load` takes it; None for the installed one that serves the device.

    Raises:
        UnsupportedDeviceError: the driver that `text` names does not serve the device.
        DriverNotFoundError, AmbiguousDriverError: as `driver_for` and `load`.
        DriverLoadError: as `load`.
    """
    if text is None:
        return driver_for(device.ids, device.class_code, device.uio_name, device.compatible)
    driver = load(text)
    driver._require_served(cast("Device", device))  # an Inspection has what this looks at
    return driver


def load(text: str) -> type[Driver]:
    """Return the driver that a text names.

    Args:
        text: ``FILE.py:CLASS``, or the name of an installed driver.

    Raises:
        DriverNotFoundError: there is no such file, class or installed driver.
        DriverLoadError: it cannot be loaded, is no driver, or another user could have written it.
    """
    path, colon, name = text.rpartition(":")
    if not colon:
        return _installed(text)
    if not path.endswith(".py") or not name.isidentifier():
        raise DriverNotFoundError(f"{text!r} names no driver; a driver is {FORMS}")
    where = f"the driver {text}"
    module = _module(Path(path), where)
    if not hasattr(module, name):
        has = ", ".join(key for key, value in vars(module).items() if _is_own_driver(value, module)) or "none"
        raise DriverNotFoundError(f"{path} has no class {name}; the drivers in it: {has}")
    return checked_driver(getattr(module, name), where, "mend that file")


def _is_own_driver(value: object, module: ModuleType) -> bool:
    from pyuio.driver import Driver

    return isinstance(value, type) and issubclass(value, Driver) and value.__module__ == module.__name__


def _installed(name: str) -> type[Driver]:
    drivers = installed_drivers()
    found = {driver.driver for driver in drivers if driver.name == name}
    if len(found) == 1:
        return found.pop()
    if found:
        raise DriverNotFoundError(f"{len(found)} installed packages have a driver called {name}; uninstall all but one")
    has = ", ".join(map(str, drivers)) or "none"
    raise DriverNotFoundError(f"{name!r} names no driver; a driver is {FORMS}; there are: {has}")


def _module(path: Path, where: str) -> ModuleType:
    """Import a file, and return its module. What lies beside the file can be imported, too, after all else."""
    try:
        file = path.resolve(strict=True)
        place = stranger(path)  # a link leads to another directory
    except OSError as error:
        raise DriverNotFoundError(f"{path}: {error.strerror}") from error
    if place is not None:
        reason = f"another user can write to {place}, and so choose what the driver does"
        raise DriverLoadError(f"{where} is not loaded: {reason}; put it into a directory of your own")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise DriverLoadError(f"{where} cannot be loaded: {file} is no file of Python")
    try:
        trusted_import.require_own(spec)
    except trusted_import.StrangersModuleError as error:
        raise DriverLoadError(f"{where} is not loaded: {error}") from None
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses, and modules beside it that import it, look for it.
    before = sys.modules.setdefault(file.stem, module)
    trusted_import.import_from(file.parent)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # somebody else's module may raise anything
        if before is module:
            del sys.modules[file.stem]
        raise DriverLoadError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
    return module
