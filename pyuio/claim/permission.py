# SPDX-License-Identifier: MIT
"""Permission for the members of a group to drive one device without root: a udev rule, and real-time limits.

Only root may bind, and here udev does it each time the function appears: a user who may write ``drivers_probe`` or a
driver's ``bind`` reaches other functions, too. What the group then gets depends on the kernel driver.

By ``vfio-pci`` it is ``/dev/vfio/N``, the node of the function's IOMMU group, and nothing else. Whoever may open it
needs no capability, and reaches only the functions of that group that ``vfio-pci`` has, and only his own memory. The
node has no parent in udev, so the rule works at the events of the function. Where the kernel has iommufd, it is also
the function's device file, ``/dev/vfio/devices/vfioN``, and ``/dev/iommu``, by which a user can do no more than lock
memory of his own. That has one group only: if it is another's, the users go by the IOMMU group.

By ``uio_pci_generic`` it is ``config``, ``resourceN`` and ``/dev/uioN``. To write or map these, a process needs no
capability; the file mode alone decides (``drivers/pci/pci-sysfs.c``: pci_write_config, pci_mmap_resource; lockdown
forbids both to everybody).

A device that is not a PCI function has nothing but its UIO node, whose name the rule goes by.

Sources: udev(7), limits.conf(5), systemd.exec(5).
"""

from __future__ import annotations

import abc
import contextlib
import errno
import grp
import logging
import os
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pyuio.claim.holders import files_of
from pyuio.errors import PyuioError
from pyuio.kernel import iommufd, trusted_file, vfio
from pyuio.kernel.drivers import IGB_UIO, UIO_PCI_GENERIC, VFIO_PCI
from pyuio.kernel.programs import SYSTEM_PATH, environment, find_program
from pyuio.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS, translated
from pyuio.kernel.uio import UioNode
from pyuio.pci.address import ids_of, parse_address

RULES = Path("/etc/udev/rules.d")
LIMITS = Path("/etc/security/limits.d")
SETTLE_SECONDS = 30
# An event settles also if udev's worker fails in it (systemd, src/udev/udev-worker.c). One of 60 events of udev 257
# left a node as it was, on a busy machine.
_ATTEMPTS = 2
# The default priority of pyuio.realtime.
_REALTIME_PRIORITY = 89
_GROUP = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
# A rule matches by a pattern, in which other characters have a meaning, and has the name in that of its file.
_NODE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .@:+-]{0,100}")

DRIVERS = (UIO_PCI_GENERIC, VFIO_PCI)
"""The kernel drivers by which a group can get a card."""

_log = logging.getLogger("pyuio.permission")


class SetupError(PyuioError, OSError):
    """Permission to drive a card cannot be given or taken back: a file, a group or udev is in the way."""


def checked_group(name: str) -> str:
    """Return the name of a group that may get a card. ValueError: it is "root", or no group can have this name."""
    if not _GROUP.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be a group: up to 31 of a-z, 0-9, _ and -, a letter or _ first (groupadd(8))"
        )
    if name == "root":
        raise ValueError("the group root needs no permission; name the group of those who are to drive the card")
    return name


