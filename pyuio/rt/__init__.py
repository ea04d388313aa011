# SPDX-License-Identifier: MIT
"""Real time: policy, locked memory, processors, and putting everything back."""
