# SPDX-License-Identifier: MIT
"""Taking a device from the kernel and giving it back: uses of the device, binding, permission for a group."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyuio.claim.permission import SetupError

__all__ = ["SetupError"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Return `SetupError`, whose module is loaded at the first use: only ``pyuio setup`` needs it."""
        if name == "SetupError":
            from pyuio.claim.permission import SetupError

            return SetupError
        raise AttributeError(f"module 'pyuio.claim' has no attribute {name!r}")
