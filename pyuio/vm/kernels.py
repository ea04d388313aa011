# SPDX-License-Identifier: MIT
"""Kernels for the guest: one fetched from Debian, the running one, or any other.

pyuio prepares each kernel once, in a directory of the user's cache, and reuses it until the directory changes:

    ROOT/kernels/NAME/boot/vmlinuz-VERSION   the kernel, uncompressed if possible: that saves 3 s of every start
    ROOT/kernels/NAME/lib/modules/VERSION    its modules, or a link to them
    ROOT/kernels/NAME/initramfs.cpio         what virtme-ng assembled
    ROOT/kernels/NAME/manifest.json          every file's size and SHA-256, written last
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyuio.vm import apt, cache, initramfs
from pyuio.vm.architecture import AMD64, Architecture
from pyuio.vm.errors import KernelError
from pyuio.vm.image import is_version, kernel_architecture, kernel_version, unpack

NEEDED = ("9p", "9pnet_virtio", "virtio_pci", "virtio_console", "overlay")
DEBIAN = tuple(AMD64.kernels)  # what every architecture has
Say = Callable[[str], None]


@dataclass(frozen=True)
class Kernel:
    """A kernel that is ready to boot.

    Attributes:
        version: As uname -r prints it in the guest.
        image: The file for QEMU's -kernel.
        modules: The directory that the guest gets as /lib/modules/VERSION.
        archive: The initramfs that virtme-ng assembled.
    """

    version: str
    image: Path
    modules: Path
    archive: Path


def prepare(name: str, say: Say, *, refresh: bool = False, architecture: Architecture = AMD64) -> Kernel:
    """Return a kernel; fetch and prepare it first if necessary.

    Args:
        name: ``debian``, ``debian-rt``, ``host``, or the path of a bzImage or vmlinux; for arm64, of an Image.
        say: Called with a line of text before each step that takes long.
        refresh: Look for a newer Debian kernel, and check the content of every file, not only its size.
        architecture: The processor that it is for.

    Raises:
        KernelError: There is no such kernel, or it cannot be fetched, prepared or used.
    """
    if platform.machine() != "x86_64":
        raise KernelError(f"pyuio vm runs on x86_64 only, and this machine is {platform.machine()}")
    try:
        return _prepare(name, say, refresh, architecture)
    except OSError as error:
        raise KernelError(f"cannot prepare kernel {name}: {error}") from error


def _prepare(name: str, say: Say, refresh: bool, architecture: Architecture) -> Kernel:
    """Return the kernel of that name; arguments as for `prepare`."""
    if name in DEBIAN:
        return _debian(name, say, refresh, architecture)
    if name == "host":
        if architecture.foreign:
            raise KernelError(
                f"the running kernel is for {platform.machine()}, and the guest's processor is {architecture.name}: "
                f"give {', '.join(DEBIAN)}, or the path of a kernel"
            )
        return _host(say, refresh)
    path = Path(name).expanduser()
    if not path.is_file():
        raise KernelError(f"no kernel {name!r}: give {', '.join(DEBIAN)}, host, or the path of a bzImage or vmlinux")
    if (found := kernel_architecture(path)) not in ("", architecture.name):
        raise KernelError(
            f"{path} is a kernel for {found}, and the guest's processor is {architecture.name}: --arch {found}"
        )
    version = kernel_version(path)
    places = [path.resolve().parent.parent / "lib/modules", Path("/lib/modules")]
    for modules in places:
        if (modules / version).is_dir():
            return _local(path, version, modules / version, say, refresh)
    raise KernelError(f"no modules for {name} in {' or '.join(f'{place}/{version}' for place in places)}")


def _debian(name: str, say: Say, refresh: bool, architecture: Architecture) -> Kernel:
    """Return the Debian kernel used last; with `refresh`, or if there is none, the archive's newest."""
    directory = cache.root() / "kernels"
    pointer = directory / name  # a link to the directory of the version in use
    if architecture.foreign:
        pointer = directory / f"{name}-{architecture.name}"
    if not refresh and (kernel := _cached(pointer)):
        return kernel
    with cache.locked(directory, say):
        if not refresh and (kernel := _cached(pointer)):  # another process has just prepared it
            return kernel
        archive = apt.archive(architecture)
        if refresh:
            archive.update()
        meta = architecture.kernels[name]
        try:
            final = _fetch(archive, meta, directory, say)
        except apt.DownloadError:
            # Usually the system's lists name a package that the archive has replaced since.
            archive.update()
            final = _fetch(archive, meta, directory, say)
        link = directory / f".{pointer.name}.new"
        link.unlink(missing_ok=True)
        link.symlink_to(final.name)
        link.replace(pointer)
    kernel = _cached(pointer)
    if kernel is None:
        raise KernelError(f"{final} changed while it was being prepared; try again")
    return kernel


