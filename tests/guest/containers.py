# SPDX-License-Identifier: MIT
"""Containers as Docker makes them: namespaces, capabilities, device rules of the cgroup, seccomp, a read-only /sys.

crun, the OCI runtime of podman, runs them. It and the usual seccomp profile come out of Debian's packages; nothing is
installed. ``python -m tests.guest.containers DIRECTORY`` fetches them, on the host, before the guest.

Sources: the OCI Runtime Specification 1.0 (config.json); Docker's defaults (moby: oci/defaults.go, caps/defaults.go).
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyuio.kernel import vfio
from pyuio.kernel.drivers import VFIO_PCI
from pyuio.pci.discovery import find
from pyuio.vm import packages
from pyuio.vm.architecture import AMD64, Architecture

# What the doctor says of the device, and how far a driver comes.
PROGRAM = """
import json, sys
import pyuio
from pyuio.doctor import CHECKS
from pyuio.pci.discovery import find
from pyuio_drivers.edu import Edu
address = sys.argv[1]
found = {}
for check in CHECKS:
    if check.name in ("permissions", "pagemap", "memlock"):
        finding = check.run(find(address))
        found[check.name] = [finding.state, finding.found, finding.remedy]
try:
    with Edu(pyuio.open(address)) as card:
        found["interrupt"] = card.factorial_by_interrupt(5, timeout=10)
        card.to_device(b"there", timeout=10)
        found["memory"] = bytes(card.from_device(5, timeout=10)).decode()
except pyuio.PyuioError as error:
    found["error"] = f"{type(error).__name__}: {error}"
with pyuio.Hotplug() as hotplug:
    found["events"] = "yes"
