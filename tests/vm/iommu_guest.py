# SPDX-License-Identifier: MIT
"""test_iommu.py runs this program in a guest whose IOMMU translates, and remaps no interrupts."""

import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pyuio_drivers.edu import Edu

import pyuio
from pyuio import cli
from pyuio.claim import binding, choice
from pyuio.doctor import examine
from pyuio.pci import Command
from pyuio.pci.discovery import find
from tests.guest.support import attribute


def refusal(call: Callable[[], object]) -> str:
    """Return the message of the error that a call must raise."""
    try:
        call()
    except pyuio.PermissionDeniedError as error:
        return str(error)
    raise AssertionError("it was not refused")


def command(*words: str) -> tuple[object, str, str]:
    """Run the command ``pyuio`` here, as a Python for each takes seconds to start; return status and output."""
    sys.argv = ["pyuio", *words]
    output, errors = io.StringIO(), io.StringIO()
    status: object = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            cli.main()
        except SystemExit as end:
            status = end.code
    return status, output.getvalue(), errors.getvalue()


address = str(next(device.address for device in pyuio.devices() if device.ids == "1234:11e8"))
kind = attribute(address, "iommu_group/type")
assert kind in ("DMA", "DMA-FQ"), kind

# VFIO is out, and whoever asks is told so before anything changes.
assert choice.choose(find(address)) == ("uio_pci_generic", "VFIO is out: the IOMMU does not remap interrupts")
found = {one.name: one for one in examine(address)}
assert "VFIO: the IOMMU does not remap interrupts" in found["ways"].found, found["ways"]
assert found["iommu"].state == "blocks", found["iommu"]
assert "VFIO is out, because the IOMMU does not remap interrupts: switch" in found["iommu"].remedy, found["iommu"]
for words in (
    ["bind", "--driver", "vfio-pci"],
    ["bind", "--driver", "vfio-pci", "--whole-group"],
    ["setup", "--driver", "vfio-pci"],
):
    status, output, errors = command(words[0], address, *words[1:])
    assert (status, output) == (1, ""), (status, output, errors)
    assert f"{address}: the IOMMU does not remap interrupts, so a card could raise any interrupt" in errors
assert "does not remap interrupts" in refusal(lambda: pyuio.open(address, bind="vfio-pci"))
assert attribute(address, "driver_override") == "(null)"
assert not Path("/sys/bus/pci/devices", address, "driver").exists()

# Without pyuio's look, the kernel says it, of a card that is bound.
undo = binding.bind(address, "vfio-pci")
refused = refusal(lambda: pyuio.open(address))
assert "does not remap interrupts" in refused
print(f"refused: {refused}")
undo.undo()

with pyuio.open(address, bind=True) as device:
    assert device.driver == "uio_pci_generic"
    unavailable = None
    try:
        device.dma.alloc(64)
    except pyuio.DmaUnavailableError as error:
        unavailable = error
    assert isinstance(unavailable, OSError), "memory was handed out under an IOMMU that translates"
    print(f"refused: {unavailable}")
    assert not device.config.command & Command.BUS_MASTER

# Root accepts the risk, as the message says.
subprocess.run(["sh", "-ec", refused.partition("as root: ")[2].partition(" (a line")[0]], check=True)
assert choice.choose(find(address)).driver == "vfio-pci"
with pyuio.open(address, bind=True) as device:
    card = Edu(device)
    by_line = f"{card.factorial_by_interrupt(10)} by {device.interrupt.kind}"
with pyuio.open(address, bind=True) as device:
    (vector,) = device.vectors(1)
    Edu(device).raise_interrupt(1)
    print(f"by VFIO: {by_line}, {vector.read(20)} by {vector.kind}")

# This does for this group alone what iommu=pt does at boot. No driver may be bound.
Path("/sys/bus/pci/devices", address, "iommu_group/type").write_text("identity")
with pyuio.open(address, bind="uio_pci_generic") as device:
    card = Edu(device)
    card.to_device(b"through the IOMMU")
    print("identity:", card.from_device(17).decode())
