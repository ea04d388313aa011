# SPDX-License-Identifier: MIT
"""The plugin for pytest, as a driver's tests use it; tests/vm/test_card_tests_in_guest.py has the guest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pyuio_drivers.models.edu import EduCard

from pyuio.pytest_plugin.guest import Reporter, name_of

pytest_plugins = ["pytester"]

HEAD = """
import pytest
import pyuio
import pyuio.model
from pyuio.model import Complaint
from pyuio_drivers.edu import Edu
from pyuio_drivers.models.edu import EduCard

pytestmark = pytest.mark.card(kind=EduCard)
"""


def run(pytester: pytest.Pytester, tests: str, *options: str, head: str = HEAD) -> pytest.RunResult:
    pytester.makepyfile(head + tests)
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)


def test_a_driver_runs_on_a_new_card_in_each_test(pytester: pytest.Pytester) -> None:
    tests = """
    def test_one(device):
        assert isinstance(device, pyuio.Device)
        with Edu(device) as edu:
            assert edu.factorial(5) == 120
        assert device.closed

    @pytest.mark.parametrize("number", [1, 2])
    def test_card_and_device_are_one(card, device, number):
        assert device.bar(0).read32(8) == 0
        card.regs.factorial.write(number)
        assert device.bar(0).read32(8) == number
    """
    run(pytester, textwrapped(tests), "-W", "error").assert_outcomes(passed=3)


def textwrapped(text: str) -> str:
    return text.replace("\n    ", "\n")


def test_a_class_or_a_test_may_have_another_card(pytester: pytest.Pytester) -> None:
    tests = """
    class Other(EduCard):
        device = 0x11E9

    @pytest.mark.card(kind=Other)
    class TestOther:
        def test_ids(self, device):
            assert device.ids == "1234:11e9"

        @pytest.mark.card(kind=EduCard)
        def test_nearer(self, device):
            assert device.ids == "1234:11e8"
    """
    run(pytester, textwrapped(tests)).assert_outcomes(passed=2)


def test_a_fixture_may_make_the_card(pytester: pytest.Pytester) -> None:
    tests = """
    class Counted(EduCard):
        def __init__(self, start):
            super().__init__()
            self.regs.factorial.write(start)

    @pytest.fixture
    def card():
        return Counted(7)

    def test_it(device):
        assert device.bar(0).read32(8) == 7

    def test_it_complains(device):
        try:
            device.bar(0).read16(0)
        except Complaint:
            pass
    """
    run(pytester, textwrapped(tests)).assert_outcomes(passed=1, failed=1)


def test_a_complaint_fails_the_test_that_swallowed_it_once(pytester: pytest.Pytester) -> None:
    tests = """
    def careless(device):
        try:
            device.bar(0).write32(0, 1)
        except AssertionError:
            pass

    def test_swallowed(device):
        careless(device)

    def test_not_swallowed(device):
        device.bar(0).write32(0, 1)

    def test_it_is_told_beside_another_error(device):
        careless(device)
        assert 1 == 2

    def test_wanted(card, device):
        with pytest.raises(Complaint, match="read-only"):
            device.bar(0).write32(0, 1)
        card.complaints.clear()

    @pytest.fixture
    def driver(device):
        yield
        careless(device)

    def test_at_the_end(driver):
        pass

    @pytest.fixture
    def own(card):
        device = pyuio.model.open(card)
        yield
        careless(device)
        device.close()

    def test_at_the_end_of_its_own(own):
        pass
    """
    result = run(pytester, textwrapped(tests))
    result.assert_outcomes(failed=3, passed=3, errors=2)
    complaint = "EduCard: a 32-bit write at offset 0x0 of BAR 0: identification is read-only"
    result.stdout.fnmatch_lines(
        [
            "*test_at_the_end*",
            complaint,
            "  at test_a_complaint_*.py:*, in careless: device.bar(0).write32(0, 1)",
            "*test_swallowed*",
            complaint,
            "*test_it_is_told_beside*",
            "E  *assert 1 == 2",
            "*complaints of EduCard*",
            complaint,
        ]
    )
    assert str(result.stdout).count(f"\n{complaint}") == 4


def test_faults_are_told_with_a_failure(pytester: pytest.Pytester) -> None:
    tests = """
    def test_it(card, device):
        card.faults.remove(at_access=3)
        Edu(device)
    """
    result = run(pytester, textwrapped(tests))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*DeviceRemovedError*", "*faults of EduCard*", "at access 3: the card is pulled out"])


def test_what_is_left_open_is_told(pytester: pytest.Pytester) -> None:
    tests = """
    def test_buffers(device):
        kept.append(device.dma.alloc(64))

    def test_closed(device):
        device.dma.alloc(64).close()

    def test_device(card):
        kept.append(pyuio.model.open(card))

    kept = []
    """
    result = run(pytester, textwrapped(tests))
    result.assert_outcomes(passed=3, errors=1, warnings=1)
    result.stdout.fnmatch_lines(
        [
            "the test left EduCard open: close what pyuio.model.open() returned",
            "*LeftOpenWarning: *::test_buffers left memory for DMA open (<DmaBuffer of 64 bytes at 0x*>); close *",
        ]
    )


def test_what_a_card_planned_does_not_happen_in_the_next_test(pytester: pytest.Pytester) -> None:
    tests = """
    def test_one(device):
        edu = Edu(device)
        buffer = device.dma.alloc(4096)
        edu.registers.dma_source.write(buffer.address)
        edu.registers.dma_destination.write(0x40000)
        edu.registers.dma_count.write(64)
        edu.registers.dma_command.write(1)
        buffer.close()

    def test_two(card, device):
        pyuio.model.clock.sleep(1)
        assert Edu(device).factorial(3) == 6
    """
    run(pytester, textwrapped(tests)).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("", "test_it uses a card: say which card it is, as by pytestmark = pytest.mark.card(kind=MyCard)*"),
        (
            "@pytest.mark.card(kind=Edu)",
            "pytest.mark.card(kind=...) takes a class that derives from *Card, not *Edu*",
        ),
        (
            "@pytest.mark.card()",
            "pytest.mark.card(kind=...) takes a class that derives from *Card, not None",
        ),
        (
            "@pytest.mark.card(kind=EduCard())",
            "pytest.mark.card(kind=...) takes a class *, not <EduCard 1234:*>",
        ),
    ],
)
def test_a_card_that_is_none_is_refused(pytester: pytest.Pytester, mark: str, message: str) -> None:
    head = HEAD.replace("pytestmark = pytest.mark.card(kind=EduCard)", "")
    result = run(pytester, f"{mark}\ndef test_it(device):\n    pass\n", head=head)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message])


def test_a_fixture_of_the_same_name_has_precedence(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import pytest\n@pytest.fixture\ndef device():\n    return 1")
    result = run(pytester, "def test_it(device):\n    assert device == 1\n", head="")
    result.assert_outcomes(passed=1)


def test_who_has_no_card_does_not_import_the_models(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it():\n    assert 'pyuio.pytest_plugin' in sys.modules\n"
        "    assert not {'pyuio.model', 'pyuio.device', 'pyuio.registers', 'pyuio.cli', 'typer'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- The host's side of --card-in-guest; what runs as `pyuio vm run` is replaced ----


IN_GUEST = """
def test_runs(device):
    pass

