# SPDX-License-Identifier: MIT
"""The loads that a box has during a measurement: none, a busy Python thread in the same process, or all its CPUs busy.

Each load is a context manager. Entering it starts the load and makes sure that it runs; leaving it ends all of it.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
from types import TracebackType

from pyuio.latency.errors import LoadError

_START_LIMIT = 30.0  # seconds; an emulated processor takes several of them to start Python
_STOP_LIMIT = 5.0

# The program of a worker. It keeps checking that its parent still exists, so no worker outlives a killed measurement.
_WORKER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
parent, cpus = int(sys.argv[1]), [int(cpu) for cpu in sys.argv[2].split(",")]
os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
os.sched_setaffinity(0, cpus)
os.write(1, b"+")
while os.getppid() == parent:
    for _ in range(200000):
        pass
"""


class Load:
    """No load, and the base class of all loads."""

    name = "idle"

    def __enter__(self) -> Load:
        """Start the load; it runs when this returns. LoadError: it did not start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the load; nothing of it runs when this returns."""

    def check(self) -> None:
        """Check that it still runs. LoadError: it ended by itself."""


class BusyThread(Load):
    """A thread of this process that computes in Python, at ordinary priority, and never sleeps.

    It gives the GIL up only when another thread has waited for it for `sys.getswitchinterval()`.
    """

    name = "busy Python thread"

    def __init__(self) -> None:
        self.turns = 0
        self._stop = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._spin, name=self.name, daemon=True)

    def __enter__(self) -> BusyThread:
        self._thread.start()
        if not self._started.wait(_START_LIMIT):
            self._stop = True
            raise LoadError(f"the {self.name} did not start in {_START_LIMIT:g} s; a real-time thread may block it")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join()

    def check(self) -> None:
        """Check that it still runs. LoadError: it ended by itself."""
        if not self._thread.is_alive():
            raise LoadError(f"the {self.name} ended by itself")

    def _spin(self) -> None:
        # A thread may inherit policy and CPUs from the thread that started it.
        if os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK != os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, os.sched_getaffinity(os.getpid()))
        self._started.set()
        while not self._stop:
            self.turns += 1


class CpuLoad(Load):
    """Processes that compute at ordinary priority and never sleep: one for each CPU.

    Args:
        cpus: the CPUs; by default those that this process may use.
        pinned: each worker runs on its own CPU only, so that each CPU has one for sure; otherwise the scheduler places
            them.
    """

    name = "CPU load"

    def __init__(self, cpus: list[int] | None = None, *, pinned: bool = True) -> None:
        self._cpus = sorted(os.sched_getaffinity(os.getpid())) if cpus is None else cpus
        self._pinned = pinned
        self.workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> CpuLoad:
        try:
            for cpu in self._cpus:
                self.workers.append(self._start([cpu] if self._pinned else self._cpus))
            for worker in self.workers:
                self._confirm(worker)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    @staticmethod
    def _start(cpus: list[int]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", "-c", _WORKER, str(os.getpid()), ",".join(map(str, cpus))]
        try:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        except OSError as error:
            raise LoadError(f"a worker for the CPU load cannot be started: {error}") from error

    @staticmethod
    def _confirm(worker: subprocess.Popen[bytes]) -> None:
        assert worker.stdout is not None
        with worker.stdout as output:
            ready = select.select([output], [], [], _START_LIMIT)[0]
            if not ready or os.read(output.fileno(), 1) != b"+":
                state = "said nothing" if worker.poll() is None else f"ended with status {worker.returncode}"
                raise LoadError(f"a worker for the CPU load (process {worker.pid}) {state} instead of starting")

    def check(self) -> None:
        """Check that all workers still run. LoadError: one ended by itself."""
        for worker in self.workers:
            if worker.poll() is not None:
                raise LoadError(f"a worker of the CPU load (process {worker.pid}) ended by itself")

    def _end(self) -> None:
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(_STOP_LIMIT)
                continue
            worker.kill()
            worker.wait()
        self.workers.clear()


LOADS: dict[str, type[Load]] = {"idle": Load, "python": BusyThread, "cpu": CpuLoad}


def named(names: str) -> list[type[Load]]:
    """Return the loads in a list of names, "idle,python,cpu", each once.

    Raises:
        ValueError: there is no load of that name.
    """
    wanted = list(dict.fromkeys(name.strip() for name in names.split(",")))
    if unknown := [name for name in wanted if name not in LOADS]:
        raise ValueError(f"there is no load {unknown[0]!r}; there are {', '.join(LOADS)}")
    return [LOADS[name] for name in wanted]
