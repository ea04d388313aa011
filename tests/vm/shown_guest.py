# SPDX-License-Identifier: MIT
"""Run in a guest by test_shown.py: runs the commands in a JSON file, and prints as JSON what each printed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

LIMIT = 60  # seconds for one

results = []
for directory, command in json.loads(Path(sys.argv[1]).read_text()):
    program = shutil.which(command[0], path=str(Path(sys.executable).parent)) or command[0]
    try:
        done = subprocess.run(
            [program, *command[1:]],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT,
            check=False,
        )
        results.append((done.returncode, done.stdout.decode(errors="replace")))
    except subprocess.TimeoutExpired as expired:
        results.append((124, (expired.stdout or b"").decode(errors="replace")))
print(json.dumps(results))
