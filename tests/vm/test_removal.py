# SPDX-License-Identifier: MIT
"""Cards that go while they are in use, in a guest: by QEMU's device_del, by sysfs remove, and by unbinding.

The guest's side is removal_guest.py, which says by its standard output what QEMU is to do; this side tells QEMU, by its
machine protocol (https://www.qemu.org/docs/master/interop/qmp-spec.html).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import EventListener, ExecuteError, QMPClient

from .conftest import Vm

GUEST = Path(__file__).with_name("removal_guest.py")
NATIVE = "-global ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"
DEVICES = [
    *(f"pcie-root-port,id=slot{n},chassis={n + 1},slot={n + 1},addr={0x10 + n:x}" for n in range(3)),
    *(f"edu,bus=slot{n},id=card{n}" for n in range(3)),
    *(f"edu,id=root{n},addr={0x18 + n:x}" for n in range(3)),
]


async def answer(qmp: QMPClient, deleted: EventListener, request: dict[str, Any]) -> dict[str, Any]:
    """Do what the guest asks for."""
    if "deleted" in request:
        async for event in deleted:
            if event["data"].get("device") == request["deleted"]:
                break
        return {"return": {}}
    try:
        return {"return": await qmp.execute(request["execute"], request["arguments"])}
    except ExecuteError as error:
        return {"error": str(error)}


async def converse(command: list[str], path: Path) -> dict[str, Any]:
    """Run the guest, and do what it asks for until it says what it found."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.ensure_future(process.stderr.read())
    qmp = QMPClient("removal")
    deleted = EventListener(names="DEVICE_DELETED")
    qmp.register_listener(deleted)
    found: dict[str, Any] = {}
    try:
        while not found and (line := await process.stdout.readline()):
            request = json.loads(line)
            if qmp.runstate.name == "IDLE":
                await qmp.connect(str(path))
            if "found" in request:
                found = request["found"]
                break
            process.stdin.write(json.dumps(await answer(qmp, deleted, request)).encode() + b"\n")
        await qmp.disconnect()
        await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0, (await errors).decode()
    return found


def run_guest(directory: Path, *parts: str, options: tuple[str, ...] = (), limit: float = 250) -> dict[str, Any]:
    """Run parts of removal_guest.py, and return what they found."""
    vm = Vm()
    path = directory / "qmp"
    words = [f"--qemu=-qmp unix:{path},server=on,wait=off", *(f"--qemu={option}" for option in options)]
    words += [f"--device={device}" for device in DEVICES]
    command = [*vm.command(*words), "--", sys.executable, str(GUEST), *parts]
    found = asyncio.run(asyncio.wait_for(converse(command, path), limit))
    if report := os.environ.get("REMOVAL_REPORT"):
        Path(report).write_text(json.dumps(found, indent=2))
    assert "failed" not in found, found["failed"]
    assert not vm.left()
    return found