class _Permission(abc.ABC):
    """What the permissions for the two kinds of devices share.

    Attributes:
        group: the group's name, checked.
    """

    group: str

    @property
    @abc.abstractmethod
    def key(self) -> str:
        """What the device is called in the name of the rule's file, and in `undo`: its address, or its node's name."""

    @abc.abstractmethod
    def rule(self) -> str:
        """Return the udev rule."""

    @abc.abstractmethod
    def directories(self) -> list[Path]:
        """Return the directories in sysfs of what udev has to look at anew."""

    def files(self) -> list[Path]:
        """Return the files that the group gets, of those that exist."""
        return _files(self.key)

    @property
    def rule_path(self) -> Path:
        """The path of the udev rule."""
        return rule_path(self.key)

    @property
    def limits_path(self) -> Path:
        """The path of the group's limits: one file for all its cards."""
        return LIMITS / f"pyuio-{self.group}.conf"

    def limits(self) -> str:
        """Return the text for limits.d, which permits SCHED_FIFO and locking memory."""
        return (
            f"# By pyuio setup: what pyuio.realtime(), and memory for DMA by VFIO need, from the next login on.\n"
            f"@{self.group} - rtprio {_REALTIME_PRIORITY}\n"
            f"@{self.group} - memlock unlimited\n"
        )

    def unit(self) -> str:
        """Return the part of a systemd unit for a service that drives the card without root."""
        return (
            "[Service]\n"
            f"User=somebody\n"
            f"SupplementaryGroups={self.group}\n"
            f"LimitRTPRIO={_REALTIME_PRIORITY}\n"
            "# Memory for DMA by VFIO counts as locked memory. A service does not get the limits of a login.\n"
            f"LimitMEMLOCK=infinity\n"
            "NoNewPrivileges=yes\n"
        )

    def write(self) -> list[Path]:
        """Write the rule and the limits, and make the group if it does not exist; return the files that changed.

        Raises:
            PermissionDeniedError: this user may not.
            SetupError: the group could not be made, or a file could not be written.
        """
        _make_group(self.group)
        wanted = ((self.rule_path, self.rule()), (self.limits_path, self.limits()))
        written = [path for path, text in wanted if _write(path, text)]
        finish(self.key)  # an undo that did not come to its end
        return written

    def apply(self) -> None:
        """Let udev do now what it does when the card appears, and check that it did so.

        Raises:
            SetupError: the group does not have the files afterwards.
        """
        number = grp.getgrnam(self.group).gr_gid
        for _ in range(_ATTEMPTS):
            directories = self.directories()
            _reload_rules()
            # `udevadm settle` alone returns at once if udevd has not heard of the event yet.
            _run("udevadm", "trigger", "--settle", "--action=add", *map(str, directories))
            # This waits for the events of nodes that came meanwhile. Those of another device may take too long.
            with contextlib.suppress(SetupError):
                _run("udevadm", "settle", f"--timeout={SETTLE_SECONDS}")
            refused = {path: status for path in self.files() if not _is_given(status := path.stat(), number)}
            if not refused:
                break
            _log.warning("%s: udev did not apply %s", self.key, self.rule_path)
        for path, status in refused.items():
            reason = (
                f"the group {self.group} did not get {path}, which is {stat.filemode(status.st_mode)} of group "
                f"{status.st_gid}: udev did not apply {self.rule_path}; is it running? "
                f"(journalctl -u systemd-udevd, udevadm test {directories[0]})"
            )
            raise SetupError(errno.EPERM, reason)
        _log.info("%s: members of %s may drive it", self.key, self.group)


@dataclass(frozen=True)
class NodePermission(_Permission):
    """A group's permission to drive what has a UIO node of a certain name, and is not a PCI function.

    Attributes:
        name: of the node, as ``/sys/class/uio/uioN/name`` has it.
        group: the group's name, checked.
    """

    name: str
    group: str

    @classmethod
    def of(cls, name: str, group: str) -> NodePermission:
        """Return the permission for a node.

        Raises:
            ValueError: no group can have this name, or it is "root".
            SetupError: a rule cannot go by this name of a node.
        """
        if not _NODE_NAME.fullmatch(name) or parse_address(name) is not None:
            reason = f"a udev rule cannot go by the node's name {name!r}: letters, digits, spaces and _.@:+- only"
            raise SetupError(errno.EINVAL, f"{reason}; write a rule that goes by something else of the device")
        if (PCI_DRIVERS / name).exists() or name in (UIO_PCI_GENERIC, IGB_UIO):
            reason = f"{name!r} is what a driver calls the node of every PCI function that it has, now or later"
            raise SetupError(errno.EINVAL, f"{reason}, and a rule by it would give away all")
        nodes = UioNode.named(name)
        if len(nodes) > 1:
            names = ", ".join(node.name for node in nodes)
            raise SetupError(errno.EINVAL, f"{names} have the name {name!r}, and a rule by it would give away all")
        return cls(name, checked_group(group))

    @property
    def key(self) -> str:
        """The node's name."""
        return self.name

    def rule(self) -> str:
        """Return the udev rule, which gives the node to the group."""
        return (
            f"# By pyuio setup: members of the group {self.group} may drive what has the UIO node named {self.name}.\n"
            f"# To take it back: pyuio setup --undo '{self.name}'\n"
            f'SUBSYSTEM=="uio", ATTR{{name}}=="{self.name}", GROUP="{self.group}", MODE="0660"\n'
        )

    def directories(self) -> list[Path]:
        """Return the directories of the nodes in sysfs."""
        return [node.directory for node in UioNode.named(self.name)]


