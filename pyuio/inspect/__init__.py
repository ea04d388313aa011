# SPDX-License-Identifier: MIT
"""A device's registers beside whatever drives it, for tools: by offset or by name."""
