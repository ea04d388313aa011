# SPDX-License-Identifier: MIT
"""Driving a card without root, as a member of the group of ``pyuio setup``: real udev, real users, real files."""

from __future__ import annotations

import contextlib
import ctypes
import grp
import mmap
import os
import pwd
import re
import resource
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.claim import binding
from pyuio.claim.permission import LIMITS, RULES, Permission
from pyuio.kernel.drivers import bound_driver
from tests.guest.support import (
    EDU,
    PCI_TESTDEV,
    Beside,
    Cards,
    attribute,
    command_register,
    keep_in_a_ring,
    let_go,
    pyuio_command,
    result_of_a_fork,
)

MEMBER, STRANGER, GROUP = "pyuio-member", "nobody", "pyuio-test"
PCI = Path("/sys/bus/pci/devices")
HELLO = (Path(__file__).resolve().parents[3] / "examples/hello.py").read_text()
CAP_SYS_ADMIN = 21  # include/uapi/linux/capability.h
PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 4, 8  # include/uapi/linux/prctl.h
AFTER_LOGIN = {resource.RLIMIT_RTPRIO: 89, resource.RLIMIT_MEMLOCK: resource.RLIM_INFINITY}

pytestmark = pytest.mark.skipif(not Path("/run/udev/control").exists(), reason="no udev runs here")


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def keep_only(capability: int) -> None:
    """Take one capability, as a service with AmbientCapabilities= has; call after `PR_SET_KEEPCAPS` and setuid."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    data = (ctypes.c_uint32 * 6)(1 << capability, 1 << capability, 0, 0, 0, 0)
    assert ctypes.CDLL(None).capset(header, data) == 0


def as_user(name: str, what: Callable[[], object], *, capability: int | None = None) -> Any:
    """Call a function in a process of an ordinary user, as after a login, and return what it returns."""
    user = pwd.getpwnam(name)

    def log_in() -> object:
        for limit, value in AFTER_LOGIN.items() if name == MEMBER else ():
            resource.setrlimit(limit, (value, value))
        os.initgroups(name, user.pw_gid)
        os.setgid(user.pw_gid)
        if capability is not None:
            ctypes.CDLL(None).prctl(PR_SET_KEEPCAPS, 1)
        os.setuid(user.pw_uid)
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1)  # as after execve: then the user owns /proc/self
        if capability is not None:
            keep_only(capability)
        return what()

    return result_of_a_fork(log_in)


def refusal(what: Callable[[], object]) -> str:
    """Return the message of a call that must fail for lack of permission."""
    with pytest.raises(PermissionError) as caught:
        what()
    return str(caught.value)


def setup(*words: str) -> str:
    done = pyuio_command("setup", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def setup_fails(*words: str) -> str:
    done = pyuio_command("setup", *words)
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def owners(address: str) -> dict[str, tuple[int, str]]:
    """Return group and mode of the files that a driver needs; of the node without its number."""
    nodes = (Path("/dev", entry.name) for entry in (PCI / address).glob("uio/*"))
    found = {}
    for path in [PCI / address / "config", *sorted((PCI / address).glob("resource[0-5]*")), *nodes]:
        status = path.stat()
        name = "uio" if path.parent.name == "dev" else path.name
        found[name] = (status.st_gid, stat.filemode(status.st_mode))
    return found


@pytest.fixture(scope="module")
def card(cards: Cards) -> Iterator[str]:
    """An edu card that the members of the group may drive; the group has one member."""
    let_go()
    address = cards(EDU)[0]
    before = owners(address)
    said = setup(address, "--group", GROUP)
    try:
        assert f"members of {GROUP} may drive it" in said
        assert "CAP_SYS_ADMIN" in said
        run("useradd", "--no-create-home", "--shell", "/bin/sh", "--groups", GROUP, MEMBER)
        yield address
    finally:
        said = setup(address, "--undo")
        for command in (("userdel", MEMBER), ("groupdel", GROUP)):
            subprocess.run(command, check=False, capture_output=True)
    assert f"{address} is root's alone again, and has no driver" in said
    assert bound_driver(address) is None
    assert owners(address) == before
    assert not list(RULES.glob("*pyuio*"))
    assert not list(LIMITS.glob("*pyuio*"))


def test_a_member_drives_the_card(card: str, capfd: pytest.CaptureFixture[str]) -> None:
    def drive() -> tuple[int, int, int]:
        namespace: dict[str, Any] = {"__name__": "hello"}
        # The text is compiled here, because the user may be unable to read this directory.
        exec(compile(HELLO, "hello.py", "exec"), namespace)
        namespace["main"](card)
        with Edu.open(card) as edu:
            factorial = edu.factorial_by_interrupt(12)
            edu.raise_interrupt(0x80)
            return os.getuid(), factorial, edu.wait_for_interrupt(5)

    uid = pwd.getpwnam(MEMBER).pw_uid
    assert as_user(MEMBER, drive) == (uid, 479001600, 0x80)
    assert command_register(card) & 1 << 10, "left masked"


def test_a_member_may_write_nothing_else(card: str) -> None:
    """Return every file of every PCI function, of the drivers and of the bus, and every device node."""

    def writable() -> list[str]:
        roots = [entry.resolve() for entry in PCI.iterdir()]
        places = [str(root) for root in roots if root.parent.name.startswith("pci")] + ["/sys/bus/pci", "/dev"]
        found = []
        for place in places:
            for directory, _, names in os.walk(place):
                paths = [Path(directory, name) for name in names]
                found += [str(path) for path in paths if not path.is_symlink() and os.access(path, os.W_OK)]
        return found

    own = {str((PCI / card).resolve() / name) for name in ("config", "resource0")}
    own.add(f"/dev/{next((PCI / card / 'uio').iterdir()).name}")
    anybody = set(as_user(STRANGER, writable))
    assert not any(path.startswith("/sys") or "uio" in path for path in anybody)
    assert set(as_user(MEMBER, writable)) - anybody == own


def test_a_member_cannot_open_another_card(card: str, cards: Cards) -> None:
    other = next(address for address in cards(EDU) if address != card)
    bound = binding.bind(other)
    try:

        def tries() -> list[str]:
            return [
                refusal(lambda: pyuio.open(other)),
                refusal(lambda: binding.unbind(other)),
                refusal(lambda: binding.unbind(card)),
                refusal(lambda: os.open(PCI / other / "resource0", os.O_RDWR)),
            ]

        assert "pyuio setup" in as_user(MEMBER, tries)[0]
    finally:
        bound.undo()


def test_a_stranger_cannot_open_the_card(card: str) -> None:
    assert "/dev/uio" in as_user(STRANGER, lambda: refusal(lambda: pyuio.open(card)))


def test_what_needs_a_capability(card: str) -> None:
    def allocate() -> int:
        with pyuio.open(card) as device, device.dma.alloc(4096) as buffer:
            return buffer.address

    assert "CAP_SYS_ADMIN" in as_user(MEMBER, lambda: refusal(allocate))
    assert as_user(MEMBER, allocate, capability=CAP_SYS_ADMIN) > 0


def test_real_time_by_the_limits(card: str) -> None:
    def policy() -> tuple[int, int, bool]:
        with pyuio.realtime(cpu_dma_latency=None) as tuned:
            return (
                os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK,
                os.sched_getparam(0).sched_priority,
                bool(tuned.missing),
            )

    assert as_user(MEMBER, policy) == (os.SCHED_FIFO, 89, False)
    assert "CAP_SYS_NICE" in as_user(
        STRANGER, lambda: refusal(lambda: pyuio.realtime(lock_memory=False, cpu_dma_latency=None))
    )


def test_a_login_gets_the_limits(card: str) -> None:
    if "pam_limits" not in Path("/etc/pam.d/su").read_text():
        pytest.skip("su sets no limits here")
    assert run("su", MEMBER, "-c", "ulimit -r; ulimit -l").split() == ["89", "unlimited"]


def test_again_changes_nothing(card: str) -> None:
    before, files = owners(card), [(path, path.stat().st_ino) for path in (*RULES.iterdir(), *LIMITS.iterdir())]
    assert "it was set up already" in setup(card, "--group", GROUP)
    assert owners(card) == before
    assert [(path, path.stat().st_ino) for path in (*RULES.iterdir(), *LIMITS.iterdir())] == files
    group = grp.getgrnam(GROUP).gr_gid
    assert before["config"] == (group, "-rw-rw-r--")
    assert before["resource0"] == (group, "-rw-rw----")


def test_a_card_that_comes_back_is_the_groups(card: str) -> None:
    (PCI / card / "remove").write_text("1")
    assert not (PCI / card).exists()
    Path("/sys/bus/pci/rescan").write_text("1")
    run("udevadm", "settle", "--timeout=30")
    assert attribute(card, "driver_override") == "uio_pci_generic"
    assert as_user(MEMBER, lambda: Edu.open(card).factorial_by_interrupt(5)) == 120


@pytest.mark.long
def test_a_card_that_comes_back_after_one_with_a_slow_driver(card: str, cards: Cards, several_nodes: None) -> None:
    """The kernel makes the card's resource0 only when it has probed the other card's driver."""
    slow, before = cards(PCI_TESTDEV)[0], owners(card)
    assert slow < card
    for address in (card, slow):
        (PCI / address / "remove").write_text("1")
    Path("/sys/module/several_nodes/parameters/probe_ms").write_text("1500")
    Path("/sys/bus/pci/rescan").write_text("1")
    run("udevadm", "settle", "--timeout=30")
    assert owners(card) == before
    assert bound_driver(card) == "uio_pci_generic"


def test_print_writes_nothing(cards: Cards) -> None:
    address = cards(EDU)[-1]
    said = setup(address, "--print", "--group", "pyuio-nobody")
    assert 'GROUP="pyuio-nobody", MODE="0660"' in said
    assert "AmbientCapabilities=CAP_SYS_ADMIN" in said
    assert not (RULES / f"70-pyuio-{address}.rules").exists()
    with pytest.raises(KeyError):
        grp.getgrnam("pyuio-nobody")


def hold(address: str, way: str) -> object:
    """Become a member, hide from others, and hold what a member may open, in one of the ways, under udev's name.

    Or what anybody may: "read", and "path", which opens nothing.
    """
    directory = PCI / address
    Path("/proc/self/comm").write_text("systemd-udevd")
    os.setgroups([] if way in ("read", "path") else [grp.getgrnam(GROUP).gr_gid])
    os.setgid(65534)
    os.setuid(65534)
    path = directory / ("resource0" if way == "map" else "config")
    if way == "path":
        path = Path("/dev", next((directory / "uio").iterdir()).name)
    file: Any = os.open(path, {"read": os.O_RDONLY, "path": os.O_PATH}.get(way, os.O_RDWR))
    kept = file
    if way in ("map", "io_uring"):
        kept = mmap.mmap(file, 4096) if way == "map" else keep_in_a_ring(file)
        os.close(file)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)  # /proc/PID is root's then
    return kept


@contextlib.contextmanager
def held(address: str, *ways: str) -> Iterator[list[Beside]]:
    """Members that hold the card's files, each in one of the ways of `hold`."""
    with contextlib.ExitStack() as stack:
        processes = []
        for way in ways:

            def program(way: str = way) -> None:
                kept = hold(address, way)
                print("holds", flush=True)
                while kept is not program:
                    time.sleep(1000)

            process = stack.enter_context(Beside(program, "holder"))
            stack.callback(process.send_signal, signal.SIGKILL)
            assert process.stdout.readline() == "holds\n", process.stderr.read()
            processes.append(process)
        yield processes


