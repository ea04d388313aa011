# SPDX-License-Identifier: MIT
"""Debian's programs for a guest with another processor: packages of this machine's release, unpacked into the cache."""

from __future__ import annotations

import compileall
import platform
import py_compile
import re
import shutil
import sys
from pathlib import Path

from pyuio.vm import apt, cache, library_cache
from pyuio.vm.architecture import Architecture
from pyuio.vm.errors import GuestStartError
from pyuio.vm.initramfs import tool_environment

# Debian's shell and what is used around drivers; Python, the headers that modules of C need, and the libraries that
# compiled packages take for granted (PEP 599).
PACKAGES = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "diffutils", "findutils", "gawk", "grep", "gzip"),
    *("hostname", "less", "libc-bin", "ncurses-base", "procps", "sed", "tar", "util-linux", "bsdutils", "mount"),
    *("busybox-static", "dmsetup", "e2fsprogs", "iproute2", "kmod", "udev"),
    *("python3", "libpython3-dev", "libc6-dev", "libstdc++6", "zlib1g"),
)


def prepare(architecture: Architecture, base: Path, say: cache.Say, refresh: bool, more: tuple[str, ...] = ()) -> Path:
    """Return the directory with Debian's files; fetch them if there are none, or with `refresh`.

    Args:
        architecture: The guest's processor.
        base: Where the directory is kept, with others.
        say: Called with a line of text before each step that takes long.
        refresh: Fetch them anew.
        more: Names of packages beside `PACKAGES`.

    Raises:
        GuestError: apt is not here or does not know Debian, or the packages cannot be fetched.
    """
    release = platform.freedesktop_os_release()
    name = f"{release.get('ID')} {release.get('VERSION_ID')}"
    final = base / f"debian-{cache.key(architecture.name, name, more, Path(__file__).read_bytes())}"
    if not refresh and cache.check(final) is not None:
        return cache.use(final) / "tree"
    with cache.locked(base, say):
        if refresh or cache.check(final) is None:  # another process may just have made it
            archive = apt.archive(architecture)
            if refresh:
                archive.update()
            try:
                _unpack(archive, architecture, base, final, say, more)
            except apt.DownloadError:
                archive.update()  # the archive has replaced a package since
                _unpack(archive, architecture, base, final, say, more)
    return cache.use(final) / "tree"


def _unpack(
    archive: apt.Archive, architecture: Architecture, base: Path, final: Path, say: cache.Say, more: tuple[str, ...]
) -> None:
    say(f"fetching Debian's programs for {architecture.name} ({'150' if more else '60'} MB, once)")
    with cache.staging(base) as stage:
        tree, debs = stage / "tree", stage / "debs"
        debs.mkdir()
        for directory in ("bin", "sbin", "lib"):
            (tree / "usr" / directory).mkdir(parents=True)
            (tree / directory).symlink_to(f"usr/{directory}")
        files = archive.download_all((*PACKAGES, *more), debs)
        say(f"unpacking {len(files)} packages")
        for deb in files:
            # Programs are also found where they were before Debian had only /usr: tar keeps the links made above.
            tar = 'dpkg-deb --fsys-tarfile "$0" | tar -x --keep-directory-symlink -C "$1"'
            apt.run(["sh", "-c", tar, str(deb), str(tree)], 300)
        shutil.rmtree(debs)
        # What the packages' scripts would do, which do not run here.
        for name in ("passwd", "group"):
            shutil.copyfile(tree / f"usr/share/base-passwd/{name}.master", tree / f"etc/{name}")
        (tree / "usr/bin/awk").symlink_to("gawk")
        (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")
        for directory in ("proc", "sys", "dev", "run", "tmp"):
            (tree / directory).mkdir(exist_ok=True)
        libraries = f"usr/lib/{architecture.triplet}"
        # The last two are for the links by which Debian chooses one of several libraries of linear algebra.
        places = (f"lib/{architecture.triplet}", libraries, f"{libraries}/blas", f"{libraries}/lapack")
        library_cache.write(tree, architecture.name, places)
        _name_hardware(tree)
        _compile(tree / "usr/lib", tree)
        cache.finish(stage, final, {})
        cache.remove_unused(base, "debian")


def _name_hardware(tree: Path) -> None:
    """Make udev's database of names of hardware; without systemd-hwdb here the guest has none."""
    if shutil.which("systemd-hwdb", path=tool_environment()["PATH"]) is not None:
        apt.run(["systemd-hwdb", f"--root={tree}", "--usr", "update"], 120)


def _compile(directory: Path, tree: Path) -> None:
    """Compile Python's library: the guest cannot keep what it compiles, and would do so at each start."""
    python = python_version(tree)
    if python == sys.version_info[:2]:
        for path in (directory / f"python{python[0]}.{python[1]}", directory / "python3"):
            compileall.compile_dir(
                path,
                quiet=2,
                workers=0,
                stripdir=str(tree),
                prependdir="/",
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )


def python_version(tree: Path) -> tuple[int, int]:
    """Return the version of the Python in a tree."""
    names = [re.fullmatch(r"python(3)\.(\d+)", path.name) for path in (tree / "usr/bin").iterdir()]
    found = [(int(name[1]), int(name[2])) for name in names if name]
    if len(found) != 1:
        raise GuestStartError(f"{tree} is damaged: it has {len(found)} Pythons; pyuio vm fetch --refresh makes it anew")
    return found[0]
