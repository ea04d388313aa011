# SPDX-License-Identifier: MIT
"""The commands on devices that VFIO hands out, in a guest with an IOMMU; conftest.py puts these tests last."""

from __future__ import annotations

import contextlib
import ctypes
import grp
import itertools
import json
import os
import re
import resource
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio import cli
from pyuio.claim import binding
from pyuio.claim.permission import LIMITS, RULES
from pyuio.inspect import chosen_driver
from pyuio.kernel import iommufd, vfio
from pyuio.kernel.drivers import bound_driver, load_driver
from pyuio.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS
from tests.guest.commands.in_process import command_here
from tests.guest.marks import on_x86
from tests.guest.support import (
    PATIENCE,
    PROCESSOR,
    Beside,
    command_in_a_fork,
    keep_in_a_ring,
    load_command,
    pyuio_command,
    result_of_a_fork,
    wait_until,
)

EDU, NETWORK = "1234:11e8", "8086:10d3"
ICH9 = "0000:00:1f.0", "0000:00:1f.2", "0000:00:1f.3"  # an ISA bridge, AHCI, SMBus: one IOMMU group
GROUP, NOBODY = "pyuio-test", 65534
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38  # include/uapi/linux/prctl.h
CLONE_NEWNS, CLONE_NEWUSER, MNT_DETACH = 0x20000, 0x10000000, 2  # linux/sched.h, linux/mount.h
SYS_EXIT = {"x86_64": 60, "aarch64": 93}[PROCESSOR]  # of one thread
MOMENT = 30  # seconds within which a command under emulation ends, and one that hangs does not


def addresses(ids: str) -> list[str]:
    return sorted(str(one.address) for one in pyuio.devices() if one.ids == ids)


@pytest.fixture(scope="module")
def edu() -> str:
    return addresses(EDU)[0]


@pytest.fixture
def card(edu: str) -> Iterator[str]:
    """An edu card that vfio-pci has; it has no driver before and afterwards."""
    undo = binding.bind(edu, "vfio-pci")
    yield edu
    if bound_driver(edu) == "vfio-pci":
        undo.undo()
    assert bound_driver(edu) is None


def group_of(address: str) -> int:
    number = vfio.group_of(PCI_DEVICES / address)
    assert number is not None
    return number


def until_killed(begin: Callable[[], object]) -> Callable[[], None]:
    """Return a program that begins something, says so, and then does nothing until it is killed."""

    def program() -> None:
        kept = begin()
        print("begun", flush=True)
        while kept is not program:
            time.sleep(1000)

    return program


def hold(address: str, group_of_users: int | None = None, *, only_the_function: bool = False) -> tuple[int, ...]:
    """Open a function by VFIO, and by iommufd where that is, as a program that ignores that the kernel wants it back.

    With a group of users, this becomes a user who is in it and in no other.

    Returns:
        The descriptors, that of the function last.
    """
    if group_of_users is not None:
        os.setgroups([group_of_users])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    node = iommufd.device_node(PCI_DEVICES / address)
    if node is not None:
        ioas = iommufd.Ioas()
        function = os.open(node, os.O_RDWR)
        ioas.attach(function)
        memory: tuple[int, ...] = (ioas.fileno(),)
    else:
        group, container = vfio.Group(group_of(address)), vfio.Container()
        group.join(container)
        function = group.open_device(address)
        memory = (group._file, container.fileno())
    if only_the_function:
        os.close(memory[0])
        memory = memory[1:]
    return *memory, function


def nodes_of(address: str) -> list[Path]:
    """Return the nodes by which a function that vfio-pci has can be opened."""
    node = iommufd.device_node(PCI_DEVICES / address)
    return [vfio.group_path(group_of(address)), *([node] if node else [])]


@pytest.fixture
def holder(card: str) -> Iterator[Beside]:
    """A process that has the card open."""
    with held(card) as process:
        yield process


@contextlib.contextmanager
def held(address: str) -> Iterator[Beside]:
    """A process that has a function open."""
    with Beside(until_killed(lambda: hold(address)), "holder") as process:
        assert process.stdout.readline() == "begun\n", process.stderr.read()
        yield process
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)


