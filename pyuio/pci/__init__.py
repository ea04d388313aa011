# SPDX-License-Identifier: MIT
"""PCI functions: addresses, configuration space, BARs, capabilities, names; discovery and hotplug."""

from pyuio.pci.address import parse_address
from pyuio.pci.bars import Bar
from pyuio.pci.capabilities import Capability
from pyuio.pci.config_image import Command, ConfigImage, Status
from pyuio.pci.config_space import ConfigSpace

__all__ = ["Bar", "Capability", "Command", "ConfigImage", "ConfigSpace", "Status", "parse_address"]
