# SPDX-License-Identifier: MIT
"""What joins pyuio to PeakRDL, a family of tools for register descriptions.

`exporter` is a plugin of the command ``peakrdl``: ``peakrdl pyuio card.rdl -o card.py`` writes a module of register
maps from whatever PeakRDL reads: SystemRDL, and with its importers IP-XACT and SVD.

`callbacks` and `hwio` give a `Region` to the register layers that PeakRDL-python and PeakRDL-PyRAL make.
"""

from __future__ import annotations

from pyuio.peakrdl.callbacks import callbacks

__all__ = ["callbacks"]
