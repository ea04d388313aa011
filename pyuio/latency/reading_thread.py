# SPDX-License-Identifier: MIT
"""The thread in which a loop in Python reads interrupts for ``pyuio bench latency``."""

from __future__ import annotations

import threading

from pyuio.latency.interrupts import PYTHON, Options, recipe


class ReadingThread:
    """Runs `loop`, which a derived class defines, in a thread with the recipe of the patch, from its construction on.

    Args:
        options: the CPU and the priority.

    Attributes:
        stop: whether the loop must end.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self.stop = False
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=PYTHON, daemon=True)
        self._thread.start()
        self._ready.wait()

    def loop(self) -> None:
        """Read until all interrupts have come, or `stop` is set."""

    def _run(self) -> None:
        try:
            with recipe(self._options.cpu, self._options.priority):
                self._ready.set()
                self.loop()
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    def join(self, grace: float) -> None:
        """Give the loop `grace` seconds to end by itself, then end it; raise what it raised."""
        if grace:
            self._thread.join(grace)
        self.stop = True
        self._thread.join()
        if self._error is not None:
            raise self._error
