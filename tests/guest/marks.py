# SPDX-License-Identifier: MIT
"""Marks that several of the guest tests have."""

from __future__ import annotations

import pytest

from tests.guest.support import PROCESSOR

on_x86 = pytest.mark.skipif(PROCESSOR != "x86_64", reason="about x86")
