# SPDX-License-Identifier: MIT
"""The processors that a guest can have: their names, and what a guest of each starts with."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass

# These switch off checks and mitigations that cost time and do not matter here. None of them changes how a driver sees
# PCI, interrupts or the scheduler.
_PARAMETERS = "panic=-1 mitigations=off cryptomgr.notests random.trust_cpu=on audit=0 noresume"


@dataclass(frozen=True)
class Architecture:
    """A kind of processor.

    Attributes:
        name: Debian's name for it, which ``--arch`` takes.
        processor: Its name as ``uname -m`` prints it.
        triplet: Its name in those of compilers and libraries.
        qemu: The name of QEMU's program that emulates it.
        packages: The packages with that program, for people.
        kernels: Debian's packages for the names that ``--kernel`` takes.
        machine: QEMU's machine type for it, as for -M.
        cpu: QEMU's model of the processor, by accelerator.
        parameters: The kernel's parameters, by accelerator.
        time_stamp_counter: Whether the emulated processor has the host's time stamp counter.
    """

    name: str
    processor: str
    triplet: str
    qemu: str
    packages: str
    kernels: Mapping[str, str]
    machine: str
    cpu: Mapping[str, str]
    parameters: Mapping[str, str]
    time_stamp_counter: bool = False

    @property
    def foreign(self) -> bool:
        """Whether this machine's programs do not run on such a processor."""
        return self.processor != platform.machine()


AMD64 = Architecture(
    name="amd64",
    processor="x86_64",
    triplet="x86_64-linux-gnu",
    qemu="qemu-system-x86_64",
    packages="apt install qemu-system-x86 (Fedora: qemu-system-x86-core)",
    kernels={"debian": "linux-image-amd64", "debian-rt": "linux-image-rt-amd64"},
    machine="q35",
    # KVM runs host best. Under emulation, max has the instructions that make copying fast, but its five-level page
    # tables slow down every TLB miss, SMAP slows down every system call, and with ERMS Linux clears pages by rep stosb,
    # which goes byte by byte. FSRM, of newer QEMUs, goes with ERMS: with FSRM alone Linux 6.1 hangs at boot.
    cpu={"kvm": "host", "tcg": "max,la57=off,smap=off,erms=off,fsrm=off"},
    # KVM has a clock of its own. Under emulation the guest would fall back to the HPET, and each read of that costs a
    # trip to QEMU. The kernel also checks once whether timer interrupts arrive in time, and panics if the host is too
    # busy.
    parameters={
        "kvm": f"console=ttyS0 {_PARAMETERS}",
        "tcg": f"console=ttyS0 {_PARAMETERS} clocksource=tsc tsc=reliable no_timer_check",
    },
    time_stamp_counter=True,
)
ARM64 = Architecture(
    name="arm64",
    processor="aarch64",
    triplet="aarch64-linux-gnu",
    qemu="qemu-system-aarch64",
    packages="apt install qemu-system-arm (Fedora: qemu-system-aarch64-core)",
    kernels={"debian": "linux-image-arm64", "debian-rt": "linux-image-rt-arm64"},
    machine="virt,gic-version=3",  # with the interrupt translation service, by which messages are interrupts
    # max would sign pointers, and emulated that takes long.
    cpu={"tcg": "cortex-a72"},
    # The processor has no instruction for random numbers; the device tree has a seed.
    parameters={"tcg": f"console=ttyAMA0 {_PARAMETERS} random.trust_bootloader=on"},
)
ARCHITECTURES = {architecture.name: architecture for architecture in (AMD64, ARM64)}
