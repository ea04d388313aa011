# SPDX-License-Identifier: MIT
"""The command ``pyuio``."""

from __future__ import annotations

import os
import sys

from pyuio.cli import completion
from pyuio.errors import PyuioError


def _run() -> None:
    words = sys.argv[1:]
    if words[:1] == ["list"] and {*words[1:]} <= {"--all", "--json"} and completion.VARIABLE not in os.environ:
        # This goes without typer, whose import takes longer than all the rest of the command that people run most.
        from pyuio.cli.listing import list_devices

        list_devices(everything="--all" in words, as_json="--json" in words)
        return
    from pyuio.cli.app import app

    if os.environ.get(completion.VARIABLE) == completion.BASH:
        completion.run(app)
    else:
        app()


def main() -> None:
    """Run the command line; an error that pyuio raises on purpose becomes one line and an exit status."""
    try:
        try:
            _run()
        finally:
            sys.stdout.flush()  # here a reader that went away raises BrokenPipeError, which is caught below
    except PyuioError as error:
        # strerror leaves out the number that Python prints first; the text has the kernel's answer.
        text = error.strerror if isinstance(error, OSError) and error.strerror else error
        from pyuio.cli.output import say

        say(text)
        sys.exit(getattr(error, "status", 1))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # End quietly, as typer and rich do. /dev/null keeps the interpreter's last flush from failing again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
