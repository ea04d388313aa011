# SPDX-License-Identifier: MIT
"""What stands between this box and low latency, or a working driver: ``pyuio doctor``."""
