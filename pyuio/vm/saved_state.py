# SPDX-License-Identifier: MIT
"""The saved state of a booted guest, from which the next guest starts in a fraction of the time.

Booting the kernel is the same work every time: three seconds of emulation. So pyuio boots once, without the devices of
any run, until the guest's first program asks for its configuration, and saves the state there:

    ROOT/saved/KEY/memory          the guest's memory, a sparse file
    ROOT/saved/KEY/state           what QEMU knows of processors and devices, as for a migration
    ROOT/saved/KEY/pluggable       the devices that a restored guest may have, a name a line
    ROOT/saved/KEY/manifest.json   sizes and SHA-256, written last

A run maps the memory privately, so QEMU copies only the pages that the guest writes to. It restores the state and
sends the configuration; COMMAND is a part of that. The guest sets its clock by it, and looks on the PCI bus for the
devices of this run, which QEMU has had from its start. Random numbers do not repeat: QEMU gives each guest a new
generation id (vmgenid), and the kernel renews their state when it sees that. This point is before the guest mounts the
host's file system, because QEMU migrates no 9p file system that is mounted.

KEY stands for all that the state depends on: the kernel, QEMU, the command line and the initramfs. The files are
checked while QEMU starts, and so is the frequency of this machine's time stamp counter, which the guest's clock runs
by. COMMAND is sent only after that.

What firmware or the kernel finds only when it boots needs a boot (`reason_to_boot`): kernel parameters, other machines,
bridges and IOMMUs (ACPI tables describe them), and whatever is not on the PCI bus. A balloon would change the state's
file. KVM boots, too: it takes a second anyway.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyuio.vm import cache, machine, time_stamp_counter
from pyuio.vm.errors import GuestStartError
from pyuio.vm.kernels import Kernel
from pyuio.vm.monitor import Monitor
from pyuio.vm.process import Lines, Process, memory_file, socket_pairs

SAVE_TIME_LIMIT = 120.0  # seconds, with the boot
SIZE_LIMIT = 1 << 30  # bytes on the disk, of all states
# Buses whose devices sit on a device of this run, so that the guest finds them with it.
_CHILD_BUSES = {"usb-bus", "SCSI", "HDA"}
# A balloon's pages are punched out of the state's file, under every guest that maps it. ACPI describes the others.
_NEVER = re.compile("balloon|virtio-mem|iommu|AMDVI|acpi")
# QEMU 7.2 restores no guest that has one of these, as shown by -only-migratable; without it, it says so only then.
_NOT_MIGRATABLE = {"nvme", "rocker", "usb-audio", "usb-braille", "usb-mtp", "usb-net", "usb-serial", "usb-uas"}
_NOT_MIGRATABLE |= {"usb-wacom-tablet", "virtio-input-host-pci"}
# Options of QEMU with one argument, that change nothing the guest knows before it looks for devices.
_HARMLESS = {"-blockdev", "-chardev", "-drive", "-mon", "-name", "-netdev", "-object", "-qmp", "-trace", "-D", "-d"}


@dataclass(frozen=True)
class SavedState:
    """A saved state.

    Attributes:
        directory: Where its files are.
    """

    directory: Path

    @property
    def pluggable(self) -> set[str]:
        """The names of the devices that a restored guest may have."""
        with contextlib.suppress(OSError):
            return set((self.directory / "pluggable").read_text().split())
        return set()

    @property
    def writable(self) -> bool:
        """Whether this user can write to the memory's file, which QEMU demands, although it does not write."""
        return os.access(self.memory, os.W_OK)

    def backend(self, size: str, *, shared: str | None = None) -> str:
        """Return the guest's memory for QEMU's -object.

        Args:
            size: With its unit.
            shared: The file that the guest writes to, which may be `memory_copy`; None: `memory`, and writes are lost.
        """
        path = (shared or str(self.memory)).replace(",", ",,")
        return f"memory-backend-file,id=pyuio-memory,size={size},mem-path={path},share={'on' if shared else 'off'}"

    @property
    def memory(self) -> Path:
        """The file of the guest's memory."""
        return self.directory / "memory"

    @contextlib.contextmanager
    def memory_copy(self) -> Iterator[int]:
        """Yield the descriptor of a copy in memory of the guest's memory, for a guest that shares it with others."""
        with self.memory.open("rb", buffering=0) as source, memory_file() as copy:
            size = source.seek(0, os.SEEK_END)
            os.ftruncate(copy, size)
            start = 0
            with contextlib.suppress(OSError):  # ENXIO: there are only holes left
                while start < size:
                    start = os.lseek(source.fileno(), start, os.SEEK_DATA)
                    end = os.lseek(source.fileno(), start, os.SEEK_HOLE)
                    os.lseek(copy, start, os.SEEK_SET)
                    while start < end:
                        start += os.sendfile(copy, source.fileno(), start, end - start)
            yield copy

    def load(self, monitor: Monitor) -> None:
        """Send QEMU, which must be started with ``-incoming defer``, the commands to restore the state.

        Raises:
            OSError: The state cannot be read, or QEMU is gone.
        """
        monitor.send("migrate-set-capabilities", capabilities=_CAPABILITIES)
        with (self.directory / "state").open("rb") as file:
            monitor.send("getfd", descriptor=file.fileno(), fdname="state")
        monitor.send("migrate-incoming", uri="fd:state")

    def intact(self) -> bool:
        """Return whether every file is as it was saved, on a machine whose clock is as fast; reads all of them."""
        facts = cache.check(self.directory, thorough=True)
        if facts is None or not facts.get("kHz", "").isdecimal():
            return False
        saved, here = int(facts["kHz"]), time_stamp_counter.frequency()
        return abs(saved - here) * 100 <= here

    def discard(self) -> None:
        """Remove the state, which is damaged or does not work."""
        shutil.rmtree(self.directory, ignore_errors=True)