@dataclass(frozen=True)
class Permission(_Permission):
    """A group's permission to drive one function.

    Attributes:
        address: of the function, in the kernel's form.
        vendor, device: its ids, 4 hexadecimal digits each; the rule does not apply to another card in this slot.
        group: the group's name, checked.
        driver: the kernel driver by which the group drives it, one of `DRIVERS`.
    """

    address: str
    vendor: str
    device: str
    group: str
    driver: str = UIO_PCI_GENERIC

    @classmethod
    def of(cls, address: str, group: str, driver: str = UIO_PCI_GENERIC) -> Permission:
        """Return the permission for a present function.

        Args:
            address: of the function, in the kernel's form.
            group: the group's name.
            driver: one of `DRIVERS`.

        Raises:
            ValueError: no group can have this name, or it is "root"; or the driver is none of `DRIVERS`.
            OSError: the function is gone.
        """
        if driver not in DRIVERS:
            raise ValueError(f"a group gets a card by {' or '.join(DRIVERS)}, not by {driver}")
        vendor, device = ids_of(address).split(":")
        return cls(address, vendor, device, checked_group(group), driver)

    @property
    def key(self) -> str:
        """The function's address."""
        return self.address

    def directories(self) -> list[Path]:
        """Return the directories of the function and of its nodes in sysfs."""
        directory = PCI_DEVICES / self.address
        nodes = (node.directory for node in UioNode.of_device(directory))
        return [directory, *nodes, *sorted(directory.glob("vfio-dev/*"))]

    def rule(self) -> str:
        """Return the udev rule, which binds the function if no driver has it and gives its files to the group.

        The kernel tells "add" in device_add, and makes ``resourceN`` later, in pci_bus_add_device
        (``drivers/pci/bus.c``), after it has probed the drivers of functions that came before. Only then can a driver
        bind the function, of which the kernel tells "bind". So the files are given at either event: at "add" those of
        a function that was there before udev, and at "bind" those of one that has just come.
        """
        ids = f'{{vendor}}=="0x{self.vendor}"', f'{{device}}=="0x{self.device}"'
        function = f'SUBSYSTEM=="pci", KERNEL=="{self.address}", ATTR{ids[0]}, ATTR{ids[1]}'
        driver = self.driver
        bind = f"[ -e driver ] || {{ modprobe {driver}; echo {self.address} >/sys/bus/pci/drivers_probe; }}"
        if driver == VFIO_PCI:
            # The node exists, too, while vfio-pci has other functions of the IOMMU group only.
            give = (
                f"case $$(readlink driver) in */{driver}) number=$$(readlink iommu_group); "
                f"for node in {vfio.group_path('$${number##*/}')} {iommufd.IOMMU}; do [ -e $$node ] || continue; "
                f"chgrp {self.group} $$node; chmod 0660 $$node; done;; esac"
            )
        else:
            give = (
                f"for file in config resource[0-5]*; do [ -e $$file ] || continue; "
                f"chgrp {self.group} $$file; chmod g+rw $$file; done"
            )
        start = f"PATH={SYSTEM_PATH}; cd %S%p || exit"
        lines = [
            f"# By pyuio setup: members of the group {self.group} may drive {self.address}, and no other card.",
            f"# To take it back: pyuio setup --undo {self.address}",
            f'ACTION=="add", {function}, ATTR{{driver_override}}="{driver}", '
            f"RUN+=\"/bin/sh -c '{start}; {bind}; {give}'\"",
            f'ACTION=="bind", {function}, ENV{{PYUIO_GROUP}}="{self.group}", RUN+="/bin/sh -c \'{start}; {give}\'"',
        ]
        lines.append(
            f'SUBSYSTEM=="{"vfio-dev" if driver == VFIO_PCI else "uio"}", KERNELS=="{self.address}", '
            f'ATTRS{ids[0]}, ATTRS{ids[1]}, GROUP="{self.group}", MODE="0660"'
        )
        return "\n".join([*lines, ""])

    def files(self) -> list[Path]:
        """Return the files that the group gets of the present function."""
        if self.driver != VFIO_PCI:
            return super().files()
        function = PCI_DEVICES / self.address
        number, node = vfio.group_of(function), iommufd.device_node(function)
        group = [vfio.group_path(number)] if number is not None else []
        if node is None:
            return group
        return [*(path for path in group if path.exists()), node, iommufd.IOMMU]  # a kernel may have no groups

    def unit(self) -> str:
        """Return the part of a systemd unit for a service that drives the card without root."""
        if self.driver == VFIO_PCI:
            return f"{super().unit()}CapabilityBoundingSet=\n"
        return super().unit() + (
            "# Only for DMA, which needs physical addresses; SCHED_FIFO needs no capability with the limits above.\n"
            "AmbientCapabilities=CAP_SYS_ADMIN\n"
            "CapabilityBoundingSet=CAP_SYS_ADMIN\n"
        )


def rule_path(key: str) -> Path:
    """Return the path of a device's udev rule; its number runs it after udev's naming and before module loading.

    Args:
        key: the function's address, or the node's name.
    """
    return RULES / f"70-pyuio-{key}.rules"


def _is_given(status: os.stat_result, group: int) -> bool:
    """Return whether a file's status lets the members of a group read and write it."""
    return status.st_gid == group and status.st_mode & 0o060 == 0o060


def _files(key: str) -> list[Path]:
    """Return the files, of those that exist, that a permission gives to the group."""
    if parse_address(key) is not None:
        return files_of(PCI_DEVICES / key)
    return [node.path for node in UioNode.named(key) if node.path.exists()]