print(json.dumps(found))
"""

_CGROUPS = Path("/sys/fs/cgroup")
_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
    *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
)
_MOUNTS = (
    ("/proc", "proc", "nosuid,noexec,nodev"),
    ("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
    ("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=65536k"),
    ("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
    ("/sys", "sysfs", "nosuid,noexec,nodev,ro"),
    ("/run", "tmpfs", "mode=755"),
)
_MASKED = ("asound", "acpi", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi")
_READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
# Anyone may make a node of anything, and open these: null, zero, full, random, urandom, tty, console, ptmx, terminals.
_DEVICE_RULES = (
    {"allow": False, "access": "rwm"},
    *({"allow": True, "type": kind, "access": "m"} for kind in "cb"),
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, -1))
    ),
)


def kept(processor: str) -> Path:
    """Return where `tests.run` keeps it for guests with a processor, by its name as ``uname -m`` prints it."""
    return Path(__file__).resolve().parents[2] / f"build/containers-{processor}"


def fetch(directory: Path, architecture: Architecture = AMD64) -> Path:
    """Return the path of crun; fetch it if it is not there."""
    wanted = ("crun", "libyajl2", "libseccomp2", "golang-github-containers-common")
    return packages.fetch(wanted, directory, "usr/bin/crun", architecture)


def _seccomp(capabilities: Sequence[str], allowed: Sequence[str]) -> dict[str, Any]:
    """Return podman's profile, for a container with these capabilities, with more calls allowed, in the OCI's form."""
    profile = json.loads((kept(os.uname().machine) / "usr/share/containers/seccomp.json").read_text())
    having = {f"CAP_{name}" for name in capabilities}
    calls: list[dict[str, Any]] = [{"names": list(allowed), "action": "SCMP_ACT_ALLOW"}] if allowed else []
    for rule in profile["syscalls"]:
        only, never = rule.get("includes", {}), rule.get("excludes", {})
        here = set(only.get("caps", ())) <= having and not set(never.get("caps", ())) & having
        if here and "amd64" in only.get("arches", ["amd64"]) and "amd64" not in never.get("arches", ()):
            names = [name for name in rule["names"] if name not in allowed]
            call = {"names": names, "action": rule["action"], "args": rule.get("args") or []}
            calls.append(call | ({"errnoRet": rule["errnoRet"]} if "errnoRet" in rule else {}))
    filtered = {"defaultAction": profile["defaultAction"], "architectures": ["SCMP_ARCH_X86_64"], "syscalls": calls}
    return filtered | {"defaultErrnoRet": profile["defaultErrnoRet"]}


def files(address: str) -> dict[str, list[str]]:
    """Return what docs/containers.md gives a container for a card, which is bound: devices, and volumes."""
    found = find(address)
    if found.driver == VFIO_PCI:
        return {"devices": [str(vfio.CONTAINER), str(vfio.group_path(vfio.group_of(found.directory) or 0))]}
    return {"devices": [f"/dev/{found.uio}"], "volumes": [str(found.directory.resolve())]}


def _device(path: str) -> dict[str, Any]:
    """Return what ``--device PATH`` puts into the configuration."""
    found = Path(path).stat()
    assert stat.S_ISCHR(found.st_mode)
    return {"path": path, "type": "c", "major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}


def configuration(
    command: Sequence[str],
    root: Path,
    *,
    devices: Sequence[str] = (),
    volumes: Sequence[str] = (),
    capabilities: Sequence[str] = _CAPABILITIES,
    added: Sequence[str] = (),
    limits: dict[str, int] | None = None,
    allowed: Sequence[str] = ("vmsplice",),
) -> dict[str, Any]:
    """Return the ``config.json`` of a container.

    Args:
        command: what runs in it, as root.
        root: its root directory.
        devices: what ``docker run --device`` names.
        volumes: paths that ``--mount type=bind,source=PATH,target=PATH`` names.
        capabilities: what it has; () for ``--cap-drop ALL``.
        added: what ``--cap-add`` names.
        limits: what ``--ulimit`` sets, by name.
        allowed: system calls that podman's profile forbids: () for podman's, ``vmsplice`` for Docker's.
    """
    has = [f"CAP_{name}" for name in (*capabilities, *added)]
    nodes = [_device(path) for path in devices]
    mounts = [
        *({"destination": at, "type": kind, "source": kind, "options": how.split(",")} for at, kind, how in _MOUNTS),
        *({"destination": one, "type": "bind", "source": one, "options": ["rbind", "rw"]} for one in volumes),
    ]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(command),
            "env": [f"{name}={value}" for name, value in os.environ.items()],
            "cwd": str(Path.cwd()),
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), has),
            "rlimits": [
                {"type": f"RLIMIT_{name}", "soft": most, "hard": most} for name, most in (limits or {}).items()
            ],
        },
        "root": {"path": str(root), "readonly": True},
        "hostname": "container",
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": kind} for kind in ("mount", "network", "uts", "pid", "ipc", "cgroup")],
            "maskedPaths": [*(f"/proc/{name}" for name in _MASKED), "/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in _READ_ONLY],
            "devices": [node | {"fileMode": 0o600, "uid": 0, "gid": 0} for node in nodes],
            "resources": {"devices": [*_DEVICE_RULES, *(node | {"allow": True, "access": "rwm"} for node in nodes)]},
            "seccomp": _seccomp([*capabilities, *added], allowed),
        },
    }


@contextmanager
def root_directory() -> Iterator[Path]:
    """Make a root directory for containers: that of the guest, without what is mounted below it."""
    if not (_CGROUPS / "cgroup.controllers").exists():
        subprocess.run(["mount", "-t", "cgroup2", "none", str(_CGROUPS)], check=True)
    with tempfile.TemporaryDirectory() as name:
        # A guest with another processor has its programs, and this environment, in mounts of their own.
        several = Path(sys.prefix).stat().st_dev != Path("/").stat().st_dev
        subprocess.run(["mount", "--rbind" if several else "--bind", "/", name], check=True)
        subprocess.run(["mount", "--make-rprivate", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--recursive", name], check=True)


def run(root: Path, *command: str, limit: float, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a container to its end; the options are those of `configuration`."""
    directory = kept(os.uname().machine)
    (library,) = {path.parent for path in directory.glob("usr/lib/*/libyajl.so.2")}
    with tempfile.TemporaryDirectory() as bundle:
        Path(bundle, "config.json").write_text(json.dumps(configuration(command, root, **options)))
        return subprocess.run(
            [directory / "usr/bin/crun", "--cgroup-manager=cgroupfs", "run", f"--bundle={bundle}", f"c{os.getpid()}"],
            env={**os.environ, "LD_LIBRARY_PATH": str(library)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1])))