def command(*words: str) -> tuple[int, str, str]:
    """Run a command of pyuio's that may hang; return its status and what it prints."""
    load_command()
    with Beside(command_in_a_fork, "pyuio", *words) as process:
        output, errors = process.communicate(MOMENT)
        assert process.returncode is not None
        return process.returncode, output, errors


def refused(*words: str) -> str:
    status, output, errors = command(*words)
    assert (status, output) == (1, ""), (words, status, output, errors)
    return errors


def test_what_open_would_bind_is_bound(edu: str) -> None:
    done = command_here("bind", edu)
    assert done.returncode == 0, done.stderr
    path = vfio.group_path(group_of(edu))
    assert done.stdout == (
        f"{edu} is bound to vfio-pci as {path}, because an IOMMU translates for the device; "
        f"pyuio unbind {edu} leaves it without a driver, as it was\n"
    )
    assert command_here("unbind", edu).stdout == f"{edu} is released from vfio-pci, and has no driver\n"


@pytest.mark.long
def test_what_is_bound_already(card: str) -> None:
    path = vfio.group_path(group_of(card))
    assert command_here("bind", card).stdout == f"{card} is bound to vfio-pci already as {path}: nothing to do\n"


@pytest.mark.parametrize(
    "words",
    [
        ("unbind", "CARD", "--force"),
        *(
            pytest.param(words, marks=pytest.mark.long)
            for words in (
                ("bind", "CARD", "--driver", "uio_pci_generic"),
                ("bind", "CARD", "--driver", "uio_pci_generic", "--force"),
                ("unbind", "CARD"),
                ("setup", "CARD", "--driver", "uio_pci_generic"),
                ("irq", "CARD"),
            )
        ),
    ],
    ids=" ".join,
)
def test_a_holder_is_named_at_once(card: str, holder: Beside, words: tuple[str, ...]) -> None:
    errors = refused(*(card if word == "CARD" else word for word in words))
    assert f"process {holder.pid} (" in errors
    assert f"has its IOMMU group, {' or '.join(map(str, nodes_of(card)))}, open" in errors
    with pytest.raises(pyuio.DeviceBusyError, match=f"process {holder.pid} "):
        pyuio.open(card, bind="uio_pci_generic")
    assert bound_driver(card) == "vfio-pci"


@pytest.mark.parametrize("way", ["thread", pytest.param("io_uring", marks=pytest.mark.long)])
def test_a_holder_who_hides(card: str, way: str) -> None:
    """It is found without its first thread, or descriptors; and no stranger whose file has the path of the node is."""
    path = nodes_of(card)[-1]
    library = ctypes.CDLL(None, use_errno=True)

    def hidden() -> None:
        if way == "thread":
            kept = hold(card, only_the_function=True)
            threading.Thread(target=until_killed(lambda: kept)).start()
            library.syscall(SYS_EXIT, 0)
        files = hold(card)
        ring = keep_in_a_ring(*files)
        for file in files:
            os.close(file)
        until_killed(lambda: ring)()

    def pretend() -> object:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        library.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # or /proc/self is root's
        assert library.unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0
        Path("/proc/self/uid_map").write_text(f"0 {NOBODY} 1")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/gid_map").write_text(f"0 {NOBODY} 1")
        assert library.mount(b"none", b"/mnt", b"tmpfs", 0, None) == 0
        file = Path(f"/mnt{path}")
        file.parent.mkdir(parents=True)
        kept = file.open("w")
        assert library.umount2(b"/mnt", MNT_DETACH) == 0
        assert Path(f"/proc/self/fd/{kept.fileno()}").readlink() == path
        return kept

    with Beside(hidden, "holder") as holder, Beside(until_killed(pretend), "pretender") as pretender:
        assert holder.stdout.readline() == "begun\n", holder.stderr.read()
        assert pretender.stdout.readline() == "begun\n", pretender.stderr.read()
        errors = refused("unbind", card)
        assert f"process {holder.pid} (" in errors
        assert f"process {pretender.pid} (" not in errors
        for process in (holder, pretender):
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
    assert command("unbind", card)[0] == 0


