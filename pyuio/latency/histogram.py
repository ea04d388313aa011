# SPDX-License-Identifier: MIT
"""The names of hdrhistogram that the laboratory uses. pyuio's extra `bench` installs hdrhistogram.

Raises:
    HistogramUnavailableError: hdrhistogram is not installed; the import of this module raises it.
"""

from __future__ import annotations

from pyuio.latency.errors import HistogramUnavailableError

try:
    from hdrh.codec import HdrCookieException, HdrHistogramSettingsException, HdrLengthException
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogWriter
except ImportError as error:
    raise HistogramUnavailableError(
        f"measuring and comparing need hdrhistogram ({error}): pip install 'pyuio-framework[bench]'"
    ) from error

__all__ = [
    "HdrCookieException",
    "HdrHistogram",
    "HdrHistogramSettingsException",
    "HdrLengthException",
    "HistogramLogWriter",
]
