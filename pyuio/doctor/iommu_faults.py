# SPDX-License-Identifier: MIT
"""The check of what an IOMMU has kept a device from: accesses to addresses at which nothing is mapped for it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import NamedTuple

from pyuio.doctor.finding import Answer, Check, advice, good
from pyuio.kernel.device_tree import stream_id
from pyuio.kernel.log import Message, messages
from pyuio.kernel.vfio import group_of
from pyuio.pci.discovery import FoundDevice

# drivers/iommu/intel/dmar.c, dmar_fault_do_one; older kernels have "PASID ffffffff", and the address without 0x.
_INTEL = re.compile(
    r"DMAR: \[DMA (?P<kind>Read|Write)[^\]]*\] Request device \[(?P<device>[0-9a-f:.]+)\] (?:PASID \w+ )?"
    r"fault addr (?:0x)?(?P<address>[0-9a-f]+) \[fault reason [^\]]*\] (?P<reason>.*)"
)
# drivers/iommu/amd/iommu.c, amd_iommu_report_page_fault; bit 5 of the flags is set for a write.
_AMD = re.compile(
    r"(?:(?P<device>[0-9a-f:.]+): )?AMD-Vi: Event logged \[IO_PAGE_FAULT (?:device=(?P<other>[0-9a-f:.]+) )?"
    r"domain=\w+ address=0x(?P<address>[0-9a-f]+) flags=0x(?P<flags>[0-9a-f]+)\]"
)
_AMD_WRITE = 1 << 5
# drivers/iommu/virtio-iommu.c, viommu_fault_handler. An endpoint is a bus, a device and a function, 8, 5 and 3 bits, on
# the machines of QEMU.
_VIRTIO = re.compile(r"fault from EP (?P<endpoint>\d+) at (?:0x)?(?P<address>[0-9a-f]+) \[(?P<kinds>[RWX]*)\]")
# drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c, arm_smmu_evtq_thread: a line for an event, and one for each of its four
# words. They are those of the Arm SMMUv3 Architecture Specification (IHI 0070), section 7.3.
_SMMU = re.compile(r"arm-smmu-v3 (?P<smmu>\S+): (?:event 0x\w+ (?P<event>received)|\s*0x(?P<word>[0-9a-f]{16})$)")
_SMMU_FAULTS = range(0x10, 0x14)  # F_TRANSLATION, F_ADDR_SIZE, F_ACCESS, F_PERMISSION
_SMMU_READ = 1 << 35  # in the second word


class Fault(NamedTuple):
    """An access that the IOMMU refused.

    Attributes:
        time: seconds since the start of the machine.
        write: whether it was a write; None if the IOMMU did not tell.
        address: the bus address.
    """

    time: float
    write: bool | None
    address: int


def _function(requester: int) -> str:
    """Return the bus, device and function, 8, 5 and 3 bits, of a requester id."""
    return f"{requester >> 8:02x}:{requester >> 3 & 31:02x}.{requester & 7}"


def faults_of(device: str, log: Iterable[Message], stream: int | None = None) -> list[Fault]:
    """Return the faults of a device that Intel's, AMD's, virtio's and ARM's drivers logged, oldest first.

    Args:
        device: its address, ``0000:00:04.0``; all but AMD's driver leave the domain out.
        log: the kernel's.
        stream: the number by which ARM's SMMU knows the device; by default its requester id.
    """
    found = []
    events: dict[str, list[int]] = {}  # the words of each SMMU's last event
    for message in log:
        if (match := _INTEL.search(message.text)) is not None:
            write, named, address = match["kind"] == "Write", match["device"], int(match["address"], 16)
        elif (match := _AMD.search(message.text)) is not None:
            write, named = bool(int(match["flags"], 16) & _AMD_WRITE), match["other"] or match["device"] or ""
            address = int(match["address"], 16)
        elif (match := _VIRTIO.search(message.text)) is not None:
            endpoint = int(match["endpoint"])
            write = "W" in match["kinds"] if match["kinds"] else None
            named, address = _function(endpoint), int(match["address"], 16)
        elif (match := _SMMU.search(message.text)) is not None:
            event = events.setdefault(match["smmu"], [])
            if match["event"]:
                event.clear()
                continue
            event.append(int(match["word"], 16))
            if len(event) != 4 or event[0] & 0xFF not in _SMMU_FAULTS:
                continue
            write, address = not event[1] & _SMMU_READ, event[2]
            named = device if event[0] >> 32 == stream else _function(event[0] >> 32) if stream is None else ""
        else:
            continue
        if named in (device, device.partition(":")[2]):
            found.append(Fault(message.time, write, address))
    return found


def judge_faults(name: str, faults: list[Fault], now: float) -> Answer:
    """Judge the faults of a device.

    Args:
        name: of the device.
        faults: oldest first.
        now: seconds since the start of the machine.
    """
    if not faults:
        return good(f"{name}: the kernel's log has no access outside its memory")
    last = faults[-1]
    times = "times" if len(faults) > 1 else "time"
    what = {True: "write to", False: "read", None: "reach"}[last.write]
    return advice(
        f"{name} tried to reach memory that is not its own, and the IOMMU prevented it; the kernel logged that "
        f"{len(faults)} {times}, and may have left others out; the last was {max(0, now - last.time):.0f} s ago, "
        f"to {what} {last.address:#x}",
        "compare the address with those of the driver's buffers: a buffer was closed while the device still used it, "
        "the device was told a wrong address or length, or a killed driver left a transfer behind",
    )


def look_at_faults(device: FoundDevice | None) -> Answer | None:
    """Look for the device's faults in the kernel's log; None if it has no IOMMU."""
    if device is None or device.address is None or group_of(device.directory) is None:
        return None
    faults = faults_of(device.address, messages(), stream_id(device.directory))
    return judge_faults(device.name, faults, time.clock_gettime(time.CLOCK_MONOTONIC))


CHECKS = (
    Check(
        "iommu_faults",
        "device",
        "A device that reaches for memory that is not mapped for it has a wrong address: its data is lost, and without "
        "an IOMMU it would be in somebody else's memory.",
        look_at_faults,
    ),
)
