# SPDX-License-Identifier: MIT
"""Taking a device from the kernel, and giving it back: who uses it, binding, permission for a group."""
