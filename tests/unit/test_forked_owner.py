# SPDX-License-Identifier: MIT
"""What belongs to one process; how it is with an open device is in tests/guest/test_fork.py."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler

import pytest

from pyuio.dma import Dma
from pyuio.errors import ClosedError
from pyuio.process.fork import Owned


class Thing(Owned):
    def __init__(self) -> None:
        self.own()


def in_child(work: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def test_a_child_forgets_what_its_parent_has() -> None:
    thing = Thing()
    assert in_child(lambda: thing.inherited)
    assert not thing.inherited


def test_what_a_child_is_told() -> None:
    thing = Thing()

    def told() -> bool:
        error = thing.closed_error("it")
        return isinstance(error, ClosedError) and str(error).startswith("it belongs to the process that this one was")

    assert in_child(told)
    assert str(thing.closed_error("it")) == "it is closed"


@pytest.mark.parametrize("how", [pickle.dumps, ForkingPickler.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize("thing", [Thing(), Dma("memory")])
def test_it_is_neither_pickled_nor_copied(thing: Owned, how: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match=f"{type(thing).__name__} cannot be pickled .* the device's address"):
        how(thing)


FORK_AMID_AN_IMPORT = """if True:
    import os, sys, threading, time
    import pyuio

    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=pyuio.devices)  # imports pyudev
    thread.start()
    time.sleep(0.001)
    child = os.fork()
    if child == 0:
        pyuio.devices()
        os._exit(0)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_amid_an_import_in_another_thread() -> None:
    """The child would wait for ever for the import of a thread that it does not have."""
    for _ in range(5):
        # Python 3.12 on warns of each fork beside a thread.
        command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", FORK_AMID_AN_IMPORT]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert (done.returncode, done.stderr) == (0, "")
