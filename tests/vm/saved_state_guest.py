# SPDX-License-Identifier: MIT
"""Prints what a program sees in a guest: what must be the same however the guest started, and what must differ."""

import json
import os
import time
from pathlib import Path

pci = {}
for place in sorted(Path("/sys/bus/pci/devices").iterdir()):
    facts = {name: (place / name).read_text().strip() for name in ("vendor", "device", "class", "enable")}
    facts["driver"] = (place / "driver").resolve().name if (place / "driver").exists() else ""
    if not facts["driver"]:
        facts["command"] = (place / "config").read_bytes()[4:6].hex()
    facts["BARs"] = ""
    for line in (place / "resource").read_text().splitlines()[:6]:
        start, end, flags = (int(word, 16) for word in line.split())
        facts["BARs"] += f"{end - start + 1 if end else 0:x} {flags:x}; "
    pci[place.name] = facts

same = {
    "pci": pci,
    "mounts": [line.split()[:4] for line in Path("/proc/mounts").read_text().splitlines()],
    "processors": os.cpu_count(),
    "MiB": int(Path("/proc/meminfo").read_text().split()[1]) >> 10,  # two boots of Linux 6.12 differ by a page
    "modules": sorted(line.split()[0] for line in Path("/proc/modules").read_text().splitlines()),
    "sysrq": Path("/proc/sys/kernel/sysrq").read_text(),
    "printk": Path("/proc/sys/kernel/printk").read_text(),
    "clock source": Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text(),
    "descriptors": sorted(map(str, Path("/proc/self/fd").iterdir())),
    "devices": sorted(map(str, Path("/dev").iterdir())),
    "mode of /dev": oct(Path("/dev").stat().st_mode),
}


def next_second() -> tuple[int, float]:
    """Return the RTC when it has just changed, and the monotonic time, right within 50 ms though the host be busy."""
    rtc = Path("/sys/class/rtc/rtc0/since_epoch")
    asked = time.monotonic()
    before = int(rtc.read_text())
    while True:
        time.sleep(0.005)
        asked_again = time.monotonic()
        now, told = int(rtc.read_text()), time.monotonic()
        if now != before and told - asked < 0.05:
            return now, told
        asked, before = asked_again, now


first_second, first_time = next_second()
time.sleep(0.8)
last_second, last_time = next_second()
lag = time.time() - last_second
print(
    json.dumps(
        {
            "same": same,
            "lag": lag,
            "rate": (last_time - first_time) / (last_second - first_second),
            "random": {
                "urandom": os.urandom(16).hex(),
                "uuid": Path("/proc/sys/kernel/random/uuid").read_text(),
                "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text(),
                "stack": Path("/proc/self/maps").read_text().split("[stack]")[0].splitlines()[-1],
            },
        }
    )
)
