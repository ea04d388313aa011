# SPDX-License-Identifier: MIT
"""The directory in the user's cache where kernels are kept, and what guards it against half-finished work."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pyuio.vm.errors import GuestStartError

MANIFEST = "manifest.json"


def root() -> Path:
    """Returns ``$XDG_CACHE_HOME/pyuio`` or ``~/.cache/pyuio``, made if it is not there.

    Raises:
        GuestStartError: It cannot be made.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        path = (Path(base) if base.startswith("/") else Path.home() / ".cache") / "pyuio"
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise GuestStartError(f"no cache directory for kernels ({error}); set XDG_CACHE_HOME to one") from error
    return path


@contextlib.contextmanager
def locked(directory: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Keeps other processes of this user from preparing something in `directory` at the same time."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another pyuio that prepares a kernel")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def staging(directory: Path) -> Iterator[Path]:
    """Gives an empty directory beside the finished ones; whatever is left in it afterwards is removed.

    Call it with the lock held: what an earlier, killed process left behind is removed first.
    """
    for old in directory.glob(".stage-*"):
        shutil.rmtree(old, ignore_errors=True)
    path = Path(tempfile.mkdtemp(prefix=".stage-", dir=directory))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _files(directory: Path) -> Iterator[Path]:
    """Every regular file below `directory`; links are not followed."""
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            if name != MANIFEST and not path.is_symlink():
                yield path


def finish(stage: Path, final: Path, facts: dict[str, str]) -> None:
    """Writes the manifest of a complete stage, with `facts`, and moves the whole into its place in one step."""
    files = {str(path.relative_to(stage)): [path.stat().st_size, _digest(path)] for path in _files(stage)}
    (stage / MANIFEST).write_text(json.dumps({"facts": facts, "files": files}))
    if final.exists():
        shutil.rmtree(final)
    stage.rename(final)


def check(directory: Path, *, thorough: bool = False) -> dict[str, str] | None:
    """Checks a finished directory against its manifest: the size of every file, with `thorough` also the content.

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
