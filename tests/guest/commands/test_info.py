# SPDX-License-Identifier: MIT
"""``pyuio info`` and ``pyuio list`` on every function of this machine, against lspci."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pyuio
from pyuio.cli.description import description
from pyuio.kernel.drivers import generic_drivers
from pyuio.pci.discovery import find
from tests.guest import pciutils
from tests.guest.commands.in_process import command_here
from tests.guest.support import (
    E1000E,
    EDU,
    PCI_SERIAL,
    PCI_TESTDEV,
    Cards,
    attribute,
    known_drivers,
)

PCIUTILS = pciutils.kept(os.uname().machine)
NOBODY = 65534

COMMAND_FLAGS = {
    "I/O": "IO_SPACE",
    "Mem": "MEMORY_SPACE",
    "BusMaster": "BUS_MASTER",
    "SpecCycle": "SPECIAL_CYCLES",
    "MemWINV": "MEMORY_WRITE_AND_INVALIDATE",
    "VGASnoop": "VGA_PALETTE_SNOOP",
    "ParErr": "PARITY_ERROR_RESPONSE",
    "SERR": "SERR_ENABLE",
    "FastB2B": "FAST_BACK_TO_BACK_ENABLE",
    "DisINTx": "INTERRUPT_DISABLE",
}
STATUS_FLAGS = {
    "Cap": "CAPABILITIES_LIST",
    "66MHz": "MHZ_66_CAPABLE",
    "FastB2B": "FAST_BACK_TO_BACK_CAPABLE",
    "ParErr": "MASTER_DATA_PARITY_ERROR",
    ">TAbort": "SIGNALED_TARGET_ABORT",
    "<TAbort": "RECEIVED_TARGET_ABORT",
    "<MAbort": "RECEIVED_MASTER_ABORT",
    ">SERR": "SIGNALED_SYSTEM_ERROR",
    "<PERR": "DETECTED_PARITY_ERROR",
    "INTx": "INTERRUPT_STATUS",
}


@functools.cache
def lspci() -> dict[str, pciutils.Function]:
    if not (PCIUTILS / "usr/bin/lspci").exists():
        pytest.skip(f"no lspci: python -m tests.guest.pciutils {PCIUTILS} fetches it")
    return pciutils.functions(PCIUTILS)


def run(*words: str) -> str:
    """Return what the command prints; it must succeed."""
    done = command_here(*words)
    assert done.returncode == 0, done
    return done.stdout


def info(device: str) -> dict[str, Any]:
    described = json.loads(run("info", device, "--json"))
    assert isinstance(described, dict)
    return described


@pytest.fixture(scope="module")
def described() -> dict[str, dict[str, Any]]:
    """What the command shows of every function, by address.

    It is made in this process, and what is the same for all functions, and takes longest, is looked up once.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyuio.installed_drivers.installed_drivers", known_drivers)
        patch.setattr("pyuio.cli.description.generic_drivers", functools.cache(generic_drivers))
        found = {device.address: description(device) for device in pyuio.devices()}
    return dict(json.loads(json.dumps(found)))


Functions = Iterator[tuple[dict[str, Any], pciutils.Function]]


@pytest.fixture
def functions(described: dict[str, dict[str, Any]]) -> Functions:
    """Every function as pyuio and as lspci show it. The last address printed is of the one that a test fails for."""

    def each() -> Functions:
        for address in sorted(described):
            print(address)
            yield described[address], lspci()[address]

    return each()


def test_lspci_sees_the_same_functions() -> None:
    assert sorted(lspci()) == [device.address for device in pyuio.devices()]


def test_list_has_every_function(described: dict[str, dict[str, Any]]) -> None:
    """This runs before any test here binds a driver, because binding may route an interrupt anew."""
    listed = json.loads(run("list", "--all", "--json"))
    assert listed["left_out"] == 0
    assert [one["address"] for one in listed["devices"]] == sorted(lspci())
    for one in listed["devices"]:
        shown = described[one["address"]]
        assert {key: shown[key] for key in one} == one
    (first, *_) = listed["devices"]
    assert info(first["address"]) == {"format": 1, **described[first["address"]]}


