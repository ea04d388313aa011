# SPDX-License-Identifier: MIT
"""Files and system calls of the Linux kernel: their formats, and none of pyuio's own objects."""