def group_of(rule: str) -> str | None:
    """Return the group to which the text of a rule gives a card, or None."""
    match = re.search(r'GROUP\}?="([^"]+)"', rule)
    return match[1] if match else None


def present(address: str) -> Permission | None:
    """Return the permission that a function's rule gives now; None if it has no rule, or one that is not pyuio's."""
    try:
        rule = rule_path(address).read_text()
    except FileNotFoundError:
        return None
    driver, group = re.search(r'driver_override\}="([^"]+)"', rule), group_of(rule)
    ids = re.search(r'\{vendor\}=="0x(\w+)", ATTR\{device\}=="0x(\w+)"', rule)
    return Permission(address, ids[1], ids[2], group, driver[1]) if driver and ids and group else None


def undo(key: str) -> list[Path]:
    """Withdraw a permission: remove the rule, and the limits if no other card needs them.

    The group stays, because pyuio does not decide who is in it. If the device is present, its files are root's again.
    Its driver does not change.

    Args:
        key: the function's address, or the node's name; the device need not be present any more.

    `finish` ends it, once nobody has the card open any more; until then it can be repeated.

    Returns:
        The files that were removed; [] if there was no permission, or it was withdrawn already.

    Raises:
        PermissionDeniedError: this user may not.
        SetupError: a file cannot be removed.
    """
    path = rule_path(key)
    try:
        group = group_of(path.read_text())
    except FileNotFoundError:
        return []
    files = set(_files(key)) - _nodes_of_others(key)
    removed = [path]
    try:
        path.replace(_withdrawn(key))
        others = {group_of(other.read_text()) for other in RULES.glob("70-pyuio-*.rules")}
        limits = LIMITS / f"pyuio-{group}.conf"
        if group not in others and limits.exists():
            limits.unlink()
            removed.append(limits)
        with contextlib.suppress(KeyError, FileNotFoundError):
            if group not in others and iommufd.IOMMU.group() == group:
                files.add(iommufd.IOMMU)
    except OSError as error:
        raise translated(error, f"removing {path} and what goes with it", SetupError) from error
    with contextlib.suppress(SetupError):  # udev may not be there to reload them
        _reload_rules()
        _run("udevadm", "settle", f"--timeout={SETTLE_SECONDS}")  # an event in progress gives the files by the old rule
    for path in files:
        with contextlib.suppress(FileNotFoundError):
            os.chown(path, 0, 0)
            path.chmod(0o644 if path.name == "config" else 0o600)
    _log.info("%s: only root may drive it again", key)
    return removed


def _nodes_of_others(key: str) -> set[Path]:
    """Return the node of a function's IOMMU group if users have it because of another function of the group, too."""
    number = vfio.group_of(PCI_DEVICES / key) if parse_address(key) is not None else None
    if number is None:
        return set()
    others = [present(one.address) for one in vfio.members(number) if one.address != key]
    return {vfio.group_path(number)} if any(other and other.driver == VFIO_PCI for other in others) else set()


def is_unfinished(key: str) -> bool:
    """Return whether `undo` has withdrawn a permission, and `finish` was not called yet."""
    return _withdrawn(key).exists()


def finish(key: str) -> None:
    """Forget a permission that `undo` has withdrawn. OSError: the kernel refused."""
    _withdrawn(key).unlink(missing_ok=True)


def _withdrawn(key: str) -> Path:
    """Return what a withdrawn rule is called: udev reads only names that end in ``.rules``."""
    return rule_path(key).with_suffix(".withdrawn")


def _make_group(name: str) -> None:
    try:
        grp.getgrnam(name)
    except KeyError:
        _run("groupadd", "--system", name)


def _write(path: Path, text: str) -> bool:
    """Write a file, whole or not at all, unless it has this text already; return whether it was written."""
    try:
        if path.exists() and path.read_text(errors="replace") == text:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        trusted_file.write_in_place(path, text)
    except OSError as error:
        raise translated(error, f"writing {path}", SetupError) from error
    return True


def _reload_rules() -> None:
    _run("udevadm", "control", "--reload")


def _run(*command: str) -> None:
    """Run an administrator's program. SetupError: it is not installed or it failed; the message has its output."""
    program = find_program(command[0])
    words = " ".join(command)
    if program is None:
        raise SetupError(errno.ENOENT, f"{words}: there is no {command[0]} on this machine; do this step by hand")
    try:
        done = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            text=True,
            timeout=2 * SETTLE_SECONDS,
            env=environment(),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(errno.ETIMEDOUT, f"{words}: not finished after {2 * SETTLE_SECONDS} s") from error
    if done.returncode:
        answer = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise SetupError(errno.EPERM, f"{words}: {answer}" + ("; run as root" if os.geteuid() else ""))