@pytest.fixture
def awaited(card: str, holder: Beside) -> Iterator[Beside]:
    """The holder, for which an unbind of the card waits; it is killed at last."""

    def unbind() -> None:
        print("begun", flush=True)
        (PCI_DRIVERS / "vfio-pci/unbind").write_text(card)

    with Beside(unbind, "unbinder") as waiting, contextlib.ExitStack() as stack:
        stack.callback(holder.send_signal, signal.SIGKILL)  # or the unbinder could not be killed
        wait_until(lambda: bound_driver(card) is None)
        yield holder
        assert waiting.poll() is None
        holder.send_signal(signal.SIGKILL)
        assert waiting.wait(PATIENCE) == 0
    assert bound_driver(card) is None


def test_nothing_hangs_while_an_unbind_waits(card: str, awaited: Beside) -> None:
    """Whoever reads an attribute under the function's lock would wait with it, and could not be killed."""
    assert f"process {awaited.pid} (" in refused("unbind", card, "--force")
    for bind in (False, True):
        with pytest.raises(pyuio.DeviceBusyError, match=f"process {awaited.pid} "):
            pyuio.open(card, bind=bind)
    status, output, _errors = command("info", card)
    assert status == 0
    assert f"it is being taken from vfio-pci, which waits for process {awaited.pid} (" in output


@pytest.mark.long
def test_no_other_command_hangs_either(card: str, awaited: Beside) -> None:
    named = f"process {awaited.pid} ("
    for words in (
        ("bind", card),
        ("bind", card, "--driver", "vfio-pci"),
        ("unbind", card),
        ("setup", card),
        ("irq", card),
    ):
        assert named in refused(*words), words
    for bind in ("uio_pci_generic", "vfio-pci"):
        with pytest.raises(pyuio.DeviceBusyError, match=f"process {awaited.pid} "):
            pyuio.open(card, bind=bind)
    status, output, _errors = command("list")
    assert (status, card in output) == (0, True)
    status, output, _errors = command("doctor", card)
    assert named in output, output
    assert command("dump", card)[0] == 0
    assert command("read", card, "config+0", "--width", "32")[1].startswith("0x11e81234")
    assert command("probe")[0] == 0


def test_what_is_shown(card: str) -> None:
    path = vfio.group_path(group_of(card))
    text = re.sub(" +", " ", command_here("info", card).stdout)
    kind = (PCI_DEVICES / card / "iommu_group/type").read_text().strip()
    for line in (
        "kernel driver vfio-pci",
        "open binds vfio-pci: it has the device already",
        f"node {path}",
        "vectors MSI 1",
        f"IOMMU group {group_of(card)} ({kind})",
        "MSI address and data are virtual; only device.vectors enables it",
    ):
        assert f"\n {line}\n" in text.replace(" \n", "\n"), (line, text)
    network = addresses(NETWORK)[0]
    described = json.loads(command_here("info", network, "--json").stdout)
    assert described["vectors"] == {"MSI": 1, "MSI-X": 5}
    assert described["resets"] == (PCI_DEVICES / network / "reset_method").read_text().split()
    assert described["open_binds"]["driver"] == "vfio-pci"
    assert described["virtualised"] == []
    (line,) = [line for line in command_here("list").stdout.splitlines() if line.startswith(card)]
    assert line.split()[2:4] == ["vfio-pci", f"vfio/{path.name}"]


def test_what_is_shown_is_what_vfio_does(card: str) -> None:
    """A few of the claims of `info`, against the kernel."""
    with pyuio.open(card) as device, device.config.unlocked() as config:
        real = PCI_DEVICES / card / "config"
        for offset in (0x10, 0x3C):  # a BAR, the interrupt line
            before = real.read_bytes()[offset]
            config.write8(offset, before ^ 0xF0)
            assert real.read_bytes()[offset] == before
        (msi,) = [one for one in config.capabilities() if one.name == "MSI"]
        config.write8(msi.offset + 2, config.read8(msi.offset + 2) | 1)
        assert not config.read8(msi.offset + 2) & 1
        assert not real.read_bytes()[msi.offset + 2] & 1
        cache_line = config.read8(0x0C)
        config.write8(0x0C, cache_line ^ 0x08)
        assert real.read_bytes()[0x0C] == cache_line ^ 0x08
        config.write8(0x0C, cache_line)


