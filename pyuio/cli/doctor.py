# SPDX-License-Identifier: MIT
"""``pyuio doctor``: find what keeps this machine from running a driver or costs latency."""

from __future__ import annotations

import itertools
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pyuio.cli.arguments import FORMS, Json, complete_device
from pyuio.cli.output import console, print_json, say
from pyuio.doctor import Finding, examine, facts, something_blocks
from pyuio.errors import AmbiguousDeviceError, DeviceNotFoundError
from pyuio.pci.discovery import find

app = typer.Typer()

JSON_FORMAT = 1
EPILOG = (
    "Exit status: 0 when nothing blocks a driver, whatever the advice; 1 when something does; 2 for wrong usage or a "
    "DEVICE that does not exist."
)
STYLES = {"good": "dim", "advice": "yellow", "blocks": "bold red", "unknown": "magenta"}
TO_DO = (
    ("blocks", "What blocks a driver"),
    ("advice", "What costs latency"),
    ("unknown", "What could not be told"),
)


def as_json(findings: list[Finding], device: str | None) -> dict[str, Any]:
    """Return the findings in the form that ``docs/doctor.md`` describes; `device` is the examined device's name."""
    blocked = something_blocks(findings)
    return {
        "format": JSON_FORMAT,
        "kernel": facts.kernel_release(),
        "device": device,
        "blocked": blocked,
        "exit_status": int(blocked),
        "findings": [
            {
                "name": finding.name,
                "subject": finding.subject,
                "state": finding.state,
                "found": finding.found,
                "why": finding.why,
                "remedy": finding.remedy,
            }
            for finding in findings
        ],
    }


def overview(findings: list[Finding], title: str) -> Table:
    """Return a table of all findings, grouped by subject."""
    table = Table(title=title, title_justify="left")
    table.add_column("check", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("found", overflow="fold", min_width=12)
    for subject, group in itertools.groupby(findings, key=lambda finding: finding.subject):
        table.add_row(Text(subject, style="bold"), "", "")
        for finding in group:
            style = STYLES[finding.state]
            name = Text(f"  {finding.name}", style="dim" if finding.state == "good" else "")
            found = Text(finding.found, style="dim" if finding.state == "good" else "")
            table.add_row(name, Text(finding.state, style=style), found)
        table.add_section()
    return table


def show(findings: list[Finding], title: str, console: Console) -> None:
    """Print the table, and below it the reason and the remedy of each finding that is not good.

    Reasons and remedies are not wrapped, so that a command can be copied in one piece.
    """
    console.print(overview(findings, title))
    for state, heading in TO_DO:
        chosen = [finding for finding in findings if finding.state == state]
        if chosen:
            console.print(Text(f"\n{heading}", style=STYLES[state]))
        for finding in chosen:
            console.print(Text.assemble("\n", (finding.name, "bold"), f": {finding.why}"), soft_wrap=True)
            if finding.remedy:
                console.print(Text(f"  -> {finding.remedy}"), soft_wrap=True)
    blocking = sum(finding.state == "blocks" for finding in findings)
    verdict = f"{blocking} of {len(findings)} findings block a driver" if blocking else "Nothing blocks a driver"
    console.print(Text(f"\n{verdict}."))


@app.command(epilog=EPILOG, short_help="Show what blocks a driver or costs latency.")
def doctor(
    device: Annotated[
        str | None,
        typer.Argument(metavar="DEVICE", help=f"A device to examine as well. {FORMS}", autocompletion=complete_device),
    ] = None,
    json_wanted: Json = False,
) -> None:
    """Show what keeps this machine from running a driver or costs latency, with reasons and remedies.

    The command changes nothing. Root sees the most.
    """
    try:
        found = None if device is None else find(device)
        findings = examine(found)
    except (DeviceNotFoundError, AmbiguousDeviceError, ValueError) as error:
        say(error)
        raise typer.Exit(2) from error
    name = None if found is None else found.name
    if json_wanted:
        print_json(as_json(findings, name))
    else:
        show(findings, f"{name or 'this box'}, Linux {facts.kernel_release()}", console())
    raise typer.Exit(int(something_blocks(findings)))
