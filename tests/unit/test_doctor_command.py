# SPDX-License-Identifier: MIT
"""``pyuio doctor`` on this machine: its output and its exit status."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys

from rich.console import Console

from pyuio.cli.doctor import as_json, show
from pyuio.doctor import Finding
from tests.in_process import command_here

OURS = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS")

GOOD = Finding("smt", "processors", "good", "no CPU shares its core", "Siblings share.")
ADVICE = Finding("governor", "processors", "advice", "powersave", "Slow.", "cpupower frequency-set -g performance " * 9)
BLOCKS = Finding("lockdown", "driver", "blocks", "integrity", "Refused.", "mokutil --disable-validation")
UNKNOWN = Finding("iommu", "driver", "unknown", "reading x: Permission denied", "Translates.", "")


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pyuio.cli", "doctor", *words],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name not in OURS} | environment,
        timeout=60,
    )


def shown(findings: list[Finding], width: int = 80) -> str:
    output = io.StringIO()
    show(findings, "this box", Console(file=output, width=width, highlight=False))
    return output.getvalue()


def test_json_has_the_documented_form() -> None:
    data = as_json([GOOD, BLOCKS], "0000:00:01.0")
    assert json.loads(json.dumps(data)) == data
    assert list(data) == ["format", "kernel", "device", "blocked", "exit_status", "findings"]
    assert data["format"] == 1
    assert data["kernel"] == os.uname().release
    assert data["device"] == "0000:00:01.0"
    assert data["blocked"] is True
    assert data["exit_status"] == 1
    assert data["findings"][1] == {
        "name": "lockdown",
        "subject": "driver",
        "state": "blocks",
        "found": "integrity",
        "why": "Refused.",
        "remedy": "mokutil --disable-validation",
    }
    well = as_json([GOOD, ADVICE, UNKNOWN], None)
    assert (well["device"], well["blocked"], well["exit_status"]) == (None, False, 0)


def test_the_command_prints_json_alone_and_ends_accordingly() -> None:
    done = run("--json")
    data = json.loads(done.stdout)
    assert done.returncode == data["exit_status"] == any(entry["state"] == "blocks" for entry in data["findings"])
    assert done.stderr == ""
    assert data["device"] is None


def test_the_table_has_every_finding_and_the_same_status() -> None:
    data = json.loads(run("--json").stdout)
    done = run(COLUMNS="100")
    assert done.returncode == data["exit_status"]
    for entry in data["findings"]:
        assert re.search(rf" {entry['name']} +│ {entry['state']} ", done.stdout), entry
    assert "\x1b" not in done.stdout  # a pipe gets no colours


def test_wrong_usage() -> None:
    for words in (["nonsense"], ["0000:00:99.0"], ["--wrong"], ["a", "b"], ["ffff:1f:1f.7"], ["uio99999"]):
        done = command_here("doctor", *words)
        assert done.returncode == 2, words
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert done.stderr


def test_reasons_and_remedies() -> None:
    text = shown([BLOCKS, UNKNOWN, ADVICE, GOOD])
    assert "1 of 4 findings block a driver." in text
    # The remedy is on one line, so that it can be copied.
    assert f"  -> {ADVICE.remedy}" in text
    assert text.index("What blocks") < text.index("What costs") < text.index("What could not be told")
    assert "Siblings share." not in text
    assert "Nothing blocks a driver." in shown([GOOD])
    assert "Nothing blocks a driver." in shown([])


def test_a_narrow_terminal_wraps() -> None:
    text = shown([BLOCKS, UNKNOWN, ADVICE, GOOD], width=40)
    table = text[: text.index("What blocks")]
    assert max(map(len, table.splitlines())) <= 40
    assert "Permission" in table


def test_colours_only_where_they_are_wanted() -> None:
    for environment, coloured in (({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)):
        text = run(TERM="xterm-256color", **environment).stdout
        assert bool(re.search(r"\x1b\[[0-9;]*3\dm", text)) is coloured