def _fetch(archive: apt.Archive, meta: str, directory: Path, say: Say) -> Path:
    """Return the directory of the newest kernel of a package; fetch it unless it is there and complete."""
    package = archive.newest(meta)
    final = directory / package.file_name
    if _cached(final, thorough=True) is None:
        say(f"fetching {package.name} {package.version} ({package.size / 1e6:.0f} MB, once)")
        with cache.staging(directory) as stage:
            deb = archive.download(package, stage)
            say("unpacking it")
            version = _unpack_package(deb, package, stage)
            cache.finish(stage, final, {"version": version})
    return final


def _unpack_package(deb: Path, package: apt.Package, stage: Path) -> str:
    """Turn a kernel image's package into a stage, remove the package, and return the kernel's version."""
    tree = stage / "tree"
    apt.extract(deb, tree)
    deb.unlink()
    version = package.name.removeprefix("linux-image-")
    modules = next((tree / top for top in ("lib/modules", "usr/lib/modules") if (tree / top / version).is_dir()), None)
    if modules is None:
        raise KernelError(f"{package.name} {package.version} has no modules in it")
    (stage / "lib").mkdir()
    modules.rename(stage / "lib/modules")
    apt.run(["depmod", "-b", str(stage), version], 300)
    _assemble(stage, tree / f"boot/vmlinuz-{version}", version)
    shutil.rmtree(tree)
    return version


def _host(say: Say, refresh: bool) -> Kernel:
    """Return the running kernel."""
    version = platform.release()
    modules = Path("/lib/modules") / version
    image = next((p for p in (Path(f"/boot/vmlinuz-{version}"), modules / "vmlinuz") if p.exists()), None)
    if image is None or not modules.is_dir():
        missing = f"/boot/vmlinuz-{version}" if image is None else str(modules)
        advice = "on Debian use --kernel debian, elsewhere give the path of a kernel"
        raise KernelError(f"the running kernel cannot be used: there is no {missing}; {advice}")
    return _local(image, version, modules, say, refresh)


def _local(image: Path, version: str, modules: Path, say: Say, refresh: bool) -> Kernel:
    """Return a kernel that lies somewhere in the file system; prepare it anew whenever it has changed."""
    if not os.access(image, os.R_OK):
        raise KernelError(f"{image} cannot be read by this user: sudo chmod a+r {image}")
    state = [str(image.resolve()), str(modules.resolve())]
    state += [str(path.stat().st_mtime_ns) for path in (image, modules, modules / "modules.dep") if path.exists()]
    directory = cache.root() / "kernels"
    final = directory / f"{version}-{hashlib.sha256(repr(state).encode()).hexdigest()[:12]}"
    if kernel := _cached(final, thorough=refresh):
        return kernel
    with cache.locked(directory, say), cache.staging(directory) as stage:
        if kernel := _cached(final, thorough=refresh):  # another process has just prepared it
            return kernel
        say(f"preparing {image} (once)")
        (stage / "lib/modules").mkdir(parents=True)
        (stage / "lib/modules" / version).symlink_to(modules.resolve())
        _assemble(stage, image, version)
        cache.finish(stage, final, {"version": version})
    kernel = _cached(final)
    if kernel is None:
        raise KernelError(f"{final} changed while it was being prepared; try again")
    return kernel


def _assemble(stage: Path, image: Path, version: str) -> None:
    """Add the kernel and its initramfs to a stage that has the modules."""
    (stage / "boot").mkdir()
    boot = stage / f"boot/vmlinuz-{version}"
    unpack(image, boot)
    modules = stage / "lib/modules" / version
    known = ""
    for name in ("modules.dep", "modules.builtin"):
        if (modules / name).exists():
            known += (modules / name).read_text()
    missing = [name for name in NEEDED if known and f"/{name}.ko" not in known]
    if missing:
        raise KernelError(
            f"kernel {version} cannot run the guest: it lacks {', '.join(missing)} (Debian's cloud flavour has no 9p)"
        )
    if ".ko.zst:" in known and shutil.which("zstd", path=initramfs.tool_environment()["PATH"]) is None:
        # virtme-ng would assemble empty modules without a word.
        raise KernelError(f"kernel {version} has modules compressed by zstd, which is not installed: install zstd")
    initramfs.assemble(boot, version, stage / "initramfs.cpio")


def _cached(directory: Path, *, thorough: bool = False) -> Kernel | None:
    """Return the kernel in a prepared directory; None if the directory is missing or was changed."""
    facts = cache.check(directory, thorough=thorough)
    if facts is None or not is_version(facts.get("version", "")):
        return None
    real = directory.resolve()
    version = facts["version"]
    modules = (real / "lib/modules" / version).resolve()
    if not modules.is_dir():
        return None
    return Kernel(version, real / f"boot/vmlinuz-{version}", modules, real / "initramfs.cpio")
