# SPDX-License-Identifier: MIT
"""Changes of interrupts that a killed process leaves: where they go, and the priority of the threads that handle them.

The kernel undoes with a process what is the process's own, and that is not. So each change is written down before it is
made, in one file for each interrupt and process in ``/run/pyuio/interrupts``; the next process that has to do with the
interrupt puts back what is still as a process left it that is gone.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import astuple
from pathlib import Path
from typing import Any

from pyuio.kernel import irq, trusted_file
from pyuio.kernel.processors import format_list, parse_list
from pyuio.kernel.scheduling import Scheduling, Thread
from pyuio.kernel.trusted_file import boot_id

DIRECTORY = trusted_file.RUN / "interrupts"
_CPUS = "cpus"

_log = logging.getLogger("pyuio.realtime_settings")

# Of each interrupt what was before and what is now, by what it is: _CPUS, or "ID STARTED" of a thread.
_Changes = dict[str, list[Any]]
_mine: dict[int, _Changes] = {}
os.register_at_fork(after_in_child=_mine.clear)


def _path(number: int) -> Path:
    return DIRECTORY / f"{number}.{os.getpid()}.json"


def _save(number: int) -> None:
    """Write down what this process has changed, or remove the file when that is nothing."""
    if os.geteuid() != 0:
        return  # who may change little, and write no file there
    try:
        if not _mine[number]:
            _path(number).unlink(missing_ok=True)
            return
        me = Thread.find(os.getpid())
        data = {"owner": me and [me.id, me.started], "boot": boot_id(), "changes": _mine[number]}
        trusted_file.write(_path(number), json.dumps(data))
    except OSError as error:
        _log.warning("interrupt %d: what it had before is not remembered: %s", number, error)


def _change(number: int, what: str, read: Callable[[], Any], wanted: Any, do: Callable[[], None]) -> None:
    changes = _mine.setdefault(number, {})
    known = changes.get(what)
    before = known[0] if known else read()
    if wanted == before:  # put back
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
    """Have an interrupt go to these processors, as `interrupt_line.steer` does, and remember where it went before."""
    cpus = frozenset(cpus)
    _change(
        number,
        _CPUS,
        lambda: format_list(irq.affinity(number)),
        format_list(cpus),
        lambda: irq.steer(number, cpus),
    )


def schedule(number: int, thread: Thread, wanted: Scheduling, do: Callable[[], None]) -> None:
    """Call `do`, which gives a thread of an interrupt what is wanted, and remember what it had before."""
    what = f"{thread.id} {thread.started}"
    _change(number, what, lambda: list(astuple(Scheduling.of(thread))), list(astuple(wanted)), do)


def put_back(number: int) -> None:
    """Put back what processes that are gone have changed of an interrupt. What is refused is logged."""
    try:
        files = [path for path in DIRECTORY.iterdir() if path.name.startswith(f"{number}.")]
        files.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    except OSError:  # another process does the same
        return
    for path in files:  # the latest first: what it found, an earlier one may have left
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
            _log.warning("interrupt %d: what a process left is not put back: %s: %s", number, path, error)


def _put_back_one(number: int, what: str, before: Any, given: Any) -> None:
    if what == _CPUS:
        if irq.affinity(number) == parse_list(given):
            irq.steer(number, parse_list(before))
            _log.info("interrupt %d: on %s again, after a process that is gone", number, before)
        return
    number_of, started = what.split()
    thread = Thread(int(number_of), started)
    had, has = Scheduling(*before), Scheduling(*given)
    if thread.alive and (now := Scheduling.of(thread)) and (now.policy, now.priority) == (has.policy, has.priority):
        had.give_back(thread)
        _log.info("interrupt %d: its thread %d is %s again, after a process that is gone", number, thread.id, had)
