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

import pyuio.device  # noqa: F401  (it makes children forget)
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

    def work():
        exec(sys.argv[1])

    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(int(sys.argv[2]) / 1000)
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(
    "work",
    [
        "pyuio.open",
        "import pyudev",
        *(
            pytest.param(work, marks=pytest.mark.long)
            for work in ("pyuio.devices()", "pyuio.pci.Command", "pyuio.Hotplug")
        ),
    ],
)
def test_a_fork_amid_an_import_in_another_thread(work: str) -> None:
    """The child would wait for ever for the import of a thread that it does not have."""
    program = FORK_AMID_AN_IMPORT
    if work == "import pyudev":  # as a method of pyuio's does, which there is from then on
        program = program.replace("import pyuio\n", "import pyuio\n    pyuio.open\n")
    for milliseconds in (1, 3, 10, 20, 30):
        # Python 3.12 on warns of each fork beside a thread.
        ignored = "ignore:This process:DeprecationWarning"
        command = [sys.executable, "-W", ignored, "-c", program, work, str(milliseconds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert (done.returncode, done.stderr) == (0, "")
