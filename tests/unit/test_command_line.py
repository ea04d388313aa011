# SPDX-License-Identifier: MIT
"""Behaviour that all of pyuio's commands share: output, exit and completion."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyuio
from pyuio import cli
from pyuio.cli.arguments import is_plain
from pyuio.cli.completion import joined
from tests.guest.support import forked, load_command

ROOT = Path(__file__).resolve().parents[2]
OURS = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "LINES")
PYUIO = [sys.executable, "-m", "pyuio.cli"]
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]")


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OURS} | more


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PYUIO, *words], capture_output=True, text=True, check=False, env=environment(**more), timeout=60
    )


def run_in_a_fork(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Do what `run` does for tests of what is said: all but the start of Python, which takes most of the time."""
    load_command()

    def program() -> None:
        os.environ.clear()
        os.environ.update(environment(**more))
        cli.main()

    return forked(program, "pyuio", *words)


def on_a_terminal(*words: str, **more: str) -> str:
    """Return what the command writes to a terminal of 80 columns."""
    child, terminal = pty.fork()
    if child == 0:
        os.execve(PYUIO[0], [*PYUIO, *words], environment(TERM="xterm-256color", COLUMNS="80", **more))
    output = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        output += data
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, output
    return output.decode()


def test_help_fits_a_screen() -> None:
    lines = run_in_a_fork("--help", COLUMNS="80").stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    commands = re.findall(r"^│ ([a-z]+) ", "\n".join(lines), re.MULTILINE)
    assert {"list", "info", "probe", "doctor", "bench", "vm"} <= set(commands)


@pytest.mark.parametrize(
    "command", ["bind", "unbind", "setup", "reset", "remove", "write", "dump", "irq", "bench latency"]
)
def test_a_paragraph_of_help_fills_the_screen(command: str) -> None:
    """The help is wrapped anew: no first word of a line would fit on the line before."""
    text = run_in_a_fork(*command.split(), "--help", COLUMNS="80").stdout.split("╭")[0]
    followed = 0
    for line, following in itertools.pairwise(line.strip() for line in text.splitlines()):
        if line and following:
            assert len(f"{line} {following.split()[0]}") > 78
            followed += 1
    assert followed >= 1


def test_the_version_is_that_of_the_distribution() -> None:
    assert pyuio.__version__ == importlib.metadata.version("pyuio-framework")
    assert run("--version").stdout == f"pyuio {pyuio.__version__}\n"


@pytest.mark.parametrize("group", ["bench", "vm"])
def test_a_group_that_is_loaded_late_has_its_commands(group: str) -> None:
    shown = run_in_a_fork(group, "--help").stdout
    assert {"bench": "latency", "vm": "fetch"}[group] in shown
    assert run_in_a_fork(group, "nonsense").returncode == 2


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["info", "ffff:fffe"], 1, "pyuio: there is no device ffff:fffe; there is:"),
        (["info", "nonsense"], 1, "pyuio: there is no device nonsense; there is:"),
        (["info", "00:99"], 2, "pyuio: '00:99' does not name a device; give a PCI address"),
        (["info"], 2, "DEVICE"),
        (["probe", "ffff:fffe"], 1, "pyuio: there is no device ffff:fffe; there is:"),
        (["probe", "/nonsense"], 2, "pyuio: '/nonsense' does not name a device"),
        (["list", "--nonsense"], 2, "--nonsense"),
    ],
)
def test_what_is_wrong_is_said_and_is_no_success(words: list[str], status: int, message: str) -> None:
    done = run_in_a_fork(*words)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["list", "--all"], ["doctor"], ["probe"]])
def test_a_pipe_gets_whole_lines_without_colour(words: list[str]) -> None:
    narrow, wide = run(*words, COLUMNS="40", TERM="xterm-256color"), run(*words, COLUMNS="400")
    assert narrow.stdout == wide.stdout
    assert "\x1b" not in narrow.stdout
    assert "…" not in narrow.stdout


@pytest.mark.parametrize("words", [["list", "--all"], ["probe"], ["--help"]])
def test_no_color_is_heeded_on_a_terminal(words: list[str]) -> None:
    assert not COLOUR.search(on_a_terminal(*words, NO_COLOR="1"))


@pytest.mark.parametrize("options", [[], ["--all"], ["--json"], ["--json", "--all"]])
def test_a_list_is_the_same_with_typer_and_without(options: list[str]) -> None:
    """With -v, typer reads the command line."""
    assert run("list", *options).stdout == run("-v", "list", *options).stdout != ""


def test_a_terminal_is_not_overrun() -> None:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal("--help"))
    assert max(len(line.rstrip("\r")) for line in plain.split("\n")) <= 80


@pytest.mark.parametrize("words", [["list", "--all"], ["list", "--json"], ["doctor"], ["probe"], ["--help"]])
def test_a_reader_that_goes_away_gets_no_traceback(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*PYUIO, *words], stdout=writer, stderr=subprocess.PIPE, text=True, env=environment(), timeout=60
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_every_command_has_its_section_in_the_documentation() -> None:
    """The help leaves out no command and no option."""
    page = (ROOT / "docs/command-line.md").read_text()
    for command in ("list", "info", "probe"):
        assert f"\n## pyuio {command}" in page
        for option in re.findall(r"│ (?:\* )?\s*(--[a-z-]+)", run_in_a_fork(command, "--help", COLUMNS="100").stdout):
            assert option == "--help" or f"`{option}`" in page or f" {option}" in page