class Busy(Edu):
    """A driver whose card raises an interrupt at once, and one more at each acknowledgement."""

    def __init__(self, device: pyuio.Device) -> None:
        super().__init__(device)
        self.raise_interrupt(1)

    def acknowledge(self, bits: int = 0xFFFFFFFF) -> None:
        super().acknowledge(bits)
        self.raise_interrupt(1)


@pytest.mark.parametrize("vectors", [[], ["--vectors", "1"]], ids=["INTx", "MSI"])
def test_interrupts_as_they_come(card: str, vectors: list[str]) -> None:
    def program() -> None:
        vars(chosen_driver)["driver_for"] = lambda *_: Busy
        cli.main()

    load_command()
    with Beside(program, "pyuio", "irq", card, "--count", "3", "--timeout", "20", *vectors) as process:
        output, errors = process.communicate(PATIENCE)
    assert process.returncode == 0, output + errors
    heading, *lines = [line.split() for line in output.splitlines()]
    assert heading[:2] == ["total", "count"]
    counts = [int(line[1]) for line in lines]
    assert [int(line[0]) for line in lines] == list(itertools.accumulate(counts))
    assert sum(counts) >= 3
    assert (heading[-1], lines[0][3:]) == (("vector", ["0"]) if vectors else ("last", []))


class Network(pyuio.Driver):
    """Raises the vectors of an e1000e in turn (Intel's 82574 data sheet, section 10.2.4)."""

    ids = (NETWORK,)
    _CTRL, _CTRL_RESET = 0x00, 1 << 26
    _ICS, _IMS, _EIAC, _IVAR = 0xC8, 0xD0, 0xDC, 0xE4
    _CAUSES = range(20, 25)

    def __init__(self, device: pyuio.Device) -> None:
        super().__init__(device)
        self._bar = device.bar(0)
        self._all = sum(1 << bit for bit in self._CAUSES)
        self._bar.write32(self._EIAC, self._all)  # a message clears its cause
        self._bar.write32(self._IVAR, sum((8 | vector) << 4 * vector for vector in range(5)))
        self._next = 0
        self.acknowledge()

    def acknowledge(self) -> None:
        self._bar.write32(self._IMS, self._all)
        self._bar.write32(self._ICS, 1 << self._CAUSES[self._next])
        self._next = (self._next + 1) % 3

    def quiet(self) -> None:
        """QEMU 7.2 aborts if MSI-X is disabled while it holds a message back; a reset makes it forget the message."""
        self._bar.write32(self._CTRL, self._CTRL_RESET)


class NetworkOfThree(Network):
    """Takes its vectors by itself."""

    vectors = 3


@pytest.mark.parametrize(("kind", "words"), [(Network, ("--vectors", "3")), (NetworkOfThree, ())])
def test_vectors_as_they_come(kind: type[pyuio.Driver], words: tuple[str, ...]) -> None:
    network = addresses(NETWORK)[0]
    undo = binding.bind(network, "vfio-pci")

    def program() -> None:
        vars(chosen_driver)["driver_for"] = lambda *_: kind
        cli.main()

    load_command()
    with Beside(program, "pyuio", "irq", network, *words, "--count", "6", "--timeout", "20", "--json") as process:
        output, errors = process.communicate(PATIENCE)
    assert process.returncode == 0, output + errors
    assert {json.loads(line)["vector"] for line in output.splitlines()} == {0, 1, 2}
    assert "has no 6 message interrupts; it has 5 MSI-X and 1 MSI" in refused("irq", network, "--vectors", "6")
    undo.undo()


def without_capabilities(group: int | None, what: Callable[[], object]) -> Any:
    """Call a function as a user who has nothing but one more group, and can never get anything; return its result."""

    def drop_all() -> object:
        library = ctypes.CDLL(None, use_errno=True)
        for capability in range(64):
            library.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        assert library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.setgroups([] if group is None else [group])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        library.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # as after execve: then the user owns /proc/self
        status = Path("/proc/self/status").read_text()
        assert re.findall(r"^Cap(?:Prm|Eff|Bnd|Amb):\t(\w+)", status, re.MULTILINE) == ["0" * 16] * 4, status
        return what()

    return result_of_a_fork(drop_all)


