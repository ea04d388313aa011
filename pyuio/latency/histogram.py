# SPDX-License-Identifier: MIT
"""What the laboratory uses of hdrhistogram, which pyuio's extra `bench` installs.

Raises:
    HistogramUnavailableError: at the import of this module, hdrhistogram is not installed.
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
