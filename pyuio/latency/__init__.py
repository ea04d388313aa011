# SPDX-License-Identifier: MIT
"""The latency laboratory: what is measured, kept, drawn and compared by ``pyuio bench``."""