# The memory's file is the memory: the state need not contain it. Events tell when the state is complete.
_CAPABILITIES = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]


def reason_to_boot(options: machine.Options, accelerator: str) -> str:
    """Return why a guest cannot start from a saved state, as far as QEMU need not be asked; empty if it can."""
    if options.boot:
        return "--boot"
    if accelerator != "tcg":
        return "KVM boots in a second"
    if ports := [text for text in options.cards if text.endswith(",hotplug")]:
        return f"{ports[0]} has a root port"
    if options.append:
        return "--append gives kernel parameters"
    if options.machine != machine.RESTORABLE:
        return f"the machine is not {machine.RESTORABLE}"
    words = iter(options.qemu)
    for word in words:
        argument = next(words, "")
        if word == "-device" and argument:
            continue
        if word not in _HARMLESS or (word == "-drive" and "if=none" not in argument.split(",")):
            return f"QEMU's option {word} may change the machine"
        if word == "-object" and argument.startswith("memory-backend"):
            return "memory is added"
    return ""


def not_pluggable(options: machine.Options, state: SavedState) -> str:
    """Return the first device that needs a boot; empty if there is none."""
    others = [text for word, text in itertools.pairwise(options.qemu) if word == "-device"]
    names = map(machine.device_name, (*options.devices, *others))
    return next((name for name in names if name not in state.pluggable), "")


def find(
    qemu: str, kernel: Kernel, initramfs: Sequence[bytes], options: machine.Options, say: Callable[[str], None]
) -> SavedState:
    """Return the state for a guest; boot one and save it first if there is none.

    Args:
        qemu: QEMU's path.
        kernel: The guest's kernel.
        initramfs: The archives of its initramfs.
        options: The guest's options; `memory` and `cpus` count.
        say: Called with a line of text before the state is saved.

    Raises:
        GuestError: The state cannot be saved.
    """
    base = cache.root() / "saved"
    state = SavedState(base / _key(qemu, kernel, initramfs, options))
    if cache.check(state.directory) is None:
        try:
            with cache.locked(base, say):
                if cache.check(state.directory) is None:  # another process may just have saved it
                    say("saving the state of a booted guest (once)")
                    with cache.staging(base) as stage:
                        _save(SavedState(stage), qemu, kernel, initramfs, options)
                        cache.finish(stage, state.directory, {"kHz": str(time_stamp_counter.frequency())})
                    with contextlib.suppress(OSError):  # another process removes a state that does not work
                        _limit_size(base, state.directory)
        except (OSError, subprocess.SubprocessError) as error:
            raise GuestStartError(f"a guest's state cannot be saved: {error}") from error
    with contextlib.suppress(OSError):
        os.utime(state.directory)  # `_limit_size` removes what was not used for the longest time
    return state


def _key(qemu: str, kernel: Kernel, initramfs: Sequence[bytes], options: machine.Options) -> str:
    """Return a name for all that a saved state depends on, also how it is saved."""
    numbers = dict.fromkeys(("console", "monitor", *machine.PORTS), 0)
    lines = [*machine.base(qemu, "tcg", options, numbers), options.architecture.parameters["tcg"]]
    files = [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in (Path(qemu).resolve(), kernel.image)]
    digest = hashlib.sha256(repr([lines, files]).encode() + Path(__file__).read_bytes())
    for part in initramfs:
        digest.update(part)
    return digest.hexdigest()[:24]


