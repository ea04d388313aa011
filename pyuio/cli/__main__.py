# SPDX-License-Identifier: MIT
"""``python -m pyuio.cli`` is ``pyuio``."""

from pyuio.cli import main

main()
