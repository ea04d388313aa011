# SPDX-License-Identifier: MIT
"""Imports at the first use, by packages whose names are in modules that not every program needs.

A child that is forked amid an import in another thread would wait for ever if it imported the same, because Python does
not release the locks of imports in a child. So a fork waits for these imports.
"""

from __future__ import annotations

import logging  # noqa: F401 - here, as its own hooks complain if they are registered amid a fork
import os
import threading
from contextlib import suppress
from importlib import import_module
from typing import Any

_importing = threading.RLock()
os.register_at_fork(before=_importing.acquire, after_in_parent=_importing.release, after_in_child=_importing.release)


def late(module: str) -> Any:
    """Import a module, and return it. No module of pyuio may call this when it is imported itself."""
    with _importing:
        return import_module(module)


def release_after_fork(lock: threading.RLock) -> None:
    """Release a lock that was taken before the fork, unless its module was imported amid the fork, and took none."""
    with suppress(RuntimeError):
        lock.release()
