# SPDX-License-Identifier: MIT
"""A complaint names the driver's line, however the driver came to the card."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pyuio

PROGRAM = """
import pyuio.model
from pyuio import Register, RegisterMap

class Registers(RegisterMap):
    go = Register(0)

class Eager(pyuio.model.Card):
    vendor, device, bars, registers = 0x1234, 0xC0DE, {0: 16}, {0: Registers}

    def on_write_go(self, value):
        self.after(1e-5, self.transfer)

    def transfer(self):
        self.memory.read(0x1000, 4)

device = pyuio.model.open(Eager)
registers = Registers(device.bar(0))
interrupt = device.interrupt
registers.go.write(1)
try:
    while True:
        WAIT
except pyuio.model.Complaint as complaint:
    print(complaint)
"""


@pytest.mark.parametrize(
    "wait", ["registers.go.read()", "pyuio.model.clock.sleep(1)", "interrupt.read(1)", "registers.go.write(2)"]
)
@pytest.mark.parametrize("linked", [False, True])
def test_the_line_is_the_drivers(tmp_path: Path, wait: str, linked: bool) -> None:
    place = Path(pyuio.__file__).resolve().parents[1]
    if linked:  # as an editable installation has it
        (tmp_path / "pyuio").symlink_to(place / "pyuio")
        place = tmp_path
    (tmp_path / "program.py").write_text(
        f"import sys\nsys.path.insert(0, {str(place)!r})\n{PROGRAM.replace('WAIT', wait)}"
    )
    command = [sys.executable, "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert f", in <module>: {wait}\n" in done.stdout, done.stdout + done.stderr
    assert done.stdout.startswith(
        "Eager: the card reads 4 bytes at 0x1000 while bus mastering is off\n  at program.py:"
    )
