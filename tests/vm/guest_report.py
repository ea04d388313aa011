# SPDX-License-Identifier: MIT
"""test_run.py runs this program in a guest: it prints the environment of COMMAND there, as JSON on standard output."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

stdin = sys.stdin.buffer.read()
print("this is standard error", file=sys.stderr)
Path("written").write_text("the guest was here")
subprocess.Popen(["sleep", "1000"])  # keeps standard output open, and must not delay the end

functions = sorted(Path("/sys/bus/pci/devices").iterdir())
ids = [(path / "vendor").read_text()[2:6] + ":" + (path / "device").read_text()[2:6] for path in functions]
modprobe = subprocess.run(["/sbin/modprobe", "uio_pci_generic"], capture_output=True, text=True)
udev = subprocess.run(["udevadm", "control", "--ping"], capture_output=True, text=True)

report = {
    "arguments": [os.fsencode(word).hex() for word in sys.argv[1:]],
    "environment": {os.fsencode(k).hex(): os.fsencode(v).hex() for k, v in os.environ.items()},
    "directory": str(Path.cwd()),
    "stdin": hashlib.sha256(stdin).hexdigest(),
    "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)],
    "terminals": [fd for fd in (0, 1, 2) if os.isatty(fd)],
    "release": os.uname().release,
    "python": sys.executable,
    "ids": ids,
    "modprobe": [modprobe.returncode, modprobe.stderr],
    "udev": [udev.returncode, udev.stderr],
    "uio": Path("/sys/bus/pci/drivers/uio_pci_generic").is_dir(),
    "parameters": Path("/proc/cmdline").read_text(),
    "clock": Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip(),
    "links": [Path("/dev", name).exists() for name in ("fd", "stdin", "stdout", "stderr", "pts/ptmx", "shm")],
    "loopback": Path("/sys/class/net/lo/operstate").read_text().strip(),
}
with Path("/dev/stdout").open("w") as stdout:
    stdout.write(json.dumps(report) + "\n")
Path(os.environ["OUT"], "carried").write_text("back")
block = bytes(range(256)) * 256
for _ in range(4):
    sys.stdout.buffer.write(block)
sys.stdout.buffer.flush()
sys.exit(7)