def test_a_driver_that_cannot_be_loaded_is_reported_and_harms_no_other(tmp_path: Path) -> None:
    metadata = tmp_path / "broken-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[pyuio.drivers]\nbad = no_such_module:Bad\n")
    done = run("probe", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0
    assert re.search(r"^bad +broken +cannot be loaded", done.stdout, re.MULTILINE)
    assert "pyuio: the driver bad (no_such_module:Bad, of broken) cannot be loaded" in done.stderr
    assert re.search(r"^edu +pyuio-framework ", done.stdout, re.MULTILINE)
    found = {one["name"]: one for one in json.loads(run("probe", "--json", PYTHONPATH=str(tmp_path)).stdout)["drivers"]}
    assert "ModuleNotFoundError" in found["bad"]["error"]
    assert (found["bad"]["ids"], found["bad"]["devices"]) == ([], [])
    assert (found["edu"]["error"], found["edu"]["ids"]) == (None, ["1234:11e8"])


# -- completion --


def apart(word: str) -> list[str]:
    """Split a word as bash does: words end at colons, and each run of colons is a word."""
    return [piece for piece in re.split(r"(:+)", word) if piece]


@pytest.mark.parametrize(
    ("words", "position", "expected"),
    [
        (["pyuio", "info", ""], 2, (["pyuio", "info", ""], 2, "")),
        (["pyuio", "info", "0000", ":", "00"], 4, (["pyuio", "info", "0000:00"], 2, "0000:")),
        (["pyuio", "info", "0000", ":"], 3, (["pyuio", "info", "0000:"], 2, "0000:")),
        (["pyuio", "info", "0000", ":", "00", ":", "04.0"], 6, (["pyuio", "info", "0000:00:04.0"], 2, "0000:00:")),
        (["pyuio", "info", "1234", ":", "11e8", "--js"], 5, (["pyuio", "info", "1234:11e8", "--js"], 3, "")),
        (["pyuio", "info"], 2, (["pyuio", "info", ""], 2, "")),
    ],
)
def test_what_bash_took_apart_is_joined(words: list[str], position: int, expected: object) -> None:
    assert joined(words, position) == expected


@given(st.lists(st.from_regex(r"[a-z0-9.]+(:{1,2}[a-z0-9.]+)*:?", fullmatch=True), min_size=1, max_size=5))
def test_any_line_is_joined_again(line: list[str]) -> None:
    # A word that ends in a colon would join the next one, so only the last word may end so.
    line = [word.rstrip(":") for word in line[:-1]] + line[-1:]
    words = [piece for word in line for piece in apart(word)]
    whole, cursor, kept = joined(words, len(words) - 1)
    assert (whole, cursor) == (line, len(line) - 1)
    assert line[-1].startswith(kept)
    assert ":" not in line[-1][len(kept) :]


@pytest.fixture
def bash(tmp_path: Path) -> Path:
    """Yield a file for bash to source: typer's own script for this ``pyuio``."""
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    program = tmp_path / "pyuio"
    program.write_text(f"#!{sys.executable}\nfrom pyuio.cli import main\n\nmain()\n")
    program.chmod(0o755)
    shown = subprocess.run(
        [program],
        capture_output=True,
        text=True,
        check=False,
        env=environment(_PYUIO_COMPLETE="source_bash", PATH=f"{tmp_path}:{os.environ['PATH']}"),
    )
    script = tmp_path / "complete.sh"
    script.write_text(f"PATH={tmp_path}:$PATH\n{shown.stdout}\n")
    return script


def completed(bash: Path, *words: str) -> list[str]:
    """Return the completions that bash gets for a line whose last word is to be completed."""
    line = " ".join(f"'{word}'" for word in words)
    ask = f"source {bash}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _pyuio_completion pyuio"
    done = subprocess.run(
        ["bash", "--norc", "-c", f'{ask}; printf "%s\\n" "${{COMPREPLY[@]}}"'],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_and_options(bash: Path) -> None:
    assert completed(bash, "pyuio", "pro") == ["probe"]
    assert completed(bash, "pyuio", "bench", "lat") == ["latency"]
    assert completed(bash, "pyuio", "list", "--a") == ["--all"]


@pytest.mark.parametrize("name", ["$(id)", "`id`", "a b", "a;id", "a|id", "*", "'", '"', "-x", "~", ""])
def test_a_name_that_a_shell_would_run(name: str) -> None:
    assert not is_plain(name)
    assert is_plain("fpga-regs.0@a0000000:x_1")


def test_bash_completes_devices(bash: Path) -> None:
    """Completions have only what follows the last colon: that is the word that bash replaces."""
    from pyuio.pci.discovery import devices

    addresses = [device.address for device in devices() if device.address and device.address.startswith("0000:00:")]
    if not addresses:
        pytest.skip("no PCI function here")
    expected = [address.removeprefix("0000:00:") for address in addresses]
    assert completed(bash, "pyuio", "info", "0000", ":", "00", ":") == expected
    assert set(addresses) <= set(completed(bash, "pyuio", "info", ""))
    (first, *_) = expected
    assert completed(bash, "pyuio", "doctor", "00", ":", first[:4]) == [first]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["setup", "0000:00:1e.7", "--print"], 1, "there is no device 0000:00:1e.7"),
        (["setup", "nonsense", "--print"], 1, "there is no device nonsense"),
        (["setup", "/nonsense", "--print"], 2, "does not name a device"),
        (["setup", "0000:00:1e.7", "--group", "a b"], 2, "'a b' cannot be a group"),
        (["setup", "0000:00:1e.7", "--group", "root"], 2, "the group root needs no permission"),
        (["setup", "0000:00:1e.7", "--print", "--undo"], 2, "--print and --undo do not go together"),
        (["setup", "0000:00:1e.7", "--undo"], 1, "there is no device 0000:00:1e.7"),
    ],
)
def test_setup_of_what_cannot_be(words: list[str], status: int, message: str) -> None:
    done = run_in_a_fork(*words)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
