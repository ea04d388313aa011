# SPDX-License-Identifier: MIT
"""A record of interrupt settings, so that a later process can restore what a killed one changed.

The settings are the processors that receive an interrupt, and the scheduling of the threads that handle it. The kernel
does not undo them when the process that changed them ends, because they are not the process's own. So pyuio records
each change before making it, in one file for each interrupt and process in ``/run/pyuio/interrupts``. The next process
that works with the interrupt restores each setting that still has the value from a process that has ended.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pyuio.kernel import irq, trusted_file
from pyuio.kernel.processors import format_list, parse_list
from pyuio.kernel.scheduling import Scheduling, Thread
from pyuio.kernel.trusted_file import boot_id

DIRECTORY = trusted_file.RUN / "interrupts"
_CPUS = "cpus"

_log = logging.getLogger("pyuio.realtime_settings")

# For one interrupt, [before, now] of each setting. The key is _CPUS, or "ID STARTED" of a thread.
_Changes = dict[str, list[Any]]
_mine: dict[int, _Changes] = {}
_guard = threading.RLock()  # reentrant, for a signal handler that ends real time


def _forget() -> None:
    global _guard
    _guard = threading.RLock()
    _mine.clear()


os.register_at_fork(after_in_child=_forget)


def _path(number: int) -> Path:
    return DIRECTORY / f"{number}.{os.getpid()}.json"


def _save(number: int) -> None:
    """Record what this process has changed of an interrupt, or remove the file if it has changed nothing."""
    if os.geteuid() != 0:
        return  # other users may change little, and may not write a file there
    try:
        if not _mine[number]:
            _path(number).unlink(missing_ok=True)
            return
        me = Thread.find(os.getpid())
        data = {"owner": me and [me.id, me.started], "boot": boot_id(), "changes": _mine[number]}
        trusted_file.write(_path(number), json.dumps(data))
    except OSError as error:
        _log.warning("interrupt %d: cannot record its former settings: %s", number, error)


def _change(number: int, what: str, read: Callable[[], Any], wanted: Any, do: Callable[[], None]) -> None:
    with _guard:
        _change_alone(number, what, read, wanted, do)


def _change_alone(number: int, what: str, read: Callable[[], Any], wanted: Any, do: Callable[[], None]) -> None:
    changes = _mine.setdefault(number, {})
    known = changes.get(what)
    before = known[0] if known else read()
    if wanted == before:  # this restores it
        do()
        changes.pop(what, None)
        _save(number)
        return
    changes[what] = [before, wanted]
    _save(number)
    try:
        do()
    except OSError:
        if known:
            changes[what] = known
        else:
            del changes[what]
        _save(number)
        raise


def steer(number: int, cpus: Iterable[int]) -> None:
    """Steer an interrupt to these processors, as `pyuio.kernel.irq.steer` does, and record where it went before."""
    cpus = frozenset(cpus)
    _change(
        number,
        _CPUS,
        lambda: format_list(irq.affinity(number)),
        format_list(cpus),
        lambda: irq.steer(number, cpus),
    )


def schedule(number: int, thread: Thread, wanted: Scheduling, do: Callable[[], None]) -> None:
    """Call `do`, which gives a thread of an interrupt the `wanted` scheduling, and record what it had before."""
    what = f"{thread.id} {thread.started}"
    _change(number, what, lambda: list(Scheduling.of(thread)), list(wanted), do)


def put_back(number: int) -> None:
    """Restore what processes that have ended changed of an interrupt. If the kernel refuses, log that."""
    try:
        files = [path for path in DIRECTORY.iterdir() if path.name.startswith(f"{number}.")]
        files.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    except OSError:  # another process does the same
        return
    for path in files:  # the latest first: the values that it found may be those that an earlier process left
        try:
            data = json.loads(trusted_file.read(path))
            owner, boot, changes = Thread(*data["owner"]), data["boot"], data["changes"]
            if boot == boot_id():
                if owner.alive:
                    continue
                for what, (before, given) in changes.items():
                    _put_back_one(number, what, before, given)
            path.unlink(missing_ok=True)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            _log.warning("interrupt %d: cannot restore what a process left: %s: %s", number, path, error)


def _put_back_one(number: int, what: str, before: Any, given: Any) -> None:
    if what == _CPUS:
        if irq.affinity(number) == parse_list(given):
            irq.steer(number, parse_list(before))
            _log.info("interrupt %d: restored to CPUs %s after a process that ended", number, before)
        return
    number_of, started = what.split()
    thread = Thread(int(number_of), started)
    had, has = Scheduling(*before), Scheduling(*given)
    if thread.alive and (now := Scheduling.of(thread)) and (now.policy, now.priority) == (has.policy, has.priority):
        had.give_back(thread)
        _log.info("interrupt %d: restored its thread %d to %s after a process that ended", number, thread.id, had)
