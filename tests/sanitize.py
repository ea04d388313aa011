# SPDX-License-Identifier: MIT
"""The compiled parts under AddressSanitizer and UndefinedBehaviorSanitizer: ``make test-sanitize`` runs this.

A copy of the tree in build/sanitize has them compiled with both sanitizers. The tests that use them run there, on this
machine, and in a guest where there are devices. Every finding of a sanitizer ends the process, except for leaks, which
tests/leak_check has LeakSanitizer look for. A leak counts only if pyuio's C asked for the memory.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests import shared_library
from tests.guest import service_handler

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / "build/sanitize"
FLAGS = "-fsanitize=address,undefined"
# test_realtime is not among them, because the sanitizer manages memory, and its mallopt keeps no heap. Tests that
# disassemble are not either: the instructions differ here, and capstone's library cannot be loaded beside a sanitizer.
# Nor is test_dma_kill: a process that is killed reports nothing, and with a sanitizer it takes 40 to 250 ms to end, not
# 10. The card's transfer, which its control must see, comes after 100 ms. test_dma calls the same C.
UNIT = (
    "bad_arguments bus_error device dma fuzz_targets latency_timer pci presence program region region_life region_poll "
    "register_cells register_fields register_types registers waiting window"
)
GUEST_MEMORY = "2G"  # AddressSanitizer keeps what is freed for a while, in each process
# So it leaves no 17 adjacent hugepages, as test_dma wants them: the kernel sets these aside before it starts.
GUEST_HUGEPAGES = "--append=hugepages=32"
GUEST = "bad_arguments interrupt many_interrupts asyncio service dma bars fork threads"


class SanitizerError(Exception):
    """The tree cannot be built with sanitizers."""


def _runtime(name: str) -> str:
    """Return the path of a sanitizer's library, which a process must load first."""
    found = subprocess.run(
        ["cc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_absolute():
        raise SanitizerError(f"the C compiler has no {name}; Debian's is in libgcc-N-dev, Fedora's in {name[:-3]}")
    return found


def build() -> None:
    """Copy the tree to build/sanitize, and compile it there. SanitizerError: it does not compile."""
    for name in ("pyuio", "tests", "drivers", "examples", "benchmarks"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, COPY / name, ignore=ignored, dirs_exist_ok=True)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, COPY)
    service_handler.build(shared_library.KEPT)
    shutil.copytree(shared_library.KEPT, COPY / shared_library.KEPT.relative_to(ROOT), dirs_exist_ok=True)
    flags = f"{FLAGS} -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g"
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    done = subprocess.run(
        command,
        cwd=COPY,
        env={**os.environ, "CFLAGS": flags, "LDFLAGS": FLAGS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SanitizerError(f"compiling with {FLAGS} failed:\n{done.stdout}")


def variables(logs: Path) -> dict[str, str]:
    """Return the environment in which Python runs with the copy; it writes leaks to `logs`."""
    return {
        "LD_PRELOAD": f"{_runtime('libasan.so')} {_runtime('libubsan.so')}",
        "PYTHONMALLOC": "malloc",  # so that each object is a block of its own
        "PYTHONPATH": f"{COPY}:{COPY / 'tests/leak_check'}",
        "ASAN_OPTIONS": f"log_path={logs}/found:detect_stack_use_after_return=1:allocator_may_return_null=1",
        "UBSAN_OPTIONS": f"log_path={logs}/found:print_stacktrace=1:halt_on_error=1",
        "LSAN_OPTIONS": "leak_check_at_exit=0",
    }


def pytest_command(part: str, options: list[str], output: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs the tests of a part, unit or guest, in `COPY`, and the variables it needs.

    Args:
        part: unit or guest.
        options: for pytest; files in place of those above.
        output: where results and reports go.
    """
    named = [option for option in options if option.split("::")[0].endswith(".py")]
    all_of_it = [f"tests/{part}/test_{name}.py" for name in (UNIT if part == "unit" else GUEST).split()]
    files = [name for name in named if name.startswith(f"tests/{part}/")] if named else all_of_it
    rest = [option for option in options if option not in named]
    command = [sys.executable, "-m", "pytest", f"--junitxml={output / 'results.xml'}", "-p", "no:cacheprovider"]
    return ([*command, *files, *rest], variables(output)) if files else ([], {})


def found(logs: Path) -> list[str]:
    """Return the findings of the sanitizers that are pyuio's: all but the leaks of others."""
    reports = []
    for path in sorted(logs.glob("found.*")):
        text = path.read_text(errors="replace")
        if "LeakSanitizer" not in text:
            reports.append(text)
            continue
        # The first frame is malloc's, the second is its caller's.
        ours = r"^(?:Direct|Indirect) leak .*\n +#0 .*\n +#1 .*pyuio[/.]_native[^\n]*(?:\n +#.*)*"
        reports += [match[0] for match in re.finditer(ours, text, re.MULTILINE)]
    return reports
