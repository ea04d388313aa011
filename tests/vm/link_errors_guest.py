# SPDX-License-Identifier: MIT
"""test_link_errors.py runs this program in a guest: QEMU's card reports errors on its link while a driver has it."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pyuio
from pyuio.doctor import device as checks
from pyuio.pci.discovery import find
from tests.vm.ask_host import LIMIT, ask_host, report

IDS, CARD = "1af4:1044", "0000:01:00.0"  # a source of random numbers by virtio, behind a port
BAR, REGISTER = 4, 0x00  # device_feature_select, rw (Virtual I/O Device 1.1, section 4.1.4.3)


def inject(error: str) -> None:
    """Have the card report an error; QEMU's command has the names of the tool aer-inject."""
    command = f"pcie_aer_inject_error card {error}"
    said = ask_host(execute="human-monitor-command", arguments={"command-line": command})
    assert said.startswith("OK"), said


def uses(device: pyuio.Device) -> dict[str, Any]:
    """Return what a register reads as, or the error, and the doctor's word of the BARs."""
    try:
        value: Any = device.bar(BAR).read32(REGISTER)
    except pyuio.DeviceRemovedError:
        value = "DeviceRemovedError"
    bars = checks.look_at_bars(find(CARD))
    assert bars is not None
    return {"register": value, "bars": bars.state}


def main(driver: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    logged: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("pyuio").addHandler(handler)
    ended: list[str] = []
    with pyuio.Hotplug(IDS, errors=True) as hotplug, pyuio.open(CARD, bind=driver) as device:
        device.config.enable_error_reporting()
        found["reports"] = device.config.reports_errors
        device.bar(BAR).write32(REGISTER, 1)

        def wait() -> None:
            try:
                device.interrupt.read(LIMIT)
            except pyuio.PyuioError as error:
                ended.append(type(error).__name__)

        waiting = threading.Thread(target=wait)
        waiting.start()
        for name, error in (("nonfatal", "COMP_TIME"), ("fatal", "DLP")):
            inject(error)
            found[f"{name} event"] = str(hotplug.read(LIMIT))
            deadline = time.monotonic() + LIMIT
            while name == "fatal" and uses(device)["register"] == 1:
                assert time.monotonic() < deadline, "the register is as it was"
                time.sleep(0.01)
            found[name] = uses(device)
        if driver == "vfio-pci":
            waiting.join(LIMIT)
        found["waiting"] = list(ended)
    waiting.join(LIMIT)
    found["logged"] = logged
    if driver == "vfio-pci":
        time.sleep(1)  # what udev does for the function
    else:
        Path("/sys/bus/pci/devices", CARD, "remove").write_text("1")
        Path("/sys/bus/pci/rescan").write_text("1")
    with pyuio.Hotplug(IDS, errors=True) as hotplug, pyuio.open(CARD, bind=driver) as device:
        device.bar(BAR).write32(REGISTER, 1)
        found["again"] = uses(device)
    return found


if __name__ == "__main__":
    logging.raiseExceptions = False
    try:
        results = main(sys.argv[1])
    except BaseException:
        results = {"failed": traceback.format_exc()}
    report(results)
