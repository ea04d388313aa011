# SPDX-License-Identifier: MIT
"""Which kernels are PREEMPT_RT, and which driver pyuio refuses on them."""

from __future__ import annotations

import os

import pytest

from pyuio import KernelSupportError
from pyuio.kernel import preempt_rt
from pyuio.kernel.preempt_rt import is_realtime, refuse_what_freezes, says_realtime


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("#1 SMP PREEMPT_RT Debian 6.1.192-2 (2026-10-01)", True),
        ("#1 SMP PREEMPT RT Debian 4.19.304-1", True),
        ("#1 SMP PREEMPT_DYNAMIC Debian 6.1.176-1", False),
        ("#1 SMP PREEMPT Ubuntu", False),
        ("", False),
    ],
)
def test_versions(version: str, expected: bool) -> None:
    assert says_realtime(version) == expected


def test_this_kernel() -> None:
    assert is_realtime() == ("PREEMPT_RT" in os.uname().version)


@pytest.mark.parametrize("realtime", [True, False])
def test_what_is_refused(realtime: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preempt_rt, "is_realtime", lambda: realtime)
    for driver in (None, "uio_pci_generic", "uio_cif"):
        refuse_what_freezes("0000:00:04.0", driver)
    if realtime:
        with pytest.raises(KernelSupportError, match=r"^.*0000:00:04\.0: igb_uio can freeze .*bind uio_pci_generic"):
            refuse_what_freezes("0000:00:04.0", "igb_uio")
    else:
        refuse_what_freezes("0000:00:04.0", "igb_uio")
