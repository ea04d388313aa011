# SPDX-License-Identifier: MIT
"""What a program in a guest asks of the host: commands for QEMU's machine protocol, as qmp.py answers them.

Each command is a line of JSON on standard output, and its answer one on standard input. The last line has the results.
"""

from __future__ import annotations

import faulthandler
import json
import sys
from typing import Any

LIMIT = 60  # seconds, for actions that take less than one


def ask_host(**command: Any) -> Any:
    """Have the host do something, and return its answer, or raise what it raised there."""
    faulthandler.dump_traceback_later(3 * LIMIT, exit=True)  # if the program hangs, it prints where
    print(json.dumps(command), file=sys.__stdout__, flush=True)
    answer = json.loads(sys.stdin.readline())
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["return"]


def report(results: dict[str, Any]) -> None:
    """Print what the program found out, which ends the conversation."""
    print(json.dumps({"found": results}), flush=True)
