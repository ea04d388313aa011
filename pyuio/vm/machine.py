# SPDX-License-Identifier: MIT
"""The virtual machine: its options, and the QEMU command line that starts it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyuio.kernel.trusted_directory import stranger
from pyuio.vm import time_stamp_counter
from pyuio.vm.architecture import AMD64, ARCHITECTURES, Architecture
from pyuio.vm.errors import GuestStartError
from pyuio.vm.host_files import exported
from pyuio.vm.kernels import Kernel

PORTS = ("control", "heartbeat", "cards", "tty", "stdin", "stdout", "stderr")
RESTORABLE = "q35"  # the machine that may start from a saved state

# QEMU's devices with a bus into which others are plugged while the guest runs.
_PORT = re.compile("pcie-root-port|ioh3420|xio3130-downstream|pci-bridge|pcie-pci-bridge|pxb")
_CARD = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*(,hotplug)?")


@dataclass(frozen=True)
class Options:
    """The options of a guest.

    Attributes:
        arch: The guest's processor: ``amd64`` or ``arm64``.
        kernel: ``debian``, ``debian-rt``, ``host``, or the path of a kernel.
        devices: QEMU device texts, as for QEMU's -device.
        cards: Cards in Python, as MODULE:CLASS or MODULE:CLASS,hotplug: see `pyuio.vm.cards`.
        memory: The size of its memory: a number of MiB, or a number with K, M, G or T; at least 128 MiB.
        cpus: The number of its processors, 1 to 255.
        timeout: Time limit for the whole run in seconds; None for none.
        out: A directory of the host that the guest may write to, at the same path. Where QEMU runs as root, only root
            may be able to enter it.
        append: More kernel parameters.
        machine: QEMU's machine type and its properties, as for QEMU's -M; by default ``q35``, of arm64 ``virt``.
        qemu: More arguments for QEMU.
        boot: Boot always, even where the guest could start from a saved state.
        one_thread: Emulate all processors in one thread. Alone the guest is slower; beside others on a busy machine it
            takes less processor time, as no processor waits in vain for one that has no thread to run on.

    Raises:
        ValueError: A value is malformed or out of range.
    """

    arch: str = "amd64"
    kernel: str = "debian"
    devices: Sequence[str] = ("edu",)
    cards: Sequence[str] = ()
    memory: str = "1G"
    cpus: int = 2
    timeout: float | None = None
    out: Path | None = None
    append: str = ""
    machine: str = ""
    qemu: Sequence[str] = ()
    boot: bool = False
    one_thread: bool = False

    def __post_init__(self) -> None:
        if self.arch not in ARCHITECTURES:
            raise ValueError(f"arch must be {' or '.join(ARCHITECTURES)}: not {self.arch!r}")
        if not self.machine:
            object.__setattr__(self, "machine", self.architecture.machine)
        if re.fullmatch(r"\d{1,9}[KMGT]?", self.memory, re.ASCII | re.IGNORECASE) is None:
            raise ValueError(f"memory must be a number of MiB, or as in 512M or 1G: not {self.memory!r}")
        if _kibibytes(self.memory) < 128 << 10:
            raise ValueError(f"memory must be at least 128M, for the kernel's sake: not {self.memory}")
        if not 1 <= self.cpus <= 255:
            raise ValueError(f"cpus must be from 1 to 255: not {self.cpus}")
        if self.timeout is not None and not 0 < self.timeout < 1e9:
            raise ValueError(f"timeout must be more than 0 seconds: not {self.timeout:g}")
        for text in self.devices:
            if not device_name(text) or text.endswith(","):
                forms = 'edu, or edu,dma_mask=0xffffffff, or {"driver":"edu","dma_mask":4294967295}'
                raise ValueError(f"a device must be a QEMU device text, as in {forms}: not {text!r}")
        for text in self.cards:
            if _CARD.fullmatch(text) is None:
                raise ValueError(f"a card must be MODULE:CLASS, or MODULE:CLASS,hotplug: not {text!r}")
        if self.out is not None and (not self.out.is_dir() or self.out.resolve() == Path("/")):
            raise ValueError(f"out must be a directory other than /: not {self.out}")
        if self.out is not None and os.geteuid() == 0:
            status = self.out.stat()
            if status.st_uid != 0 or status.st_mode & 0o077:
                raise ValueError(
                    f"other users can enter {self.out}, where the guest could leave a program that runs as root for "
                    f"them: chown root {self.out} && chmod 700 {self.out}"
                )
            if (place := stranger(self.out)) is not None:
                raise ValueError(
                    f"another user can write to {place}, and put something else in the place of {self.out}, to which "
                    "the guest writes as root; take a directory elsewhere"
                )

    @property
    def architecture(self) -> Architecture:
        """The guest's processor."""
        return ARCHITECTURES[self.arch]


def device_name(text: str) -> str:
    """Return the model that a device text names, as in ``edu,dma_mask=0xffffffff`` or QEMU's JSON; "" if none."""
    name: object = text.split(",")[0]
    if text.startswith("{"):
        try:
            name = json.loads(text)["driver"]
        except (ValueError, KeyError, RecursionError):
            return ""
    return name if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name) else ""


def _kibibytes(memory: str) -> int:
    units = {"K": 1, "M": 2**10, "G": 2**20, "T": 2**30}
    return int(memory.rstrip("KMGTkmgt")) * units.get(memory[-1].upper(), 2**10)


def memory_size(options: Options) -> str:
    """Return the size of a guest's memory in whole MiB, with the unit: parts of QEMU differ in the one they assume."""
    return f"{-(-_kibibytes(options.memory) // 2**10)}M"


