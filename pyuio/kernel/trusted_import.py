# SPDX-License-Identifier: MIT
"""Importing from a directory, but nothing that another user could have written there: modules beside a driver, a card.

What Python loads is looked at when it is imported: the file, its directory, the compiled file in ``__pycache__``, and
the packages around it, also those without ``__init__.py``.
"""

from __future__ import annotations

import os
import sys
from importlib import machinery
from pathlib import Path
from typing import TYPE_CHECKING

from pyuio.errors import PyuioError
from pyuio.kernel.trusted_directory import stranger

if TYPE_CHECKING:
    from types import ModuleType

_LOADERS = (
    (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
    (machinery.SourceFileLoader, machinery.SOURCE_SUFFIXES),
    (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
)


class StrangersModuleError(PyuioError, ImportError):
    """Another user can write to what would be imported."""


def require_own(spec: machinery.ModuleSpec) -> None:
    """Raise StrangersModuleError if another user can choose what is loaded for a module.

    Args:
        spec: of the module, which is found in a file or, as a package, in directories.
    """
    files = [Path(one) for one in (spec.origin, spec.cached) if one is not None]
    directories = [Path(one) for one in (*(spec.submodule_search_locations or ()), *(file.parent for file in files))]
    for path in (*directories, *files):
        if path.exists() and (place := stranger(path, open_to_new_files=False)) is not None:
            reason = f"another user can write to {place}, and so choose what {spec.name} does"
            raise StrangersModuleError(f"{reason}; put it into a directory of your own", name=spec.name)


def import_from(directory: Path, *, first: bool = False) -> None:
    """Have Python look for modules in a directory, too, until it ends; see `require_own`.

    If it looks there already, nothing changes: somebody, by ``PYTHONPATH`` for example, trusts what is there.

    Args:
        directory: absolute.
        first: look there before all other places, and not after them.
    """
    if str(directory) in sys.path:
        return
    places = {str(directory)}

    class Finder(machinery.FileFinder):
        """Finds modules in one of the places; packages that it finds are more of them."""

        def find_spec(self, fullname: str, target: ModuleType | None = None) -> machinery.ModuleSpec | None:
            spec = super().find_spec(fullname, target)
            if spec is not None:
                require_own(spec)
                places.update(spec.submodule_search_locations or ())
            return spec

    def hook(path: str) -> Finder:
        if path not in places or not os.path.isdir(path):  # noqa: PTH112  # a path that is no place costs nothing
            raise ImportError(path)
        return Finder(path, *_LOADERS)

    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.pop(str(directory), None)
    sys.path.insert(0 if first else len(sys.path), str(directory))