def owner(path: Path) -> tuple[int, str]:
    status = path.stat()
    return status.st_gid, stat.filemode(status.st_mode)


def drive(address: str) -> tuple[int, str, int, int]:
    """Drive an edu card by registers, INTx, MSI and transfers; return what came of it."""
    with pyuio.open(address) as device:
        card = Edu(device)
        factorial = card.factorial_by_interrupt(10)
        kind = device.interrupt.kind
        card.to_device(b"without privilege")
        assert card.from_device(17) == b"without privilege"
    with pyuio.open(address) as device:
        card = Edu(device)
        (vector,) = device.vectors(1)
        card.raise_interrupt(0x80)
        count = vector.read(PATIENCE)
        assert (kind, vector.kind) == ("INTx", "MSI")
        card.acknowledge()
        return os.getuid(), device.driver or "", factorial, count


@contextlib.contextmanager
def given_to_the_group(edu: str) -> Iterator[int]:
    """Set the card up for the group, whose number this returns; afterwards it is root's again."""
    done = pyuio_command("setup", edu, "--driver", "vfio-pci", "--group", GROUP)
    try:
        assert done.returncode == 0, done.stderr
        path = vfio.group_path(group_of(edu))
        assert f"{edu} is {path}, and members of {GROUP} may drive it" in done.stdout
        assert "LimitMEMLOCK" in done.stdout
        number = grp.getgrnam(GROUP).gr_gid
        assert owner(path) == (number, "crw-rw----")
        yield number
    finally:
        if list(RULES.glob("*pyuio*")):
            pyuio_command("setup", edu, "--undo", "--force")


def take_back_by_force(edu: str, number: int) -> None:
    """Undo the setup while a member of the group has the card open."""
    with Beside(until_killed(lambda: hold(edu, number)), "member") as process:
        assert process.stdout.readline() == "begun\n", process.stderr.read()
        status, output, errors = command("setup", edu, "--undo", "--force")
        assert (status, f"killed process {process.pid}" in errors) == (0, True), output + errors
        assert f"{edu} is root's alone again, and has no driver" in output
        assert process.wait(PATIENCE) == -signal.SIGKILL
    assert (PCI_DEVICES / edu / "driver_override").read_text() == "(null)\n"
    assert not list(RULES.glob("*pyuio*")) + list(LIMITS.glob("*pyuio*"))


def test_a_user_without_capabilities(edu: str) -> None:
    """udev gives the card, and nothing else, to the group; what is taken back is taken by force."""
    with given_to_the_group(edu) as number:
        assert without_capabilities(number, lambda: drive(edu)) == (NOBODY, "vfio-pci", 3628800, 1)

        def tries() -> str:
            with pytest.raises(PermissionError) as caught:
                pyuio.open(edu)
            return str(caught.value)

        assert "/dev/vfio/" in without_capabilities(None, tries)

        def writable() -> list[str]:
            paths = [Path(directory, name) for directory, _, names in os.walk("/dev") for name in names]
            paths += [path for root in PCI_DEVICES.iterdir() for path in root.resolve().glob("*")]
            return sorted(str(path) for path in paths if not path.is_symlink() and os.access(path, os.W_OK))

        more = set(without_capabilities(number, writable)) - set(without_capabilities(None, writable))
        by_iommufd = len(nodes_of(edu)) > 1
        assert more == {*map(str, nodes_of(edu)), *([str(iommufd.IOMMU)] if by_iommufd else [])}

        take_back_by_force(edu, number)


