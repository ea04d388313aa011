# SPDX-License-Identifier: MIT
"""The directory in the user's cache that keeps kernels, guarded by locks and manifests against half-finished work."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pyuio.kernel.trusted_directory import stranger
from pyuio.vm.errors import GuestStartError

Say = Callable[[str], None]
MANIFEST = "manifest.json"
UNUSED = 30 * 86400  # seconds after which what nobody used is removed
_BLOCK = 1 << 18  # bytes
_ZEROS = bytes(_BLOCK)


def root() -> Path:
    """Return ``$XDG_CACHE_HOME/pyuio`` or ``~/.cache/pyuio``; create it if it does not exist.

    Raises:
        GuestStartError: It cannot be created, or another user could write to it: the guest runs what is in it with all
            that this user may do.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        path = (Path(base) if base.startswith("/") else Path.home() / ".cache") / "pyuio"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        replaceable = stranger(path)
    except (OSError, RuntimeError) as error:
        raise GuestStartError(f"no cache directory for kernels ({error}); set XDG_CACHE_HOME to a directory") from error
    if replaceable is not None:
        raise GuestStartError(
            f"the cache {path} is not used, because another user can write to {replaceable}; set XDG_CACHE_HOME to a "
            "directory of your own (with sudo: sudo -H)"
        )
    return path


@contextlib.contextmanager
def locked(directory: Path, say: Say) -> Iterator[None]:
    """Keep other processes of this user from preparing something in `directory` at the same time."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory / ".lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another pyuio that prepares a kernel or saves a guest's state")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """Yield an empty directory beside the finished ones, and remove it with all that is left in it afterwards.

    Call it with the lock held: it first removes what an earlier, killed process left behind.
    """
    for old in directory.glob(".stage-*"):
        shutil.rmtree(old, ignore_errors=True)
    path = Path(tempfile.mkdtemp(prefix=".stage-", dir=directory))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file's blocks that are not zero and of their places, so that holes cost no time."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            if block == _ZEROS[: len(block)]:
                _skip_hole(file.fileno())
            else:
                digest.update(b"%d:" % (file.tell() - len(block)))
                digest.update(block)
    return digest.hexdigest()


def _skip_hole(fd: int) -> None:
    """Move on in a sparse file to the block with the next data, or to its end."""
    here = os.lseek(fd, 0, os.SEEK_CUR)
    try:
        data = os.lseek(fd, here, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # there is no more data; any other error: this file system cannot tell
            os.lseek(fd, 0, os.SEEK_END)
    else:
        os.lseek(fd, max(here, data - data % _BLOCK), os.SEEK_SET)


def _files(directory: Path) -> Iterator[Path]:
    """Yield every regular file below `directory` except the manifest, without following links."""
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            if name != MANIFEST and not path.is_symlink():
                yield path


def key(*parts: object) -> str:
    """Return a name for all that something in the cache depends on."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def use(directory: Path) -> Path:
    """Return a finished directory, and note that it is in use."""
    with contextlib.suppress(OSError):
        os.utime(directory)
    return directory


def remove_unused(base: Path, kind: str) -> None:
    """Remove finished directories, whose names begin with `kind`, that nobody used for a month. Hold the lock."""
    for directory in base.glob(f"{kind}-*"):
        if time.time() - directory.stat().st_mtime > UNUSED:
            shutil.rmtree(directory, ignore_errors=True)


def finish(stage: Path, final: Path, facts: dict[str, str]) -> None:
    """Write the manifest of a complete stage, with `facts`, and move the stage to its final place in one step."""
    files = {str(path.relative_to(stage)): [path.stat().st_size, _digest(path)] for path in _files(stage)}
    (stage / MANIFEST).write_text(json.dumps({"facts": facts, "files": files}))
    if final.exists():
        shutil.rmtree(final)
    stage.rename(final)


def check(directory: Path, *, thorough: bool = False) -> dict[str, str] | None:
    """Check a finished directory against its manifest: the size of every file, with `thorough` also the content.

    Returns:
        The facts that `finish` was given; None if there is no such directory or anything differs.
    """
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
        for name, (size, digest) in manifest["files"].items():
            path = directory / name
            if path.stat().st_size != size or (thorough and _digest(path) != digest):
                return None
        return {str(key): str(value) for key, value in manifest["facts"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