def test_also_runs(device):
    pass

def test_uses_the_card(card, device):
    pass

def test_needs_none():
    pass
"""


def replaced_guest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str) -> None:
    """Let the command that runs `pyuio.cli` be a program that finds what follows in `words`."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if sys.orig_argv[3:4] == ['pyuio.cli']:\n"
        f"    exec({program!r}, {{'words': sys.orig_argv[4:]}})\n"
        "    sys.stdout.flush()\n"
        "    import os; os._exit(0)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


ANSWER = """
import json
(reports,) = [word for word in words if word.startswith("--reports-of-guest=")]
with open(reports.partition("=")[2], "a") as file:
    for name, when, outcome in {reports}:
        nodeid = "test_guest.py::" + name
        data = dict(nodeid=nodeid, location=("test_guest.py", 1, name), keywords={{}}, outcome=outcome, longrepr="told",
                    when=when, sections=[], duration=0.5, start=0, stop=1, user_properties=[])
        file.write(json.dumps(data | {{"$report_type": "TestReport"}}) + chr(10))
print("the words were", words)
"""


def in_guest(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reports: list[tuple[str, str, str]]
) -> pytest.RunResult:
    replaced_guest(monkeypatch, tmp_path, ANSWER.format(reports=reports))
    pytester.makepyfile(test_guest=HEAD + IN_GUEST)
    return pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "-v", "--card-in-guest", "--guest-options=--memory 2G"
    )


