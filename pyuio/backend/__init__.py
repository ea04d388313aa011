# SPDX-License-Identifier: MIT
"""The ways to a device, behind one small interface, `Backend`: `pyuio.backend.uio` and `pyuio.backend.vfio`."""
