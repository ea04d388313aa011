# SPDX-License-Identifier: MIT
"""VFIO by the device files of iommufd. Debian's kernels have none: make test-iommufd builds one that has."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.claim import binding, group_users, holders
from pyuio.kernel import vfio
from pyuio.kernel.drivers import VFIO_PCI, bound_driver
from pyuio.kernel.iommufd import IOMMU, device_node
from pyuio.kernel.memory_use import locked_size, pinned_size
from pyuio.kernel.sysfs import PCI_DEVICES
from tests.guest.support import PATIENCE, Beside, Cards, keep_bound, keep_in_a_ring, let_go, result_of_a_fork

NOBODY = 65534
ONE_GROUP = "8086:2922", "8086:2930"  # functions of QEMU's ICH9: AHCI, SMBus


def node_of(address: str) -> Path:
    node = device_node(PCI_DEVICES / address)
    assert node is not None, "conftest.py leaves this file out where the kernel has no iommufd"
    return node


def group_path(address: str) -> Path:
    number = vfio.group_of(PCI_DEVICES / address)
    assert number is not None
    return vfio.group_path(number)


def path_of(device: pyuio.Device) -> Path:
    """Return the file by which a device was opened."""
    backend: Any = device._backend
    path = backend._group.path
    assert isinstance(path, Path)
    return path


@contextlib.contextmanager
def given_to_nobody(*paths: Path) -> Iterator[None]:
    """Let the user nobody open files that are root's before and afterwards."""
    for path in paths:
        os.chown(path, NOBODY, NOBODY)
    try:
        yield
    finally:
        for path in paths:
            os.chown(path, 0, 0)


def as_nobody(what: Callable[[], object]) -> Any:
    """Call a function in a fork, as the user nobody, and return its result."""

    def program() -> object:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return what()

    return result_of_a_fork(program)


@pytest.fixture
def bound(edu: str) -> str:
    keep_bound(edu, VFIO_PCI)
    node_of(edu)
    return edu


def drive(address: str) -> str:
    """Use a card, and return the file by which it was opened."""
    with Edu.open(address) as card:
        card.to_device(b"by which way")
        assert card.from_device(12) == b"by which way"
        return str(path_of(card.device))


def test_root_goes_by_the_device_file(bound: str) -> None:
    before = locked_size()
    with Edu.open(bound) as card:
        assert path_of(card.device) == node_of(bound)
        with card.device.dma.alloc(4 << 20):
            assert (locked_size(), pinned_size() >= 4 << 20) == (before, True)
    assert pinned_size() == 0


def test_a_user_goes_by_what_is_his(bound: str) -> None:
    node, group = node_of(bound), group_path(bound)
    with given_to_nobody(node, IOMMU, group):
        assert as_nobody(lambda: drive(bound)) == str(node)
    for paths in ([group], [group, node], [group, IOMMU]):
        with given_to_nobody(*paths):
            assert as_nobody(lambda: drive(bound)) == str(group)
    with given_to_nobody(node, IOMMU):
        assert as_nobody(lambda: drive(bound)) == str(node)

        def refused() -> str:
            with pytest.raises(pyuio.DeviceBusyError) as caught:
                pyuio.open(bound)
            return str(caught.value)

        with pyuio.open(bound):
            assert f"fuser -v {group} {node}" in as_nobody(refused)


def test_what_the_iommu_keeps_is_given_to_nobody(bound: str) -> None:
    """The reserved ranges, as the kernel tells them in sysfs, are missing; and what is given can be used."""
    reserved = [
        line.split() for line in (PCI_DEVICES / bound / "iommu_group/reserved_regions").read_text().splitlines()
    ]
    with pyuio.open(bound) as device:
        source: Any = device.dma._source
        ranges = source._space._container.ranges
        assert ranges
        for first, last in ((int(first, 16), int(last, 16)) for first, last, _kind in reserved):
            assert all(last < begin or first > end for begin, end in ranges), (first, last, ranges)
    assert reserved


def test_the_two_ways_exclude_each_other(bound: str) -> None:
    with pyuio.open(bound):
        with pytest.raises(pyuio.DeviceBusyError):
            vfio.Group(int(group_path(bound).name))
        assert "has its IOMMU group" in result_of_a_fork(lambda: refusal(bound))
    group = vfio.Group(int(group_path(bound).name))
    with pytest.raises(pyuio.DeviceBusyError, match=f"process {os.getpid()} "):
        pyuio.open(bound)
    group.close()
    pyuio.open(bound).close()