def phases(name: str, outcome: str) -> list[tuple[str, str, str]]:
    return [(name, "setup", "passed"), (name, "call", outcome), (name, "teardown", "passed")]


def test_reports_of_the_guest_are_shown(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reports = phases("test_runs", "passed") + phases("test_also_runs", "failed")
    result = in_guest(pytester, monkeypatch, tmp_path, reports)
    result.assert_outcomes(passed=1, failed=1, deselected=2)
    result.stdout.fnmatch_lines(
        ["*::test_runs PASSED*", "*::test_also_runs FAILED*", "told", "2 deselected tests did*"]
    )
    assert result.ret == 1


def test_a_test_that_does_not_end_in_the_guest_fails(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = in_guest(pytester, monkeypatch, tmp_path, phases("test_runs", "passed"))
    result.assert_outcomes(passed=1, failed=1, deselected=2)
    shown = result.stdout.str()
    assert "the guest with pyuio_drivers.models.edu:EduCard ended before this test did, status 0:" in shown
    assert "the words were ['vm', 'run', '--card', 'pyuio_drivers.models.edu:EduCard', '--out'," in shown
    assert "'--memory', '2G', '--', '" in shown
    assert "'pytest', '-p', 'no:cacheprovider', '-v', '--card-in-guest'," in shown


def test_processes_of_xdist_and_a_guest_do_not_go_together(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("def pytest_addoption(parser):\n    parser.addoption('--numprocesses', dest='numprocesses')")
    result = run(pytester, IN_GUEST, "--card-in-guest", "--numprocesses=2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--card-in-guest runs one pytest in a guest, so it does not go with -n of*"])


def test_a_guest_that_does_not_start_is_told(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    result = in_guest(pytester, monkeypatch, tmp_path, [])
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*the guest with pyuio_drivers.models.edu:EduCard ran no test, status 0:*"])


def test_in_the_guest_each_report_becomes_a_line(pytester: pytest.Pytester, tmp_path: Path) -> None:
    file = tmp_path / "reports"
    tests = """
    @pytest.fixture
    def device():
        return 1

    def test_it(device):
        assert device == 2

    def test_card(card):
        pass

    class Other(EduCard):
        pass

    @pytest.mark.card(kind=Other)
    def test_another(device):
        pass
    """
    result = run(pytester, textwrapped(tests), f"--reports-of-guest={file}", f"--card-of-guest={name_of(EduCard)}")
    result.assert_outcomes(failed=1, deselected=2)
    reports = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(one["nodeid"].partition("::")[2], one["when"], one["outcome"]) for one in reports] == [
        ("test_it", "setup", "passed"),
        ("test_it", "call", "failed"),
        ("test_it", "teardown", "passed"),
    ]
    assert Reporter.__module__ == "pyuio.pytest_plugin.guest"


def test_the_second_pytest_has_the_same_names_for_the_tests(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What replaces the guest runs the command that was for it, which finds no card and says so in each test."""
    program = """
import subprocess
subprocess.run(words[words.index("--") + 1 :])
"""
    replaced_guest(monkeypatch, tmp_path, program)
    pytester.makepyfile(test_guest=HEAD + IN_GUEST)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-v", "--card-in-guest")
    result.assert_outcomes(errors=2, deselected=2)
    result.stdout.fnmatch_lines(["*::test_runs ERROR*", "*::test_also_runs ERROR*", "*DeviceNotFoundError*1234:11e8*"])
