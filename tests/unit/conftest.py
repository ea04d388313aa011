# SPDX-License-Identifier: MIT
"""Regions on a file in memory, for the tests of register access; settings for hypothesis."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pyuio.region import PortRegion, Region
from tests.unit.support import NAME, SIZE, ports

# Use the same examples in each run, however slow the machine. --hypothesis-profile=search tries others.
settings.register_profile("same", deadline=None, derandomize=True, max_examples=25)
settings.register_profile("thorough", deadline=None, derandomize=True, max_examples=300)  # in make test-long
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile("same")


@pytest.fixture
def path() -> Iterator[Path]:
    """Yield a file of SIZE bytes in memory: 00 01 02 ..."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(bytes(range(SIZE)))
        file.flush()
        yield Path(file.name)


@pytest.fixture(params=[Region, ports], ids=["Region", "PortRegion"])
def bar(request: pytest.FixtureRequest, path: Path) -> Iterator[Region | PortRegion]:
    """Yield each kind of region on that file."""
    with request.param(path, SIZE, name=NAME) as region:
        yield region
