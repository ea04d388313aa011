# SPDX-License-Identifier: MIT
"""The notebook in examples/, in a kernel of Jupyter's. `make test-long` installs what it needs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples/bring_up.ipynb"


def outputs(notebook: Any) -> list[Any]:
    """Return what each cell shows, without addresses in this process."""
    return [
        {kind: re.sub(r"at 0x[0-9a-f]+", "at ...", text) for kind, text in output.get("data", {}).items()} or output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    ]


@pytest.mark.long
def test_the_notebook_shows_what_it_has_shown() -> None:
    import nbformat
    from nbclient import NotebookClient

    read: Any = nbformat.read  # it has no types
    notebook = read(NOTEBOOK, as_version=4)
    shown = outputs(notebook)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    assert outputs(notebook) == shown, f"renew it: jupyter execute --inplace {NOTEBOOK}"
    assert len(shown) == sum(cell.cell_type == "code" for cell in notebook.cells)
