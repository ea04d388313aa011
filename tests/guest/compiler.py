# SPDX-License-Identifier: MIT
"""A C compiler for the guest, which copies what was compiled on the host: emulated, gcc takes 5 s for a small program.

It is a script called cc, in a directory where the tests in the guest look before the system's. It compiles what it does
not know. It knows a program by its source, as the options are always those of `pyuio.latency.patch_loop`.
"""

from __future__ import annotations

import hashlib
import shutil
from importlib import resources
from pathlib import Path

from pyuio.latency.patch_loop import PatchLoop

KEPT = Path(__file__).resolve().parents[2] / "build/compiler"
SCRIPT = """#!/bin/sh
# SPDX-License-Identifier: MIT
here=$(dirname "$0")
for word; do
    [ "$previous" != -o ] || output=$word
    previous=$word
done
kept=$here/$(sha256sum <"$word" | cut -c1-64)
[ ! -x "$kept" ] || exec cp "$kept" "$output"
PATH=${PATH#"$here:"} exec cc "$@"
"""


def build() -> None:
    """Compile the program of ``pyuio bench`` on this machine, and write the script, unless they are there already."""
    KEPT.mkdir(parents=True, exist_ok=True)
    source = (resources.files("pyuio_benchmarks") / "patch_loop.c").read_bytes()
    kept = KEPT / hashlib.sha256(source).hexdigest()
    if not kept.exists():
        with PatchLoop() as loop:
            shutil.copy2(loop.program, kept.with_suffix(".new"))
        kept.with_suffix(".new").rename(kept)
    script = KEPT / "cc"
    script.write_text(SCRIPT)
    script.chmod(0o755)
