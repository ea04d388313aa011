# SPDX-License-Identifier: MIT
"""The fixtures, the options and the hooks of the plugin."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pyuio.device import Device
    from pyuio.model import Card

_CARDS = pytest.StashKey[list[Any]]()  # those of a test
_TOLD = pytest.StashKey[int]()  # how many complaints of them the test's result has told
_PASSED = pytest.StashKey[bool]()
_LEFT_OUT = pytest.StashKey[int]()

_SAY_WHICH = "say which card it is, as by pytestmark = pytest.mark.card(kind=MyCard) at the head of the file"


class LeftOpenWarning(UserWarning):
    """A test left buffers for DMA open. ``-W error::pyuio.pytest_plugin.LeftOpenWarning`` makes it an error."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("pyuio", "drivers on cards in Python")
    group.addoption(
        "--card-in-guest",
        action="store_true",
        help="run the tests that use the fixture `device`, and not `card`, in a guest whose kernel finds the card",
    )
    group.addoption(
        "--guest-options", metavar="OPTIONS", default="", help="for `pyuio vm run` with --card-in-guest, in one string"
    )
    # What the pytest in the guest is told: where its reports go, and which card it has.
    group.addoption("--reports-of-guest", help=argparse.SUPPRESS)
    group.addoption("--card-of-guest", help=argparse.SUPPRESS)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known; in the guest, send reports to the host."""
    config.addinivalue_line("markers", "card(kind): the class of cards (pyuio.model.Card) that the test runs on")
    if config.getoption("--card-in-guest") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--card-in-guest runs one pytest in a guest, so it does not go with -n of pytest-xdist")
    if _in_guest(config):
        from pyuio.pytest_plugin.guest import Reporter

        config.pluginmanager.register(Reporter(config, config.getoption("--reports-of-guest")))


def _in_guest(config: pytest.Config) -> bool:
    return config.getoption("--reports-of-guest") is not None


def card_class(item: pytest.Item) -> type[Card]:
    """Return the class that the marker ``card`` names. The test fails if there is none."""
    from pyuio.model import Card

    marker = item.get_closest_marker("card")
    if marker is None:
        pytest.fail(f"{item.name} uses a card: {_SAY_WHICH}", pytrace=False)
    kind = marker.kwargs.get("kind")  # by name, as pytest would decorate a class that is given by position
    if not (isinstance(kind, type) and issubclass(kind, Card)):
        wanted = "pytest.mark.card(kind=...) takes a class that derives from pyuio.model.Card"
        pytest.fail(f"{wanted}, not {kind!r}", pytrace=False)
    return kind


def _use(item: pytest.Item, card: Card) -> None:
    cards = item.stash.setdefault(_CARDS, [])
    if card not in cards:
        cards.append(card)


@pytest.fixture
def card(request: pytest.FixtureRequest) -> Iterator[Card]:
    """A new card of the class that the marker ``card`` names. A complaint of it fails the test.

    A file or conftest.py may replace it, by a card that is made with arguments; `device` opens that one then.
    """
    if _in_guest(request.config):
        pytest.fail("the fixture card is in process only: in the guest, the card is in another process", pytrace=False)
    made = card_class(request.node)()
    _use(request.node, made)
    yield made
    left_open = getattr(made.function.host, "is_open", False)
    made.remove()  # nothing that it has planned happens in the next test
    if left_open and request.node.stash.get(_PASSED, False):
        pytest.fail(f"the test left {made.name} open: close what pyuio.model.open() returned", pytrace=False)
    _fail_for_complaints(request.node)  # those that came while fixtures of the test's own ended


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """The card as an open device, closed afterwards: `card` in process; with --card-in-guest, the one in the guest."""
    if _in_guest(request.config):
        import pyuio

        kind = card_class(request.node)
        opened = pyuio.open(f"{kind.vendor:04x}:{kind.device:04x}", bind=True)
    else:
        from pyuio import model

        plugged = request.getfixturevalue("card")
        _use(request.node, plugged)
        opened = model.open(plugged)
    memory = opened.dma
    yield opened
    left = ", ".join(map(str, memory.buffers))
    opened.close()
    if left and request.node.stash.get(_PASSED, False):
        text = f"{request.node.nodeid} left memory for DMA open ({left}); close the driver, or the buffers"
        warnings.warn(LeftOpenWarning(text), stacklevel=2)
    _fail_for_complaints(request.node)


# ---- Complaints ----


def _complaints(item: pytest.Item) -> list[str]:
    return [str(complaint) for card in item.stash.get(_CARDS, []) for complaint in card.complaints]


def _fail_for_complaints(item: pytest.Item) -> None:
    """Fail the test for complaints that nobody has told, as the driver caught them."""
    complaints = _complaints(item)
    told = item.stash.get(_TOLD, 0)
    item.stash[_TOLD] = len(complaints)
    if complaints[told:]:
        pytest.fail("\n".join(complaints[told:]), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that went well but for complaints."""
    try:
        result = yield
    except BaseException:
        item.stash[_TOLD] = len(_complaints(item))
        raise
    _fail_for_complaints(item)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a test that failed what its cards say, and which faults they had."""
    report = yield
    if call.when == "call":
        item.stash[_PASSED] = report.passed
    if report.failed:
        for card in item.stash.get(_CARDS, []):
            shown = report.longreprtext
            complaints = [text for text in map(str, card.complaints) if text.splitlines()[0] not in shown]
            for what, lines in (("complaints", complaints), ("faults", card.faults.happened)):
                if lines:
                    report.sections.append((f"{what} of {card.name}", "\n".join(lines)))
    return report


# ---- In the guest ----


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not run in the guest."""
    if not config.getoption("--card-in-guest") and not _in_guest(config):
        return
    from pyuio.pytest_plugin.guest import name_of

    def runs(item: pytest.Item) -> bool:
        names = getattr(item, "fixturenames", ())
        if "device" not in names or "card" in names or item.get_closest_marker("card") is None:
            return False
        return not _in_guest(config) or name_of(card_class(item)) == config.getoption("--card-of-guest")

    chosen = [item for item in items if runs(item)]
    left_out = [item for item in items if item not in chosen]
    config.stash[_LEFT_OUT] = len(left_out)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = chosen


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """With --card-in-guest, run the tests there."""
    config = session.config
    wanted = config.getoption("--card-in-guest") and not config.getoption("collectonly")
    if not wanted or _in_guest(config) or session.testsfailed:
        return None
    from pyuio.pytest_plugin.guest import run

    kinds: dict[type[Card], list[pytest.Item]] = {}
    for item in session.items:
        kinds.setdefault(card_class(item), []).append(item)
    for kind, items in kinds.items():
        run(session, kind, items)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how many tests did not run in the guest, and why."""
    if config.getoption("--card-in-guest") and (count := config.stash.get(_LEFT_OUT, 0)):
        terminalreporter.write_line(
            f"{count} deselected tests did not run in the guest: they use no `device`, or the `card` itself, which is "
            "in another process there. Run them without --card-in-guest."
        )
