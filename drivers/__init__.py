# SPDX-License-Identifier: MIT
"""Sample drivers, written to be read and copied; installed as ``pyuio_drivers``."""
