# SPDX-License-Identifier: MIT
"""Tests in a guest: a second pytest there runs them, and this one shows its reports as its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from pyuio.kernel.trusted_directory import temporary
from pyuio.process import python_module
from pyuio.vm import invoking_user

if TYPE_CHECKING:
    from pyuio.model import Card

_LOOK = 0.1  # seconds between looks for new reports
_LAST_LINES = 60  # of the guest's output, for a test that did not end


def name_of(kind: type[Card]) -> str:
    """Return a class of cards as ``pyuio vm run --card`` takes it: ``MODULE:CLASS``."""
    return f"{kind.__module__}:{kind.__qualname__}"


class Reporter:
    """The plugin in the guest that writes each report to a file, as a line of JSON.

    Args:
        config: pytest's.
        file: is open until pytest ends.
    """

    def __init__(self, config: pytest.Config, file: str) -> None:
        self._config = config
        self._file = Path(file).open("a", encoding="utf-8")  # noqa: SIM115

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a report."""
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._file.write(json.dumps(data, default=str) + "\n")
        self._file.flush()

    def pytest_unconfigure(self) -> None:
        """Close the file."""
        self._file.close()


class _Relay:
    """Shows the reports that appear in a file as this pytest's own."""

    def __init__(self, session: pytest.Session, items: list[pytest.Item], lines: IO[str]) -> None:
        self._session, self._config, self._lines = session, session.config, lines
        self.waited_for = {item.nodeid: item for item in items}
        self._begun = ""

    def relay(self) -> None:
        """Show what has been written since the last call."""
        while line := self._lines.readline():
            self._begun += line
            if line.endswith("\n"):  # else the guest is still writing it
                data, self._begun = json.loads(self._begun), ""
                self._show(self._config.hook.pytest_report_from_serializable(config=self._config, data=data))

    def _show(self, report: pytest.TestReport) -> None:
        hook = self._config.hook
        if report.nodeid in self.waited_for:
            if report.when == "setup":
                hook.pytest_runtest_logstart(nodeid=report.nodeid, location=report.location)
            hook.pytest_runtest_logreport(report=report)
            if report.when == "teardown":
                hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)
                del self.waited_for[report.nodeid]

    def fail(self, nodeid: str, text: str) -> None:
        """Let a test fail that has not ended."""
        item = self.waited_for[nodeid]
        for when, outcome in (("setup", "passed"), ("call", "failed"), ("teardown", "passed")):
            longrepr: Any = text if when == "call" else None
            report = pytest.TestReport(nodeid, item.location, {}, outcome, longrepr, when)  # type: ignore[arg-type]
            self._show(report)


def run(session: pytest.Session, kind: type[Card], items: list[pytest.Item]) -> None:
    """Run tests in a guest that has a card of this class, and report them.

    It is the command line of this pytest that runs there, so that the same tests are collected.
    """
    config = session.config
    with temporary("pyuio-guest-") as directory:
        reports = Path(directory, "reports.jsonl")
        reports.touch()
        again = [*python_module.command("pytest"), *config.invocation_params.args]
        # The same directory is the root, so that tests have the same names. Options hold their values by "=", or pytest
        # would take paths among them for places of tests.
        again += [f"--rootdir={config.rootpath}", f"--reports-of-guest={reports}", f"--card-of-guest={name_of(kind)}"]
        more = shlex.split(config.getoption("--guest-options"))
        guest = [*python_module.command("pyuio.cli"), "vm", "run", "--card", name_of(kind), "--out", directory, *more]
        with reports.open(encoding="utf-8") as lines, tempfile.TemporaryFile() as output:
            invoking_user.give(Path(directory), reports)
            relay = _Relay(session, items, lines)
            process = subprocess.Popen(
                [*guest, "--", *again],
                cwd=config.invocation_params.dir,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                while process.poll() is None:
                    relay.relay()
                    _stop_if_wanted(session)
                    time.sleep(_LOOK)
                relay.relay()
            finally:
                if process.poll() is None:
                    process.terminate()  # and no guest stays behind
                    process.wait()
            output.seek(0)
            last = "\n".join(output.read().decode(errors="replace").splitlines()[-_LAST_LINES:])
    _stop_if_wanted(session)
    _judge(session, relay, len(items), process.returncode, f"the guest with {name_of(kind)}", last)


def _stop_if_wanted(session: pytest.Session) -> None:
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)


def _judge(session: pytest.Session, relay: _Relay, count: int, status: int, what: str, last: str) -> None:
    """Let what did not end fail, with the guest's last lines."""
    if len(relay.waited_for) == count:
        pytest.exit(f"{what} ran no test, status {status}:\n{last}", returncode=pytest.ExitCode.TESTS_FAILED)
    for nodeid in list(relay.waited_for):
        relay.fail(nodeid, f"{what} ended before this test did, status {status}:\n{last}")
    if status not in (0, 1) or (status == 1 and not session.testsfailed):
        pytest.exit(f"{what} ended with status {status}:\n{last}", returncode=pytest.ExitCode.TESTS_FAILED)