def test_undo_takes_it_from_those_who_have_it_open(card: str, cards: Cards) -> None:
    """A member keeps a file open, another one a mapping: both are named, and with --force killed.

    Those who may only read are neither in the way nor killed: anybody can open config for reading, and any file by
    O_PATH, and send that to processes of others.
    """
    address = cards(EDU)[1]
    before = owners(address)
    setup(address, "--group", GROUP)
    with held(address, "map", "open", "read", "path") as (maps, opens, *others):
        done = pyuio_command("setup", address, "--undo")
        assert done.returncode == 1
        assert "is root's alone" not in done.stdout
        assert f"process {maps.pid} (systemd-udevd) has /sys/" in done.stderr
        assert "/resource0" in done.stderr
        assert f"process {opens.pid} (systemd-udevd) has /sys/" in done.stderr
        assert not any(f"process {other.pid} " in done.stderr for other in others)
        assert f"pyuio setup {address} --undo --force" in done.stderr
        # Nobody else can open the card any more.
        assert {name: of for name, of in owners(address).items() if name != "uio"} == before
        assert owners(address)["uio"] == (0, "crw-------")
        assert f"{address} is root's alone again" in setup(address, "--undo", "--force")
        assert [process.wait(10) for process in (maps, opens)] == [-9, -9]
        assert [process.poll() for process in others] == [None, None]
    assert bound_driver(address) is None
    assert attribute(address, "driver_override") == "(null)"
    assert "nothing to undo" in setup(address, "--undo")


