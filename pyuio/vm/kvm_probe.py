# SPDX-License-Identifier: MIT
"""KVM or emulation: a probe with a time limit decides, and the answer is kept until this machine boots again.

It does not suffice that /dev/kvm can be opened: on some nested machines it can, and yet no guest ever runs its first
instruction. So the probe starts the very kernel and initramfs of the guest, which print one line and switch off.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyuio.vm import cache, machine
from pyuio.vm.initramfs import overlay_archive
from pyuio.vm.kernels import Kernel
from pyuio.vm.process import Lines, Process, memory_file, socket_pairs

PROBE_TIME_LIMIT = 8.0  # seconds; with a working KVM it takes about 1
_MARK = "pyuio: probe reached user space"


@dataclass(frozen=True)
class Acceleration:
    """How QEMU runs the guest's processors: `name` is ``kvm`` or ``tcg``, `reason` says why."""

    name: str
    reason: str

    @property
    def text(self) -> str:
        """One line for people."""
        return f"acceleration: {self.name.upper()} ({self.reason})"


def available() -> bool:
    """Return whether this user may open /dev/kvm; KVM may fail to work all the same."""
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def choose(qemu: str, kernel: Kernel, say: Callable[[str], None]) -> Acceleration:
    """Decide between KVM and emulation.

    Args:
        qemu: QEMU's path.
        kernel: A kernel to probe with.
        say: Called with one line after a probe.
    """
    if not Path("/dev/kvm").exists():
        return Acceleration("tcg", "there is no /dev/kvm")
    if not available():
        return Acceleration("tcg", "no permission for /dev/kvm; the group kvm has it")
    memory = cache.root() / "acceleration.json"
    # Another boot, another QEMU or other permissions may give another answer.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    key = [boot, qemu, Path(qemu).stat().st_mtime_ns, os.getuid()]
    try:
        known = json.loads(memory.read_bytes())
        if known["key"] == key:
            return Acceleration(str(known["name"]), str(known["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if runs(qemu, kernel, "kvm", PROBE_TIME_LIMIT):
        found = Acceleration("kvm", "it ran a guest")
    else:
        found = Acceleration("tcg", f"KVM did not run a guest within {PROBE_TIME_LIMIT:.0f} s")
    new = memory.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps({"key": key, "name": found.name, "reason": found.reason}))
    new.replace(memory)
    say(found.text)
    return found


def runs(qemu: str, kernel: Kernel, accelerator: str, limit: float) -> bool:
    """Start a guest that prints one line, and return whether the line arrived within `limit` seconds."""
    lines = Lines()
    archive = overlay_archive("probe")
    with memory_file(kernel.archive.read_bytes(), archive) as file, socket_pairs("console") as (ours, theirs):
        sockets = {"console": theirs["console"].fileno()}
        options = machine.Options(cpus=1, devices=())
        line = machine.base(qemu, accelerator, options, sockets)
        line += machine.boot(kernel, f"/proc/self/fd/{file}", accelerator, options)
        with Process(line, [file, *sockets.values()]) as process:
            theirs["console"].close()
            deadline = time.monotonic() + limit
            poller = select.poll()
            poller.register(ours["console"], select.POLLIN)
            while (left := deadline - time.monotonic()) > 0 and _MARK not in lines:
                if poller.poll(left * 1000):
                    data = ours["console"].recv(65536)
                    if not data:
                        break
                    lines.feed(data)
            process.end(gently=False)
    return _MARK in lines
