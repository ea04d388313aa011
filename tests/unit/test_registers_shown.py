# SPDX-License-Identifier: MIT
"""docs/named-registers.md is true: its declarations work, and each line of its table makes the accesses it says."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.register_support import Plain

PAGE = (Path(__file__).resolve().parents[2] / "docs/named-registers.md").read_text()
DECLARED = PAGE.split("```python\n")[1].split("```")[0]
ROWS = [
    (code, seen)
    for codes, seen in re.findall(r"^\| (`[^|]+`) \| ((?:one|nothing|[0-9]+ )[^|]*) \|$", PAGE, re.MULTILINE)
    for code in re.findall("`([^`]+)`", codes)
]


def test_the_table_is_found() -> None:
    assert len(ROWS) >= 22


@pytest.mark.parametrize(("code", "seen"), ROWS)
def test_what_the_card_sees(code: str, seen: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain = Plain(bytes(256))
    names: dict[str, Any] = {"device": SimpleNamespace(bar=lambda number: plain)}
    exec(DECLARED, names)
    exec(code, names)
    kinds = [kind for kind, _, _ in plain.log]
    if run := re.match(r"([0-9]+) (read|write)s", seen):
        assert kinds == [run[2]] * int(run[1])
        return
    if seen.startswith("nothing"):
        assert kinds == []
    elif seen.startswith("one read, one write"):
        assert kinds == ["read", "write"]
    elif seen.startswith("one write"):
        assert kinds == ["write"]
    elif seen.startswith("one read of each"):
        assert kinds == ["read"] * len(kinds)
        assert (
            len(set(plain.log))
            == len(plain.log)
            == sum(one.readable and not one.read_effect for one in names["Card"].walk())
        )
    else:
        assert kinds == ["read"]