@pytest.mark.long
def test_a_card_of_the_group_that_comes_back(edu: str) -> None:
    other, path = addresses(EDU)[1], vfio.group_path(group_of(edu))
    undo = binding.bind(other, "vfio-pci")
    with contextlib.ExitStack() as stack:
        stack.callback(undo.undo)
        number = stack.enter_context(given_to_the_group(edu))
        assert owner(vfio.group_path(group_of(other))) == (0, "crw-------")
        assert "it was set up already" in pyuio_command("setup", edu, "--driver", "vfio-pci", "--group", GROUP).stdout
        assert "take that back first" in refused("setup", edu, "--driver", "uio_pci_generic", "--group", GROUP)

        def tries() -> str:
            with pytest.raises(PermissionError) as caught:
                pyuio.open(other)
            return str(caught.value)

        assert "/dev/vfio/" in without_capabilities(number, tries)

        by_iommufd = len(nodes_of(edu)) > 1

        # A card that comes back is the group's again.
        (PCI_DEVICES / edu / "remove").write_text("1")
        wait_until(lambda: not (PCI_DEVICES / edu).exists())
        Path("/sys/bus/pci/rescan").write_text("1")
        subprocess.run(["udevadm", "settle", "--timeout=30"], check=True)
        path = vfio.group_path(group_of(edu))
        assert bound_driver(edu) == "vfio-pci"
        assert {owner(node) for node in nodes_of(edu)} == {(number, "crw-rw----")}
        without_capabilities(number, lambda: pyuio.open(edu).close())

        if (
            not by_iommufd
        ):  # then the kernel does not tell of which function a process has VFIO's file: it is not killed
            member = until_killed(lambda: hold(edu, number, only_the_function=True))
            with Beside(member, "member") as process:
                assert process.stdout.readline() == "begun\n", process.stderr.read()
                errors = command("setup", edu, "--undo", "--force")[2]
                assert f"process {process.pid} (" in errors
                assert owner(path) == (0, "crw-------")
                assert process.poll() is None
                assert bound_driver(edu) == "vfio-pci"
                process.send_signal(signal.SIGKILL)
        assert pyuio_command("setup", edu, "--driver", "vfio-pci", "--group", GROUP).returncode == 0

        # Without force, the one who has it open is named.
        member = until_killed(lambda: hold(edu, number))
        with Beside(member, "member") as process:
            assert process.stdout.readline() == "begun\n", process.stderr.read()
            errors = command("setup", edu, "--undo")[2]
            assert f"process {process.pid} (" in errors
            assert f"has {nodes_of(edu)[-1]}" in errors
            nodes = [*nodes_of(edu), *([iommufd.IOMMU] if by_iommufd else [])]
            assert {owner(node) for node in nodes} == {(0, "crw-------")}
            process.send_signal(signal.SIGKILL)


@pytest.fixture(scope="module")
def other_drivers() -> None:
    """Have the kernel's drivers take functions of one group, for good: a fixture that does not count as the test's."""
    for driver in ("ahci", "i801_smbus"):
        with contextlib.suppress(pyuio.PyuioError):
            load_driver({"i801_smbus": "i2c-i801"}.get(driver, driver))
    _, disks, bus = ICH9
    wait_until(lambda: bound_driver(bus) == "i801_smbus" and bound_driver(disks) == "ahci")


@pytest.mark.usefixtures("other_drivers")
@on_x86  # QEMU's machine for arm64 has no functions of its own
def test_a_group_with_functions_of_other_drivers() -> None:
    """All that is in the way is named, and nothing is left half-way."""
    bridge, disks, bus = ICH9
    before = {address: bound_driver(address) for address in ICH9}

    def unchanged() -> bool:
        return {address: bound_driver(address) for address in ICH9} == before

    errors = refused("bind", bus, "--driver", "vfio-pci")
    assert f"{disks} (ahci)" in errors
    assert f"pyuio bind --driver vfio-pci --whole-group {bus}" in errors
    with pytest.raises(pyuio.DeviceBusyError, match=f"--whole-group {bus}"):
        pyuio.open(bus, bind="vfio-pci")
    assert unchanged()
    for address in (disks, bus):
        # The driver does not come back to a function whose group is used: so all must be VFIO's, or none.
        (PCI_DEVICES / address / "driver_override").read_text()
    done = command_here("bind", bus, "--driver", "vfio-pci", "--whole-group", *(["--force"] if before[bridge] else []))
    assert done.returncode == 0, done.stderr
    taken = [address for address in ICH9 if before[address]]
    assert [bound_driver(address) for address in taken] == ["vfio-pci"] * len(taken)
    for address in taken:
        assert f"pyuio unbind {address} gives it back to {before[address]}" in done.stdout
    with pyuio.open(bus) as device:
        assert device.config.vendor_id == 0x8086
    for address in taken:
        assert command_here("unbind", address).returncode == 0
    assert unchanged()


