# SPDX-License-Identifier: MIT
"""Speed, as ratios within one run; installed as pyuio_benchmarks."""
