# SPDX-License-Identifier: MIT
"""This process: forks, signals, timeouts, tasks that wait."""
