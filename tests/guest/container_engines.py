# SPDX-License-Identifier: MIT
"""podman and Docker in the guest, out of Debian's packages, which are not installed on the host.

No registry of images is in reach. So the image has nothing but directories, and ``/usr`` and this checkout come into
each container as volumes, which are read-only.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pyuio.vm import packages

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "build/container-engines"
IMAGE = "programs"
PATIENCE, PROGRAM_LIMIT = 120, 240  # seconds, for an engine and for a program in a container; many times what they take
USER, GROUP = 21500, 21501  # who has containers without root, and the group to which the card is given
_PODMAN = (
    *("podman", "conmon", "crun", "libyajl2", "golang-github-containers-image", "golang-github-containers-common"),
    *("libgpgme11", "libassuan0", "libsubid4", "uidmap", "libseccomp2", "libglib2.0-0", "catatonit"),
    *("jq", "libjq1", "libonig5"),
)
_DOCKER = ("docker.io", "containerd", "runc", "libseccomp2")
_RUN = Path("/run/engines")
_HOME = _RUN / "home"
_CONFIGURATION = {
    # There is no systemd in the guest, and a file system over another takes no third.
    "containers.conf": '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n',
    "storage.conf": f'[storage]\ndriver = "vfs"\nrunroot = "{_RUN}/podman"\ngraphroot = "{_RUN}/podman-images"\n',
}
_AS_USER = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "env", "--ignore-environment"),
    *(f"PATH={os.environ['PATH']}", f"HOME={_HOME}", f"XDG_RUNTIME_DIR={_HOME}"),
)
_DOCKERD = (
    *("dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs"),
    *(f"--data-root={_RUN}/docker-images", f"--exec-root={_RUN}/docker", f"--pidfile={_RUN}/dockerd.pid"),
)


def fetch(directory: Path) -> None:
    """Fetch what is missing into the directory, on the host, before the guest."""
    packages.fetch(_PODMAN, directory / "podman", "usr/bin/podman")
    packages.fetch(_DOCKER, directory / "docker", "usr/sbin/dockerd")


def _image() -> bytes:
    """Return an image as ``podman import`` and ``docker import`` take it: a root directory in a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("dev", "etc", "home", "proc", "run", "sys", "tmp", "usr", "var"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(directory)
        for name in ("bin", "sbin", "lib", "lib64"):
            tar.add(Path("/", name), name)  # links into /usr
        for name in ("passwd", "group", "ld.so.cache"):
            tar.add(Path("/etc", name), f"etc/{name}")
    return buffer.getvalue()


def _mount(stack: ExitStack, *words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)
    stack.callback(subprocess.run, ["umount", "--lazy", words[-1]], check=True)


@contextmanager
def installed() -> Iterator[None]:
    """Have the programs of the packages at their places in the guest."""
    (triplet,) = (path.parent.name for path in KEPT.glob("podman/usr/lib/*/libyajl.so.2"))
    with ExitStack() as stack:
        for place in ("bin", "sbin", f"lib/{triplet}"):
            here = Path("/usr", place)
            layers = [path for name in ("podman", "docker") if (path := KEPT / name / "usr" / place).is_dir()]
            written = [_RUN / "written" / place / name for name in ("upper", "work")]
            for path in written:
                path.mkdir(parents=True, exist_ok=True)
            where = f"lowerdir={':'.join(map(str, [*layers, here]))},upperdir={written[0]},workdir={written[1]}"
            _mount(stack, "-t", "overlay", "-o", where, "none", here)
        etc, profiles = Path("/etc/containers"), Path("/usr/share/containers")
        shutil.copytree(KEPT / "podman/etc/containers", etc, dirs_exist_ok=True)
        shutil.copytree(KEPT / "podman/usr/share/containers", profiles, dirs_exist_ok=True)
        for name, text in _CONFIGURATION.items():
            (etc / name).write_text(text)
        if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
            _mount(stack, "-t", "cgroup2", "none", Path("/sys/fs/cgroup"))
        yield


class Engine:
    """What runs containers.

    Args:
        words: The command, ``podman`` or ``docker``, and what stands before it.
    """

    def __init__(self, *words: str) -> None:
        self._words = words
        subprocess.run(
            [*words, "import", "-", IMAGE], input=_image(), check=True, capture_output=True, timeout=PATIENCE
        )

    def run(self, options: Sequence[str], *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a container, with options of ``run``, to its end."""
        shown = {"/usr", str(ROOT), sys.prefix, sys.base_prefix}
        volumes = [f"--mount=type=bind,source={path},target={path},readonly" for path in sorted(shown)]
        return subprocess.run(
            [*self._words, "run", "--rm", "--network=none", *volumes, *options, IMAGE, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROGRAM_LIMIT,
            check=False,
            cwd="/",
        )


def podman() -> Engine:
    """Return podman as root has it."""
    return Engine("podman")


def podman_without_root() -> Engine:
    """Return podman as a user has it, who is in the group `GROUP`, and may map user ids (newuidmap)."""
    for name, line in (
        ("passwd", f"user:x:{USER}:{USER}::{_HOME}:/bin/sh"),
        ("group", f"user:x:{USER}:\ncards:x:{GROUP}:user"),
        ("subuid", "user:200000:65536"),
        ("subgid", "user:200000:65536"),
    ):
        with Path("/etc", name).open("a") as file:
            file.write(f"{line}\n")
    _HOME.mkdir()
    os.chown(_HOME, USER, USER)
    for name in ("newuidmap", "newgidmap"):
        program = Path("/usr/bin", name)
        os.chown(program, 0, 0)  # whoever unpacked it on the host
        program.chmod(0o4755)
    for shown in (ROOT, Path(sys.prefix), Path(sys.base_prefix)):
        for directory in (shown, *shown.parents):
            directory.chmod(directory.stat().st_mode | 0o005)  # in the guest only
    return Engine(*_AS_USER, "podman")


@contextmanager
def docker() -> Iterator[Engine]:
    """Have Docker's daemon run, and yield Docker."""
    with (_RUN / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(_DOCKERD, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + PATIENCE
        while subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((_RUN / "dockerd.log").read_text())
            time.sleep(0.5)
        yield Engine("docker")
    finally:
        daemon.terminate()
        daemon.wait(PATIENCE)
