# SPDX-License-Identifier: MIT
"""The one lock of all memory for DMA. It is held across a fork, so that the child finds nothing left half done."""

from __future__ import annotations

import threading

lock = threading.RLock()