def test_identity(functions: Functions) -> None:
    for ours, theirs in functions:
        assert ours["ids"] == theirs.value(r"^.*\[(\w{4}:\w{4})\]")
        assert f"{ours['class_code'] >> 8:04x}" == theirs.value(r"^\S+ .*?\[(\w{4})\]: ")
        assert ours["class"] == theirs.value(r"^\S+ (.*?) \[\w{4}\]: ")
        interface = theirs.value(r"\(prog-if (\w\w)")
        assert ours["class_code"] & 0xFF == int(interface or "0", 16)
        assert ours["configuration"]["revision"] == int(theirs.value(r"\(rev (\w\w)\)") or "0", 16)
        subsystem = theirs.value(r"^\tSubsystem: .*\[(\w{4}:\w{4})\]$")
        if ours["configuration"]["header_type"] == 0:
            assert ours["configuration"]["subsystem_ids"] == subsystem
        assert ours["driver"] == theirs.value(r"^\tKernel driver in use: (.*)$")
        assert ours["iommu_group"] == theirs.value(r"^\tIOMMU group: (\d+)$")


def test_kernel_modules(functions: Functions) -> None:
    for ours, theirs in functions:
        modules = (theirs.value(r"^\tKernel modules: (.*)$") or "").split(", ")
        assert sorted(ours["could_drive"]["kernel"]) == sorted(filter(None, modules))


def test_names(functions: Functions) -> None:
    """Here lspci asks udev's database, too; it prints "Device" if there is no name."""
    for ours, theirs in functions:
        called = theirs.value(r"^\S+ .*?\[\w{4}\]: (.*?) \[\w{4}:\w{4}\]")
        # The database may add the subsystem's name.
        device = re.sub(r" \(QEMU Virtual Machine\)$", "", ours["device"] or "Device")
        assert (f"{ours['vendor']} {device}" if ours["vendor"] else device) == called


def test_command_and_status(functions: Functions) -> None:
    for ours, theirs in functions:
        for ours_named, register, names in (
            (ours["configuration"]["command"]["bits"], "Control", COMMAND_FLAGS),
            (ours["configuration"]["status"]["bits"], "Status", STATUS_FLAGS),
        ):
            flags = theirs.flags(register)
            assert set(ours_named) == {name for flag, name in names.items() if flags[flag]}
        assert ours["configuration"]["status"]["devsel"] == theirs.value(r"DEVSEL=(\w+)")


def test_bars(functions: Functions) -> None:
    for ours, theirs in functions:
        assert [pciutils.Region(**bar) for bar in ours["bars"] if bar["address"]] == theirs.regions()


def test_capabilities(functions: Functions) -> None:
    for ours, theirs in functions:
        expected = theirs.capabilities()
        assert [(one["offset"], one["version"]) for one in ours["capabilities"]] == [item[:2] for item in expected]
        for one, (_, _, text) in zip(ours["capabilities"], expected, strict=True):
            assert text.startswith(one["name"])
            details = one["details"]
            if one["name"] == "MSI":
                assert ("Enable+" in text) == details["enabled"]
                assert f"Count={details['messages_enabled']}/{details['messages']} " in text
                assert ("Maskable+" in text) == details["maskable"]
                assert ("64bit+" in text) == (details["address_bits"] == 64)
            elif one["name"] == "MSI-X":
                assert ("Enable+" in text) == details["enabled"]
                assert ("Masked+" in text) == details["masked"]
                assert f"Count={details['messages']} " in text
                assert f"Vector table: BAR={details['table_bar']} offset={details['table_offset']:08x}" in theirs.text
                assert f"PBA: BAR={details['pending_bar']} offset={details['pending_offset']:08x}" in theirs.text
            elif one["name"] == "Express":
                assert text.startswith(f"Express (v{details['version']}) {details['port']}")
                assert f"DevCap:\tMaxPayload {details['maximum_payload']} bytes" in theirs.text
                assert (
                    f"MaxPayload {details['payload']} bytes, MaxReadReq {details['read_request']} bytes" in theirs.text
                )
                assert ("FLReset+" in theirs.text) == details["function_level_reset"]
            elif one["name"] == "Power Management":
                assert text == f"Power Management version {details['version']}"
                assert f"\t\tStatus: {details['state']} " in theirs.text
            elif one["name"] == "Subsystem":
                assert text.endswith(f"[{details['ids']}]")
            elif one["name"] == "Device Serial Number":
                assert text == f"Device Serial Number {details['serial_number']}"


