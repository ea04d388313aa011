# SPDX-License-Identifier: MIT
"""The only C, which Pythons that it is not written for are refused before they load it."""

import sys

if "t" in sys.abiflags:
    # _access.c and _memory.c rely on it: without it, one thread unmaps a BAR while another accesses it.
    raise ImportError(
        "pyuio needs Python's global interpreter lock, and this is the free-threaded build of Python "
        f"{sys.version_info[0]}.{sys.version_info[1]}; use the ordinary build"
    )
