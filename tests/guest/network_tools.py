# SPDX-License-Identifier: MIT
"""Fetches iperf3 and ping out of Debian's packages, on the host, before the guest; and tells how they are started."""

from __future__ import annotations

from pathlib import Path

from pyuio.vm import packages

_PACKAGES = ("iperf3", "libiperf0", "libsctp1", "libssl3", "iputils-ping", "libcap2", "libidn2-0")
_IPERF3, _PING = "usr/bin/iperf3", "bin/ping"


def fetch(directory: Path) -> None:
    """Fetch the programs into the directory if they are not there."""
    packages.fetch(_PACKAGES, directory, _IPERF3)


def commands(directory: Path) -> tuple[list[str], list[str]]:
    """Return the words that start iperf3, and ping."""
    libraries = ":".join(map(str, directory.glob("usr/lib/*-linux-gnu")))
    start = ["env", f"LD_LIBRARY_PATH={libraries}"]
    return [*start, str(directory / _IPERF3)], [*start, str(directory / _PING)]