@pytest.mark.long
def test_what_an_io_uring_keeps_is_named(card: str, cards: Cards) -> None:
    """Before Linux 6.7 the kernel tells only the file's name. So the process is not killed."""
    address = cards(EDU)[1]
    setup(address, "--group", GROUP)
    with held(address, "io_uring") as (keeper,):
        for force in ([], ["--force"]):
            done = pyuio_command("setup", address, "--undo", *force)
            assert done.returncode == 1
            assert "is root's alone" not in done.stdout
            assert re.search(f"process {keeper.pid} .* has .*config, kept by an io_uring, which may be", done.stderr)
        assert keeper.poll() is None
    assert f"{address} is root's alone again" in setup(address, "--undo")


@pytest.mark.long
def test_rules_that_cannot_be_written(card: str, cards: Cards) -> None:
    address = cards(EDU)[-1]
    with contextlib.ExitStack() as stack:
        run("mount", "-t", "tmpfs", "-o", "ro", "none", str(RULES))
        stack.callback(run, "umount", str(RULES))
        assert "Read-only file system" in setup_fails(address, "--group", GROUP)
    assert bound_driver(address) is None
    assert [path.name for path in RULES.glob("*pyuio*")] == [f"70-pyuio-{card}.rules"]


@pytest.mark.long
def test_another_rule_takes_it_back(card: str) -> None:
    other = RULES / "99-other.rules"
    other.write_text(
        f'SUBSYSTEM=="pci", KERNEL=="{card}", RUN+="/bin/chgrp root /sys/bus/pci/devices/{card}/resource0"\n'
    )
    try:
        said = setup_fails(card, "--group", GROUP)
        assert f"did not get /sys/bus/pci/devices/{card}/resource0, which is -rw-rw---- of group 0" in said
    finally:
        other.unlink()
    setup(card, "--group", GROUP)
    assert owners(card)["resource0"] == (grp.getgrnam(GROUP).gr_gid, "-rw-rw----")


@pytest.mark.long
def test_what_one_event_fails_to_do_the_next_does(card: str) -> None:
    other, file = RULES / "99-other.rules", PCI / card / "resource0"
    once = f"/bin/sh -c '/bin/chgrp root {file} && /bin/rm {other}'"
    other.write_text(f'SUBSYSTEM=="pci", KERNEL=="{card}", RUN+="{once}"\n')
    try:
        setup(card, "--group", GROUP)
        assert not other.exists(), "the first event failed"
    finally:
        other.unlink(missing_ok=True)
    assert owners(card)["resource0"] == (grp.getgrnam(GROUP).gr_gid, "-rw-rw----")


@pytest.mark.long
def test_what_is_in_the_way(card: str, cards: Cards) -> None:
    address = cards(EDU)[-1]
    assert "there is no device" in setup_fails("00:1e.7")
    bridge = next(str(one.address) for one in pyuio.devices() if one.class_code == 0x060400)
    assert "it is a bridge" in setup_fails(bridge, "--group", GROUP)
    wanted = Permission.of(address, GROUP)
    assert f"writing {RULES}" in as_user(STRANGER, lambda: refusal(wanted.write))