def _save(state: SavedState, qemu: str, kernel: Kernel, initramfs: Sequence[bytes], options: machine.Options) -> None:
    """Boot a guest without devices and save its state into an empty directory.

    Raises:
        GuestError: QEMU or the guest failed.
        OSError: There is no room.
    """
    (state.directory / "pluggable").write_text("\n".join(_pluggable(qemu)))
    for name in ("memory", "state"):
        (state.directory / name).touch(mode=0o600)
    with memory_file(*initramfs) as archive, socket_pairs("console", "monitor", *machine.PORTS) as (ours, theirs):
        inherited = {name: end.fileno() for name, end in theirs.items()}
        memory = state.backend(machine.memory_size(options), shared=str(state.memory))
        line = machine.base(qemu, "tcg", options, inherited, memory)
        line += machine.boot(kernel, f"/proc/self/fd/{archive}", "tcg", options)
        with Process(line, [archive, *inherited.values()]) as process:
            for end in theirs.values():
                end.close()
            monitor = Monitor(ours["monitor"])
            _wait_until_ready(process, ours)
            monitor.send("stop")
            monitor.send("migrate-set-capabilities", capabilities=_CAPABILITIES)
            with (state.directory / "state").open("wb") as file:
                monitor.send("getfd", descriptor=file.fileno(), fdname="state")
                monitor.send("migrate", uri="fd:state")
                monitor.wait_for(None, SAVE_TIME_LIMIT, "MIGRATION", status="completed")
            monitor.send("quit")
            process.wait()


def _wait_until_ready(process: Process, sockets: dict[str, socket.socket]) -> None:
    """Wait until the guest asks for its configuration.

    Raises:
        GuestStartError: It does not.
    """
    console, control = Lines(), Lines()
    deadline = time.monotonic() + SAVE_TIME_LIMIT
    inputs = ((sockets["console"], console), (sockets["control"], control), (process.messages, console))
    sources = {source.fileno(): (source, lines) for source, lines in inputs}
    poller = select.poll()
    for fd in sources:
        poller.register(fd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        for fd, _ in poller.poll(left * 1000):
            source, lines = sources[fd]
            data = source.recv(65536)
            lines.feed(data)
            if not data:
                raise GuestStartError(_last_words(process, console))
        if "ready" in control:
            return
    raise GuestStartError("; ".join([f"the guest was not ready within {SAVE_TIME_LIMIT:.0f} s", *console.last(3)]))


def _last_words(process: Process, console: Lines) -> str:
    """Return how QEMU ended, and what it and the kernel said last."""
    status = process.wait()
    while data := process.messages.recv(65536):
        console.feed(data)
    end = f"QEMU ended with status {status}"
    if status < 0:
        end = f"QEMU was ended by {signal.Signals(-status).name}"
    if status == -signal.SIGBUS:
        end += ", as when there is no room for the guest's memory"
    return "; ".join([end, *console.last(3)])


def _pluggable(qemu: str) -> list[str]:
    """Ask QEMU for the devices that a guest can find when it looks for devices after it has booted."""
    done = subprocess.run([qemu, "-device", "help"], capture_output=True, text=True, check=True, timeout=60)
    names = []
    heading = ""
    for line in done.stdout.splitlines():
        heading = line if line.endswith("devices:") else heading
        found = re.match(r'name "([^"]+)", bus ([^,\s]+)(?:.*alias "([^"]+)")?', line)
        if found is None or heading.startswith("Controller/Bridge"):
            continue
        if _NEVER.search(found[1]) or found[1] in _NOT_MIGRATABLE:
            continue
        if found[2] == "PCI" or found[2] in _CHILD_BUSES:
            names += [name for name in (found[1], found[3]) if name]
    return names


def _limit_size(base: Path, newest: Path) -> None:
    """Remove the states that were not used for the longest time, until the others take at most `SIZE_LIMIT` bytes."""
    room = SIZE_LIMIT
    states = [path for path in base.iterdir() if path != newest and (path / cache.MANIFEST).exists()]
    for state in [newest, *sorted(states, key=lambda path: path.stat().st_mtime, reverse=True)]:
        room -= sum(file.stat().st_blocks * 512 for file in state.iterdir())
        if room < 0 and state != newest:
            shutil.rmtree(state, ignore_errors=True)
