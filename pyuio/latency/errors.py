# SPDX-License-Identifier: MIT
"""The errors of measuring, and of keeping, drawing and comparing results."""

from __future__ import annotations

from pyuio.errors import PyuioError


class LoadError(PyuioError, RuntimeError):
    """A load that a measurement runs under did not start, or ended by itself."""


class MeasurementError(PyuioError, RuntimeError):
    """Something that is measured, or that others are compared with, cannot be run; the message says why."""


class ResultFileError(PyuioError, ValueError):
    """A file of measured results is damaged, of another version, or something else; the message says what to do."""


class ResultExistsError(PyuioError, FileExistsError):
    """Results exist already and would be overwritten (errno EEXIST)."""


class OutputDirectoryError(PyuioError, OSError):
    """A directory for results cannot be made or written to."""


class HistogramUnavailableError(PyuioError, ImportError):
    """hdrhistogram, which measuring and comparing need, is not installed; the message says how to install it."""


class PlotUnavailableError(PyuioError, ImportError):
    """matplotlib, which drawing needs, is not installed; the message says how to install it."""
