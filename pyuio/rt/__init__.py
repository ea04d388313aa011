# SPDX-License-Identifier: MIT
"""Real time: set policy, locked memory and processors, and restore them."""
