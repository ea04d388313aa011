# SPDX-License-Identifier: MIT
"""What can go wrong while something is measured, kept, drawn or compared."""

from __future__ import annotations

from pyuio.errors import PyuioError


class LoadError(PyuioError, RuntimeError):
    """A load that a measurement runs under did not start, or ended by itself."""


class MeasurementError(PyuioError, RuntimeError):
    """What is measured, or compared with, cannot be run; the message says why."""


class ResultFileError(PyuioError, ValueError):
    """A file of measured results is damaged, of another version, or something else; the message says what to do."""


class ResultExistsError(PyuioError, FileExistsError):
    """Results are there already and would be overwritten (errno EEXIST)."""


class OutputDirectoryError(PyuioError, OSError):
    """A directory for results cannot be made or written to."""


class HistogramUnavailableError(PyuioError, ImportError):
    """Nothing can be measured or compared, as hdrhistogram is not installed; the message says how to install it."""


class PlotUnavailableError(PyuioError, ImportError):
    """A picture cannot be drawn, as matplotlib is not installed; the message says how to install it."""