def shared_memory(options: Options) -> str:
    """Return the memory of a guest that shares it with other programs; see `base`."""
    return f"memory-backend-memfd,id=pyuio-memory,size={memory_size(options)},share=on"


def find_qemu(architecture: Architecture = AMD64) -> str:
    """Return the path of QEMU for a kind of processor.

    Raises:
        GuestStartError: QEMU is not installed.
    """
    path = shutil.which(architecture.qemu)
    if path is None:
        raise GuestStartError(f"{architecture.qemu} is not installed: {architecture.packages}")
    return path


def needs_one_thread(qemu: str, accelerator: str, options: Options) -> bool:
    """Return whether a guest's processors are emulated in one thread: if asked for, or several would lose interrupts.

    When a device comes or goes, the memory map changes. In QEMU before 8.2, with a thread for each emulated processor,
    another processor's write to its interrupt controller can be lost at that moment: the interrupt in service never
    ends, and the guest stands still (docs/findings.md). Devices come and go where there are ports.
    """
    if accelerator == "tcg" and options.one_thread:
        return True
    names = [device_name(text) for text in (*options.devices, *options.qemu)]
    if accelerator != "tcg" or options.cpus == 1 or not any(_PORT.match(name) for name in names):
        return False
    version = qemu_version(qemu)
    return version is None or version < (8, 2)


def qemu_version(qemu: str) -> tuple[int, int] | None:
    """Return the first two numbers of QEMU's version; None if it does not say one."""
    done = subprocess.run([qemu, "--version"], capture_output=True, text=True, timeout=60, check=False)
    found = re.search(r"version (\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else None


def base(
    qemu: str,
    accelerator: str,
    options: Options,
    sockets: Mapping[str, int],
    memory: str = "",
    root: str = "/",
    *,
    one_thread: bool = False,
) -> list[str]:
    """Return the beginning of QEMU's command line: the machine without a kernel and without the devices of this run.

    Args:
        qemu: QEMU's path.
        accelerator: ``kvm`` or ``tcg``.
        options: The guest's options.
        sockets: Connected sockets that QEMU inherits, by name: ``console``, and for a run ``monitor`` and `PORTS`.
        memory: What backs the guest's memory, as for -object, with the id pyuio-memory; by default anonymous memory.
        root: The directory that the guest sees as the host's root.
        one_thread: Emulate all processors in one thread.
    """
    line = [qemu, "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot"]
    kind = f"{options.machine},memory-backend=pyuio-memory" if memory else options.machine
    line += ["-machine", kind, "-accel", accelerator + ",thread=single" * one_thread, "-cpu"]
    line.append(options.architecture.cpu[accelerator])
    line += ["-m", memory_size(options), "-smp", str(options.cpus)]
    if memory:
        line += ["-object", memory]
    for name, fd in sockets.items():
        line += ["-chardev", f"socket,id=pyuio-{name},fd={fd}"]
    line += ["-serial", "chardev:pyuio-console"]
    if "monitor" in sockets:
        line += ["-mon", "chardev=pyuio-monitor,mode=control"]
        if options.machine == RESTORABLE:
            # By its change the kernel learns that its state was restored, and renews that of its random numbers.
            line += ["-device", "vmgenid,guid=auto"]
        # These take the last slots of the bus, so that the requested devices come first and keep their addresses.
        files = f"local,id=pyuio-root,{exported(root)}security_model=none,readonly=on,multidevs=remap"
        line += ["-fsdev", files, "-device", "virtio-9p-pci,fsdev=pyuio-root,mount_tag=pyuio-root,addr=1d"]
        line += ["-device", "virtio-serial-pci,id=pyuio-serial,addr=1c"]
        for number, name in enumerate(PORTS, 1):
            port = f"bus=pyuio-serial.0,nr={number},chardev=pyuio-{name},id=pyuio-port-{name},name=pyuio.{name}"
            line += ["-device", f"virtserialport,{port}"]
    return line


def boot(kernel: Kernel, archive: str, accelerator: str, options: Options, *, chatty: bool = False) -> list[str]:
    """Return the part of QEMU's command line that boots a kernel.

    Args:
        kernel: The kernel.
        archive: The path of the complete initramfs.
        accelerator: ``kvm`` or ``tcg``.
        options: The guest's options.
        chatty: Let the kernel print all messages, not only warnings.
    """
    architecture = options.architecture
    khz = time_stamp_counter.frequency() if accelerator == "tcg" and architecture.time_stamp_counter else 0
    counter = f" tsc_early_khz={khz}" if khz else ""
    level = f" {'' if chatty else 'quiet '}loglevel={log_level(chatty=chatty)} "
    text = (architecture.parameters[accelerator] + counter + level + options.append).strip()
    return ["-kernel", str(kernel.image), "-initrd", archive, "-append", text]


def log_level(*, chatty: bool) -> int:
    """Return the kernel's log level: all messages, or only warnings."""
    return 7 if chatty else 5


def devices(options: Options) -> list[str]:
    """Return the part of QEMU's command line for the devices of this run, and for more options."""
    line = []
    if options.out is not None:
        path = exported(str(options.out.resolve()))
        line += ["-fsdev", f"local,id=pyuio-out,{path}security_model=none,multidevs=remap"]
        line += ["-device", "virtio-9p-pci,fsdev=pyuio-out,mount_tag=pyuio-out,addr=1b"]
    for text in options.devices:
        line += ["-device", text]
    return [*line, *options.qemu]
