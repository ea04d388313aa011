# SPDX-License-Identifier: MIT
"""A plugin for pytest: tests of a driver on a card in Python, in process or in a guest.

.. code-block:: python

    pytestmark = pytest.mark.card(kind=CounterCard)

    def test_counts(device):
        with Counter(device) as counter:
            assert counter.count() == 1

pytest loads it by its entry point. The fixtures are `card` and `device`; docs/model-reference.md says more. pytest runs
in many places that have nothing to do with cards, so `pyuio.model` is imported when a fixture is used, and not before.
"""

import pytest

if pytest.version_tuple >= (8,):  # an older pytest, as that of Debian 12, goes on without the plugin
    from pyuio.pytest_plugin.fixtures import (
        LeftOpenWarning,
        card,
        device,
        pytest_addoption,
        pytest_collection_modifyitems,
        pytest_configure,
        pytest_runtest_call,
        pytest_runtest_makereport,
        pytest_runtestloop,
        pytest_terminal_summary,
    )

    __all__ = [
        "LeftOpenWarning",
        "card",
        "device",
        "pytest_addoption",
        "pytest_collection_modifyitems",
        "pytest_configure",
        "pytest_runtest_call",
        "pytest_runtest_makereport",
        "pytest_runtestloop",
        "pytest_terminal_summary",
    ]