@pytest.mark.long
@pytest.mark.usefixtures("other_drivers")
@on_x86
def test_info_says_that_other_drivers_have_the_group() -> None:
    assert "VFIO is out: kernel drivers have functions of its IOMMU group" in command("info", ICH9[2])[1]


def test_a_kernel_without_vfio_pci(edu: str) -> None:
    """It is refused, or UIO is taken instead, before anything is changed."""
    if any(bound_driver(one.name) == "vfio-pci" for one in PCI_DEVICES.iterdir()):
        pytest.fail("an earlier test left a function with vfio-pci")
    subprocess.run(["modprobe", "-r", "vfio-pci"], check=True)
    override = Path("/etc/modprobe.d/pyuio-test.conf")
    override.write_text("install vfio-pci /bin/false\ninstall vfio_pci /bin/false\n")
    try:
        assert "this kernel has no driver vfio-pci" in refused("bind", edu, "--driver", "vfio-pci")
        with pytest.raises(pyuio.KernelSupportError):
            pyuio.open(edu, bind="vfio-pci")
        assert bound_driver(edu) is None
        assert (PCI_DEVICES / edu / "driver_override").read_text() == "(null)\n"
        assert "open binds uio_pci_generic: VFIO is out: this kernel has no vfio-pci" in re.sub(
            " +", " ", command_here("info", edu).stdout
        )
        with pyuio.open(edu, bind=True) as device:
            assert device.driver == "uio_pci_generic"
    finally:
        override.unlink()


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["latency", "--message", "--count", "8", "--loads", "idle"], "MSI"),
        pytest.param(["latency", "--count", "200", "--loads", "idle"], "INTx", marks=pytest.mark.long),
        pytest.param(["rate", "--count", "1000"], "INTx", marks=pytest.mark.long),
        pytest.param(["rate", "--message", "--count", "1000"], "MSI", marks=pytest.mark.long),
    ],
)
def test_measuring(card: str, words: list[str], kind: str) -> None:
    done = pyuio_command("bench", *words, card, "--no-picture", "--json")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["void"] == []
    assert run["device"] == f"{EDU} at {card}, vfio-pci, {kind}"
    assert [series["way"] for series in run["series"]] == ["C", "Python read loop", "native service"]


@pytest.fixture
def locked_down() -> None:
    """Lock the kernel down. The tests with it are the last of all, as lockdown ends with the boot."""
    lockdown = Path("/sys/kernel/security/lockdown")
    if not lockdown.exists():
        subprocess.run(["mount", "-t", "securityfs", "none", str(lockdown.parent)], check=True)
    # The modules of a kernel that tests.iommufd_kernel built are not signed, and lockdown refuses to load them.
    subprocess.run(["modprobe", "--all", "vfio-pci", "uio_pci_generic"], check=True)
    if "[integrity]" not in lockdown.read_text():  # it may be on the kernel's command line
        lockdown.write_text("integrity")


def test_what_is_locked_down(edu: str, locked_down: None) -> None:
    status, output, errors = command("doctor", edu, "--json")
    findings = {one["name"]: one for one in json.loads(output)["findings"]}
    assert (status, errors) == (0, "")
    assert "VFIO is the way" in findings["lockdown"]["found"]
    assert findings["ways"]["found"].startswith("UIO: the kernel is locked down")
    with pyuio.open(edu, bind=True) as device:
        assert device.driver == "vfio-pci"
        assert Edu(device).factorial_by_interrupt(5) == 120
    with pytest.raises(pyuio.PermissionDeniedError), pyuio.open(edu, bind="uio_pci_generic") as device:
        device.bar(0)


@pytest.mark.long
def test_a_user_of_what_is_locked_down(edu: str, locked_down: None) -> None:
    number = group_of(edu)
    done = pyuio_command("setup", edu, "--group", GROUP)
    assert done.returncode == 0, done.stderr
    try:
        group = grp.getgrnam(GROUP).gr_gid
        assert owner(vfio.group_path(number)) == (group, "crw-rw----")
        assert without_capabilities(group, lambda: drive(edu))[1:3] == ("vfio-pci", 3628800)
    finally:
        assert pyuio_command("setup", edu, "--undo").returncode == 0
