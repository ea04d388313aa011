# SPDX-License-Identifier: MIT
"""Files and system calls of the Linux kernel; formats only, nothing of pyuio's own."""
