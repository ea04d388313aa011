# SPDX-License-Identifier: MIT
"""test_iommu.py runs this program in a guest whose IOMMU translates, and remaps no interrupts."""

import subprocess
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.claim import binding, choice
from pyuio.doctor import examine
from pyuio.pci import Command
from pyuio.pci.discovery import find
from tests.guest.support import attribute, pyuio_command

address = next(device.address for device in pyuio.devices() if device.ids == "1234:11e8")
assert address is not None
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
    refused = pyuio_command(words[0], address, *words[1:])
    assert (refused.returncode, refused.stdout) == (1, ""), refused
    assert f"{address}: the IOMMU does not remap interrupts, so a card could raise any interrupt" in refused.stderr
with pytest.raises(pyuio.PermissionDeniedError, match="does not remap interrupts"):
    pyuio.open(address, bind="vfio-pci")
assert attribute(address, "driver_override") == "(null)"
assert not Path("/sys/bus/pci/devices", address, "driver").exists()

# Without pyuio's look, the kernel says it, of a card that is bound.
undo = binding.bind(address, "vfio-pci")
with pytest.raises(pyuio.PermissionDeniedError, match="does not remap interrupts") as caught:
    pyuio.open(address)
print(f"refused: {caught.value}")
undo.undo()

with pyuio.open(address, bind=True) as device:
    assert device.driver == "uio_pci_generic"
    refusal = None
    try:
        device.dma.alloc(64)
    except pyuio.DmaUnavailableError as error:
        refusal = error
    assert isinstance(refusal, OSError), "memory was handed out under an IOMMU that translates"
    print(f"refused: {refusal}")
    assert not device.config.command & Command.BUS_MASTER

# Root accepts the risk, as the message says.
subprocess.run(["sh", "-ec", str(caught.value).partition("as root: ")[2].partition(" (a line")[0]], check=True)
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