def refusal(address: str) -> str:
    with pytest.raises(pyuio.DeviceBusyError) as caught:
        pyuio.open(address)
    return str(caught.value)


def test_functions_of_a_group_share_it(cards: Cards) -> None:
    addresses = [cards(ids)[0] for ids in ONE_GROUP]
    with contextlib.ExitStack() as stack:
        for address in addresses:
            stack.callback(binding.bind(address, VFIO_PCI).undo)
            node_of(address)
        assert len({group_path(address) for address in addresses}) == 1
        one, other = (stack.enter_context(pyuio.open(address)) for address in addresses)
        assert path_of(one) != path_of(other)
        first, second = (device.dma.alloc(4 << 20) for device in (one, other))
        assert first.address + first.size <= second.address or second.address + second.size <= first.address
        one.close()
        assert other.dma.owns(other.dma.alloc(4 << 20))
        # Another process can have neither of them.
        for address in addresses:
            assert f"process {os.getpid()} " in result_of_a_fork(lambda address=address: refusal(address))  # type: ignore[misc]
    assert VFIO_PCI not in map(bound_driver, addresses)


def test_who_only_opens_the_device_file(bound: str) -> None:
    """The kernel waits for him, too, and hands the function out to others meanwhile."""
    node = node_of(bound)

    def hold() -> None:
        os.setuid(NOBODY)
        kept = os.open(node, os.O_RDWR)
        print("begun", kept, flush=True)
        signal.pause()

    with given_to_nobody(node), Beside(hold, "holder") as holder:
        assert holder.stdout.readline().startswith("begun"), holder.stderr.read()
        pyuio.open(bound).close()
        for use in (lambda: binding.unbind(bound), lambda: pyuio.open(bound, bind="uio_pci_generic")):
            with pytest.raises(
                pyuio.DeviceBusyError, match=f"process {holder.pid} .* has its device file, {node}, open"
            ):
                use()
        assert bound_driver(bound) == VFIO_PCI
        (found,) = holders.holders(PCI_DEVICES / bound)
        assert (found.process, found.files, found.certain) == (holder.pid, (str(node),), True)
        killed, left = holders.end(PCI_DEVICES / bound)
        assert ([one.process for one in killed], left) == ([holder.pid], [])
        assert holder.wait(PATIENCE) == -signal.SIGKILL
    let_go()


@pytest.mark.parametrize("way", ["socket", "io_uring"])
def test_a_device_file_that_no_process_has(bound: str, way: str) -> None:
    """The kernel waits for one that is on its way in a socket, or that an io_uring keeps, too."""
    node = node_of(bound)

    def hold() -> None:
        os.setuid(NOBODY)
        kept = os.open(node, os.O_RDWR)
        if way == "socket":
            ends = socket.socketpair()
            socket.send_fds(ends[0], [b"\0"], [kept])
        else:
            keep_in_a_ring(kept)
        os.close(kept)
        print("begun", flush=True)
        signal.pause()

    with given_to_nobody(node), Beside(hold, "holder") as holder:
        assert holder.stdout.readline() == "begun\n", holder.stderr.read()
        where = f"in a UNIX socket, or in an io_uring, and one may be its device file, {node}"
        for use in (lambda: binding.unbind(bound), lambda: pyuio.open(bound, bind="uio_pci_generic")):
            with pytest.raises(pyuio.DeviceBusyError, match=f"process {holder.pid} .* {where}"):
                use()
        assert bound_driver(bound) == VFIO_PCI
        assert stat.S_IMODE(node.stat().st_mode) == 0o600, "it is as it was"
        killed, (found,) = holders.end(PCI_DEVICES / bound)
        assert (killed, found.process, found.certain) == ([], holder.pid, False), "it may be a file of something else"
        holder.send_signal(signal.SIGKILL)
        holder.wait(PATIENCE)
    assert binding.unbind(bound).driver is None
    let_go()


def test_nobody_opens_the_device_file_while_it_is_taken(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens it just after pyuio looked would make the kernel wait."""
    node, look = node_of(bound), group_users.who_has_device_file

    def may_open() -> bool:
        try:
            os.close(os.open(node, os.O_RDWR))
        except PermissionError:
            return False
        return True

    tries = []

    def look_and_try(*arguments: Any, **more: Any) -> str | None:
        found = look(*arguments, **more)
        tries.append(as_nobody(may_open))
        return found

    os.chown(node, NOBODY, NOBODY)
    monkeypatch.setattr(group_users, "who_has_device_file", look_and_try)
    binding.unbind(bound)
    assert tries == [True, False]  # at the look before anything is done, and at the last one
    let_go()
