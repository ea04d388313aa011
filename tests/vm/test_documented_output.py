# SPDX-License-Identifier: MIT
"""Commands in the documentation and examples print the output shown, in a guest with the options shown."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Vm
from .documented_output import ROOT, Shown, in_example, in_markdown, matches, write_files

# These need a peer at the other end of a line, or a clock of a system on chip; tests of their own run them.
RUN_ELSEWHERE = ("serial_console.py", "rtc_alarm.py", "nic_forward.py", "nic_ping.py", "nic_tap.py")
LIMIT = 600  # seconds for all commands with the same options
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _options(shown: Shown) -> tuple[str, ...]:
    assert shown.options is not None
    return shown.options


# Sorting groups the commands by options: one guest runs all commands with the same options.
SHOWN = sorted(
    [shown for path in EXAMPLES for shown in in_example(path)]
    + [shown for path in DOCUMENTS for shown in in_markdown(path) if shown.options is not None],
    key=_options,
)
Results = dict[Shown, tuple[int, str]]


def run(options: tuple[str, ...], group: list[Shown], directory: Path) -> Results:
    """Run commands in one guest; return each one's exit status and output."""
    jobs = []
    for number, shown in enumerate(group):
        place = ROOT
        if shown.files is not None:
            place = directory / str(number)
            place.mkdir()
            write_files(place, shown)
        jobs.append((str(place), shown.command))
    file = directory / "jobs.json"
    file.write_text(json.dumps(jobs))
    kernel = [] if "--kernel" in options else [f"--kernel={os.environ.get('KERNEL', 'debian')}"]
    command = [sys.executable, "-m", "tests.vm.documented_output_guest", str(file)]
    words = Vm().command(*kernel, *options, "--", *command)
    # A card is in the page's own files.
    path = os.pathsep.join([str(directory / "0"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return {shown: (status, text) for shown, (status, text) in zip(group, json.loads(done.stdout), strict=True)}


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Run the commands that this run of pytest selected, and return the result of each."""
    selected = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    wanted = [params["shown"] for params in selected if "shown" in params]
    groups = itertools.groupby([shown for shown in SHOWN if shown in wanted], key=_options)
    found: Results = {}
    for options, group in groups:
        found |= run(options, list(group), tmp_path_factory.mktemp("shown"))
    return found


# What make test runs: the README and the short ones of the examples, in a guest without options. The rest takes minutes
# under emulation, so it is part of make test-long.
IN_MAKE_TEST = (
    "README.md",
    *(f"examples/{name}.py" for name in ("hello", "hotplug", "minimal_driver", "native_service")),
)
PARAMETERS = [
    pytest.param(
        shown,
        id=shown.place,
        marks=[] if shown.place.split(":")[0] in IN_MAKE_TEST and not shown.options else [pytest.mark.long],
    )
    for shown in SHOWN
]


@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize("shown", PARAMETERS)
def test_what_is_shown_is_what_is_printed(shown: Shown, results: Results) -> None:
    status, printed = results[shown]
    assert status == 0, printed
    # On a busy machine an example may take longer than the kernel lets it run in real time.
    printed = re.sub("THIS ONE WAS HELD BACK in .* at worst", "this one was not held back", printed)
    assert matches(shown.output, printed), f"printed:\n{printed}\nshown:\n{shown.output}"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_show_what_they_print_on_one_screen(path: Path) -> None:
    shown = [shown.command for shown in in_example(path) if shown.output]
    assert shown == [("python", f"examples/{path.name}")] or path.name in RUN_ELSEWHERE
    # The demo's docstring alone fills half a screen; the driver to copy declares its registers, capture.py its card.
    assert len(path.read_text().splitlines()) <= 60 or path.name in ("demo.py", "minimal_driver.py", "capture.py")


@pytest.mark.parametrize(
    ("wanted", "printed", "same"),
    [
        ("a\nb", "a\nb\n", True),
        ("a\nb", "a\n", False),
        ("a", "a\nb\n", False),
        ("", "", True),
        ("", "a", False),
        ("at 0x..., size 4", "at 0xfea00000, size 4", True),
        ("at 0x..., size 4", "at 0xfea00000, size 5", False),
        ("a...", "a\nb", False),
        ("a ... b", "a b", True),
        ("a ... b", "a x y b", True),
        ("a ... b", "ab", False),
        ("a\n...\nb", "a\nx\ny\nb", True),
        ("a\n...\nb", "a\nb", True),
        ("a\n...", "b\na", False),
        ("a.b", "axb", False),
    ],
)
def test_comparing(wanted: str, printed: str, same: bool) -> None:
    assert matches(wanted, printed) is same
