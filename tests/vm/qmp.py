# SPDX-License-Identifier: MIT
"""Runs a guest whose program asks for commands of QEMU's machine protocol; ask_host.py is the other side.

The program in the guest prints commands on its standard output. This passes them to QEMU
(https://www.qemu.org/docs/master/interop/qmp-spec.html).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, ExecuteError, QMPClient


async def answer(qmp: QMPClient, deleted: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Do what the guest asks for in one command."""
    try:
        if "deleted" in request:
            while (await asyncio.wait_for(deleted.get(), 30))["data"].get("device") != request["deleted"]:
                pass  # the event of another card
            return {"return": {}}
        return {"return": await qmp.execute(request["execute"], request["arguments"])}
    except (ExecuteError, TimeoutError, asyncio.TimeoutError) as error:
        return {"error": repr(error)}


async def converse(command: list[str], path: Path) -> dict[str, Any]:
    """Run the guest, and do what it asks for until it prints its results."""
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
    qmp = QMPClient("guest")
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
        with contextlib.suppress(EOFError):  # QEMU ended first
            await qmp.disconnect()
        await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0, f"{process.returncode}: {(await errors).decode()}"
    return found
