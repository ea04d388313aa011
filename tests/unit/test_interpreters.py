# SPDX-License-Identifier: MIT
"""Interpreters that importing pyuio refuses with ImportError: sub-interpreters, and free-threaded builds."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each version has another name for their module; in each, the default creates an interpreter that shares nothing.
PROGRAM = """if True:
    import sys
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
    else:
        import _xxsubinterpreters as interpreters
    if sys.argv[1] == "isolated":
        made = interpreters.create()
    elif sys.version_info >= (3, 13):
        made = interpreters.create("legacy")
    else:
        made = interpreters.create(isolated=False)
    if sys.argv[2] == "main first":
        import pyuio
    for module in sys.argv[3:]:
        refused = ImportError  # the one that is looked for
        interpreters.run_string(made, f'''if True:
            try:
                import {module}
            except ImportError as error:
                print("ImportError:", error)
            else:
                print("imported")
        ''')
    interpreters.destroy(made)
    import pyuio
    from pyuio._native._access import Window
    window = Window(bytearray(16), offset=0, size=16, name="memory", endian="little")
    window.write32(4, 7)
    print("main:", window.read32(4), bool(pyuio.RegisterMap))
"""


@pytest.mark.parametrize("order", ["main first", "main last"])
@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_a_sub_interpreter_is_refused(kind: str, order: str) -> None:
    modules = ("pyuio", "pyuio", "pyuio.registers")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, order, *modules], capture_output=True, text=True, timeout=60, check=False
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[-1] == "main: 7 True"
    assert len(lines) == len(modules) + 1
    for line in lines[:-1]:
        assert line.startswith("ImportError: "), line
        # From Python 3.13 on, Python refuses an interpreter with a lock of its own by itself, with its own message.
        assert "sub-interpreters" in line or (kind == "isolated" and "subinterpreters" in line), line


def test_a_free_threaded_build_is_refused() -> None:
    # Such a build has this flag by itself: tox runs this test on one.
    program = "import sys\nsys.abiflags = 't'\nimport pyuio"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: pyuio needs Python's global interpreter lock")
