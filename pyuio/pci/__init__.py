# SPDX-License-Identifier: MIT
"""PCI functions: addresses, configuration space, BARs, capabilities, names; discovery and hotplug."""

from typing import TYPE_CHECKING

from pyuio.process.late import late as _late

if TYPE_CHECKING:
    from pyuio.pci.address import parse_address
    from pyuio.pci.aer import LinkErrors
    from pyuio.pci.bars import Bar
    from pyuio.pci.capabilities import Capability
    from pyuio.pci.config_image import Command, ConfigImage, Status
    from pyuio.pci.config_space import ConfigSpace

__all__ = ["Bar", "Capability", "Command", "ConfigImage", "ConfigSpace", "LinkErrors", "Status", "parse_address"]

# Where the names are: imported at the first use, as whoever lists devices needs none of them.
_LATE = {
    "Bar": "bars",
    "Capability": "capabilities",
    "Command": "config_image",
    "ConfigImage": "config_image",
    "ConfigSpace": "config_space",
    "LinkErrors": "aer",
    "Status": "config_image",
    "parse_address": "address",
}

if not TYPE_CHECKING:  # or a type checker would take any name for one of these

    def __getattr__(name: str) -> object:
        """Return something of `_LATE`."""
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(_late(f"{__name__}.{_LATE[name]}"), name)
        return value


def __dir__() -> list[str]:
    """Return the names, those of `_LATE` too."""
    return sorted({*globals(), *_LATE})