def test_interrupt(functions: Functions) -> None:
    for ours, theirs in functions:
        pin = theirs.value(r"^\tInterrupt: pin (\w)")
        assert ours["interrupt"]["pin"] == pin
        assert ours["configuration"]["interrupt_pin"] == (0 if pin is None else "ABCD".index(pin) + 1)
        messages = re.search(r"\] (MSI(?:-X)?): Enable\+", theirs.text)
        assert ours["interrupt"]["kind"] == (messages[1] if messages else "INTx" if pin else None)
        if messages is None and pin:
            numbers = ours["interrupt"]["numbers"] or [0]  # on arm64, until a driver is bound
            assert f"routed to IRQ {numbers[0]}\n" in theirs.text


def test_link(functions: Functions) -> None:
    for ours, theirs in functions:
        capable = re.search(r"LnkCap:\t.*Speed (\S+)GT/s, Width x(\d+)", theirs.text)
        now = re.search(r"LnkSta:\tSpeed (\S+)GT/s(?: \(\w+\))?, Width x(\d+)", theirs.text)
        if capable is None or now is None:
            assert ours["link"] is None
        else:
            assert (ours["link"]["maximum_speed"], ours["link"]["maximum_width"]) == (
                float(capable[1]),
                int(capable[2]),
            )
            assert (ours["link"]["speed"], ours["link"]["width"]) == (float(now[1]), int(now[2]))


def test_every_byte(functions: Functions) -> None:
    for ours, theirs in functions:
        assert bytes.fromhex(ours["configuration"]["bytes"]) == theirs.image
        assert ours["configuration"]["size"] == len(theirs.image)
        assert int.from_bytes(theirs.image[4:6], "little") == ours["configuration"]["command"]["value"]
        assert theirs.image[0x3C] == ours["configuration"]["interrupt_line"]
        assert ours["missing"] == []


def test_the_machine_has_what_the_comparison_is_about() -> None:
    """There are links, extended capabilities, and each kind of BAR and interrupt, so no comparison above is empty."""
    text = "\n".join(function.text for function in lspci().values())
    for wanted in ("LnkSta:", " v1] Device Serial Number", "I/O ports at", "(64-bit, prefetchable)", "MSI-X: Enable+"):
        if wanted not in text:
            pytest.skip(f"no device with {wanted} here")
    assert "Capabilities: [" in text


def test_as_text(cards: Cards) -> None:
    address = cards(E1000E)[-1]  # the one behind a bridge
    shown = re.sub(r" +", " ", run("info", address))
    lines = [line.strip() for line in shown.splitlines()]
    assert lines[0].startswith(f"{address} {E1000E} Ethernet controller [020000]: Intel Corporation 82574L")
    assert any(line.startswith("2 io 32-bit no 32 bytes 0x") for line in lines)
    assert any(line.startswith("140 0003 Device Serial Number v1 serial number 52-54-00-") for line in lines)
    assert any(line.startswith("link 2.5 GT/s x1 (maximum 2.5 GT/s x1)") for line in lines)
    assert any(line.startswith("could be e1000e; uio_pci_generic") for line in lines)


