# SPDX-License-Identifier: MIT
"""Fuzzes one target: ``python -m tests.fuzz.run TARGET CORPUS [LIBFUZZER OPTION...]``. ``make fuzz`` does it for all.

This program needs atheris, which finds bytes that reach new branches of the parser. It ends with a status other than 0
if the parser raises an exception that it does not document, or if one input takes longer than ``-timeout``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

# atheris follows the branches of these packages, whose Python code parses input of the kernel and of people.
with atheris.instrument_imports(include=["pyuio", "pyuio_drivers"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz the target named on the command line until libFuzzer's limits, or until it fails."""
    target = TARGETS[sys.argv[1]]
    corpus = Path(sys.argv[2])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(
        [sys.argv[0], str(corpus), f"-max_len={target.longest}", *sys.argv[3:]],
        target.run,
        enable_python_coverage=True,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
