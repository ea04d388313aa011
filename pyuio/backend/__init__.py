# SPDX-License-Identifier: MIT
"""The ways to a device, behind one small interface, `Backend`. Today there is one way: `pyuio.backend.uio`."""
