# SPDX-License-Identifier: MIT
"""Cards in Python for the drivers of this package: what they are developed and tested against without hardware."""
