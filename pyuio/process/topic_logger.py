# SPDX-License-Identifier: MIT
"""Loggers by topic, ``pyuio.binding`` and so on; docs/safety.md lists them.

`logging` takes an eighth of the time of ``import pyuio``. So it is imported with the first line that is logged, which
is at the latest when a device is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import logging


class _LateLogger:
    """Has the attributes of a logger, once somebody asks for one."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        import logging

        found = getattr(logging.getLogger(self._name), attribute)
        setattr(self, attribute, found)
        return found


def topic_logger(topic: str) -> logging.Logger:
    """Return the logger ``pyuio.TOPIC``."""
    return cast("logging.Logger", _LateLogger(f"pyuio.{topic}"))
