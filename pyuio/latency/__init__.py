# SPDX-License-Identifier: MIT
"""The latency laboratory, behind ``pyuio bench``: it measures latency, and keeps, draws and compares the results.

Its errors are here. Everything else is in the modules; most of them need hdrhistogram, which the extra `bench`
installs.
"""

from pyuio.latency.errors import (
    HistogramUnavailableError,
    LoadError,
    MeasurementError,
    OutputDirectoryError,
    PlotUnavailableError,
    ResultExistsError,
    ResultFileError,
)

__all__ = [
    "HistogramUnavailableError",
    "LoadError",
    "MeasurementError",
    "OutputDirectoryError",
    "PlotUnavailableError",
    "ResultExistsError",
    "ResultFileError",
]