def test_a_device_with_a_node(edu: str) -> None:
    with pyuio.open(edu, bind=True) as device:
        described = description(find(device.uio.name))
        directory = Path("/sys/class/uio", device.uio.name)
        assert (described["address"], described["driver"]) == (edu, "uio_pci_generic")
        assert described["node"]["path"] == f"/dev/{device.uio.name}"
        assert described["node"]["driver_name"] == (directory / "name").read_text().strip()
        (bar,) = described["bars"]
        (offered,) = described["node"]["maps"]
        assert (offered["address"], offered["size"]) == (bar["address"], bar["size"])
        assert (offered["address"], offered["size"]) == tuple(
            int((directory / "maps/map0" / name).read_text(), 16) for name in ("addr", "size")
        )
        assert "Maps of" in run("info", edu)
        assert described["could_drive"]["pyuio"] == ["edu (pyuio-framework)"]
    assert description(find(edu))["node"] is None


def info_as_nobody(device: str) -> dict[str, Any]:
    """Return the same from a child without any privilege."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writer, run("info", device, "--json").encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    described = json.loads(text)
    assert isinstance(described, dict)
    return described


def test_without_privilege(edu: str) -> None:
    """The kernel shows 64 bytes; the command says that the rest is missing, and prints everything else."""
    ours = info(edu)  # this loads the modules that it needs, which the user nobody could not
    theirs = info_as_nobody(edu)
    (missing,) = theirs["missing"]
    assert missing.startswith("192 of the 256 bytes of the configuration space")
    assert "CAP_SYS_ADMIN" in missing
    assert (theirs["configuration"]["size"], theirs["capabilities"]) == (64, [])
    assert ours["configuration"]["bytes"].startswith(theirs["configuration"]["bytes"])
    for key in ("ids", "class", "bars", "interrupt", "driver", "iommu_group", "link"):
        assert theirs[key] == ours[key]


def test_list_leaves_bridges_out_and_says_so(cards: Cards) -> None:
    listed = json.loads(run("list", "--json"))
    classes = {address: attribute(address, "class") for address in lspci()}
    # What is called another bridge may be a card, as the carrier boards of this machine are.
    bridges = [address for address, kind in classes.items() if re.match("0x06(?!80)", kind)]
    shown = [one["address"] for one in listed["devices"]]
    assert bridges
    assert not set(bridges) & set(shown)
    assert set(cards(EDU)) | set(cards(PCI_SERIAL)) <= set(shown)
    assert listed["left_out"] == len(lspci()) - len(shown)
    text = run("list")
    assert f"left out: {listed['left_out']} (" in text
    assert f"bridges: {len(bridges)}" in text
    for address in shown:
        assert f"\n{address}  " in text


def test_list_shows_the_node(edu: str) -> None:
    with pyuio.open(edu, bind=True) as device:
        (line,) = [line for line in run("list").splitlines() if line.startswith(edu)]
        assert line.split()[1:4] == [EDU, "uio_pci_generic", device.uio.name]


def test_probe(cards: Cards) -> None:
    found = json.loads(run("probe", "--json"))["drivers"]
    (edu,) = [driver for driver in found if driver["name"] == "edu"]
    assert edu["distribution"] == "pyuio-framework"
    assert edu["ids"] == [EDU]
    assert [device["name"] for device in edu["devices"]] == cards(EDU)
    first = cards(EDU)[0]
    assert re.search(rf"^edu +pyuio-framework +{first} +{EDU} ", run("probe"), re.MULTILINE)


@pytest.mark.long
def test_probe_one(cards: Cards) -> None:
    first = cards(EDU)[0]
    assert first in run("probe", first)
    done = command_here("probe", cards(PCI_TESTDEV)[0])
    assert done.returncode == 1
    assert "no installed driver serves" in done.stdout + done.stderr
