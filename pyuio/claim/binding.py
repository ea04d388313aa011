# SPDX-License-Identifier: MIT
"""Binding a kernel driver to a PCI function, and giving the function back to the driver it had.

pyuio binds by ``driver_override`` and ``drivers_probe``, which affect one function only. An id written to ``new_id``
would take every card with that id (Documentation/ABI/testing/sysfs-bus-pci). pyuio also records the former driver for
other processes: `unbind` gives the function back even if the process that bound it was killed.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from pyuio.claim import binding_record, group_users
from pyuio.claim.binding_record import BindingRecord
from pyuio.errors import BindingError, DeviceBusyError, DeviceRemovedError, KernelFileError
from pyuio.kernel import trusted_file, vfio
from pyuio.kernel.drivers import UIO_PCI_GENERIC, VFIO_PCI, bound_driver, is_for_user_space, load_driver
from pyuio.kernel.iommufd import device_node
from pyuio.kernel.sysfs import PCI_DEVICES, PCI_DRIVERS, read_optional, read_text, translated, write_text
from pyuio.kernel.trusted_file import boot_id
from pyuio.pci.address import ids_of
from pyuio.pci.assigned_interrupt import message_interrupts
from pyuio.process.signals import postponed_signals

_LOCK_SECONDS = 10.0
_VFIO_PATIENCE = 1.0  # seconds until a file that was closed a moment ago, while another thread used it, is released

_log = logging.getLogger("pyuio.binding")


def bind_command(address: str, driver: str = UIO_PCI_GENERIC) -> str:
    """Return the shell commands, on one line, that bind `driver` to a PCI function as root."""
    device = PCI_DEVICES / address
    release = f" && echo {address} > {device}/driver/unbind" if bound_driver(address) else ""
    override = f"modprobe {driver} && echo {driver} > {device}/driver_override"
    return f"{override}{release} && echo {address} > /sys/bus/pci/drivers_probe"


def _write(address: str, target: Path, text: str) -> None:
    try:
        write_text(target, text)
    except FileNotFoundError as error:
        raise DeviceRemovedError(errno.ENODEV, f"writing {target}: there is no device {address}") from error
    except OSError as error:
        raise translated(error, f"writing {text.strip()!r} to {target}", BindingError) from error


@contextmanager
def _binding_lock(address: str) -> Iterator[None]:
    """Keep root's other threads and processes of pyuio from binding or unbinding a function in a ``with`` block."""
    if not (PCI_DEVICES / address).exists():
        raise DeviceRemovedError(errno.ENODEV, f"there is no device {address}")
    if os.geteuid() != 0:  # the kernel refuses what would follow
        yield
        return
    try:
        file = trusted_file.open_lock(address)
    except OSError as error:
        _log.warning("%s: another process may bind or unbind it at the same time: %s", address, error)
        yield
        return
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    path = trusted_file.lock_path(address)
                    who = f"another process is binding or unbinding it (fuser {path} shows which)"
                    raise DeviceBusyError(errno.EBUSY, f"{address}: {who} and did not finish in time") from error
            time.sleep(0.01)
        yield
    finally:
        os.close(file)


@contextmanager
def _closed_to_others(node: Path) -> Iterator[None]:
    """Keep all but root from opening a device file in a ``with`` block, which may be its end."""
    file = os.open(node, os.O_PATH | os.O_CLOEXEC)  # this, and not another one that gets its name
    try:
        mode, place = stat.S_IMODE(os.fstat(file).st_mode), f"/proc/self/fd/{file}"
        os.chmod(place, 0)  # noqa: PTH101
        try:
            yield
        finally:
            os.chmod(place, mode)  # noqa: PTH101
    finally:
        os.close(file)


@contextmanager
def _free_of_vfio(address: str, patience: float = 0, *, only_look: bool = False) -> Iterator[None]:
    """Keep everybody from opening a function through VFIO in a ``with`` block, which takes it from ``vfio-pci``.

    `pyuio.kernel.vfio.group_to_try` says what would happen if a program had it open. Not kept out is a program of root
    that opens the function's device file (`pyuio.kernel.iommufd`) during the block. It cannot bind that, and a driver
    of pyuio's closes it at once then.

    Args:
        address: of the function. Nothing happens if ``vfio-pci`` does not have it.
        patience: seconds to wait for a program that is about to let it go.
        only_look: do not keep anybody from opening the device file.

    Raises:
        DeviceBusyError: a program has it open.
    """
    function = PCI_DEVICES / address
    with ExitStack() as stack:
        deadline = time.monotonic() + patience
        while (number := vfio.group_to_try(function)) is not None:
            try:
                stack.callback(vfio.Group(number).close)
                break
            except DeviceRemovedError:
                break
            except DeviceBusyError as error:
                # A group that this process has open, for another function of it, nobody else can open.
                if group_users.are_in_this_process(number) and read_optional(function / "enable") == "0":
                    break
                if time.monotonic() >= deadline:
                    raise group_users.busy(number, address) from error
            time.sleep(0.01)
        if (node := device_node(function)) is not None:
            with suppress(FileNotFoundError):  # it goes at this moment
                status = node.stat()
                if os.geteuid() == 0 and not only_look:
                    stack.enter_context(_closed_to_others(node))
                others_may = bool(status.st_uid or status.st_mode & 0o066)
                if who := group_users.who_has_device_file(node, others_may=others_may):
                    raise DeviceBusyError(errno.EBUSY, f"{address} is in use through VFIO: {who}; end that first")
        yield


def refuse_held(address: str) -> None:
    """Raise DeviceBusyError, which names the holder, if a program has a function open through VFIO.

    Call it before anything that may wait for the function's lock: see `pyuio.kernel.vfio.group_to_try`.

    Raises:
        PermissionDeniedError: this user may not open the function's group, and cannot find out.
    """
    with _free_of_vfio(address, only_look=True):
        pass


def load(driver: str) -> None:
    """Load the module of a kernel driver, unless it is loaded.

    The kernel offers a new driver to each device, and takes the device's lock for that (__driver_attach in
    ``drivers/base/dd.c``, since Linux 6.19 before it looks whether the driver matches). So this refuses while somebody
    is taking any function from a program by VFIO.

    Raises:
        DeviceBusyError: somebody is.
        KernelSupportError, PermissionDeniedError: as `pyuio.kernel.drivers.load_driver`.
    """
    if not (PCI_DRIVERS / driver).exists():
        _refuse_while_taking(f"loading {driver}")
    load_driver(driver)


def _refuse_while_taking(doing: str) -> None:
    """Raise DeviceBusyError if somebody is taking any function from a program by VFIO: `doing` would wait with it."""
    for function in PCI_DEVICES.iterdir():
        if taking := group_users.taking(function):
            reason = f"{doing} would wait with it: end that program first"
            raise DeviceBusyError(errno.EBUSY, f"{function.name}: {taking}; {reason}")


class Binding(NamedTuple):
    """A driver that pyuio bound to a PCI function, and what it needs to undo that.

    Attributes:
        address: of the function.
        driver: the kernel driver that was bound.
        previous: the driver that had the function before, or None.
        previous_override: ``driver_override`` before, "" for none.
        earlier: the record of the function that existed before, or None.
    """

    address: str
    driver: str
    previous: str | None
    previous_override: str
    earlier: BindingRecord | None = None

    def undo(self) -> None:
        """Release the function and give it back to its previous driver, if it had one.

        If the function is gone, only its record changes.

        Raises:
            BindingError: the previous driver did not take the function back.
            DeviceBusyError: another process is binding or unbinding the function, and did not finish in time; or has it
                open through VFIO.
        """
        if self.driver == self.previous:
            return
        with postponed_signals():
            try:
                with _binding_lock(self.address):
                    self.undo_locked()
            except DeviceRemovedError:
                _remember(self.address, self.earlier)

    def undo_locked(self) -> None:
        """Do what `undo` does, for a caller that holds `_binding_lock`."""
        with _free_of_vfio(self.address, _VFIO_PATIENCE):
            self.undo_free()

    def undo_free(self) -> None:
        """Do what `undo_locked` does, for a caller that also keeps VFIO from opening the function."""
        self._undo()
        _remember(self.address, self.earlier)

    def _undo(self) -> None:
        device = PCI_DEVICES / self.address
        _put_back_interrupts(device)
        # An empty line clears the override.
        _write(self.address, device / "driver_override", self.previous_override + "\n")
        if bound_driver(self.address) == self.driver != self.previous:
            _write(self.address, device / "driver/unbind", self.address)
        if self.previous is not None and bound_driver(self.address) != self.previous:
            if not (PCI_DRIVERS / self.previous).exists():
                reason = (
                    f"{self.address} cannot be given back: its driver {self.previous} is not loaded any more; load its "
                    f"module, which then takes the device by itself"
                )
                raise BindingError(errno.ENODEV, reason)
            _write(self.address, PCI_DRIVERS / self.previous / "bind", self.address)
        _log.info("%s: released from %s, with %s again", self.address, self.driver, self.previous or "no driver")


def _put_back_interrupts(device: Path) -> None:
    """Restore what killed processes changed of a function's interrupts, before the kernel frees the interrupts."""
    numbers = {read_optional(device / "irq") or "0"}
    with suppress(OSError, KernelFileError):  # the function may be unplugged at this moment
        numbers.update(map(str, message_interrupts(device)))
    for number in numbers & {name.partition(".")[0] for name in _entry_names(trusted_file.RUN / "interrupts")}:
        # While the interpreter ends it can import nothing. Then the next process restores the settings.
        with suppress(ImportError):
            from pyuio.kernel import irq_record

            irq_record.put_back(int(number))


def _entry_names(directory: Path) -> set[str]:
    try:
        return {entry.name for entry in directory.iterdir()}
    except OSError:
        return set()


def _remember(address: str, record: BindingRecord | None) -> None:
    """Save the record of a function for other processes, or remove it; log a failure."""
    try:
        if record is None:
            binding_record.forget(address)
        else:
            binding_record.save(record)
    except OSError as error:
        _log.warning("%s: cannot record which driver it had: %s", address, error)


def bind(address: str, driver: str = UIO_PCI_GENERIC) -> Binding:
    """Bind a kernel driver to a PCI function, taking the function from any other driver, and return how to undo that.

    If the driver has the function already, nothing changes and undoing does nothing. If several processes bind the
    same function at once, one of them binds it and the others find it bound.

    Args:
        address: in the kernel's form, ``0000:00:04.0``.
        driver: the kernel driver; its module is loaded if necessary.

    Raises:
        BindingError: the kernel refused; the previous driver has the function again.
        DeviceBusyError: another process is binding or unbinding the function, and did not finish in time; or has it
            open through VFIO.
        DeviceRemovedError: there is no such function.
        KernelSupportError: this kernel does not have the driver.
        PermissionDeniedError: only root may bind.
    """
    load(driver)
    with postponed_signals(), _binding_lock(address):
        if bound_driver(address) == driver:
            return Binding(address, driver, driver, "")
        with _free_of_vfio(address):
            return _bind(address, driver)


def _bind(address: str, driver: str) -> Binding:
    device = PCI_DEVICES / address
    try:
        text = read_text(device / "driver_override")
        override = "" if text == "(null)" else text
        now = previous = bound_driver(address)
        earlier = binding_record.load(address)
        ids, boot = ids_of(address), boot_id()
    except FileNotFoundError as error:
        raise DeviceRemovedError(errno.ENODEV, f"binding {driver}: there is no device {address}") from error
    if earlier is not None and now in (None, earlier.previous):
        # The process that bound it was killed half way. The state before that is the one to return to.
        previous, override, earlier = earlier.previous, earlier.previous_override, None
    record = BindingRecord(address, ids, driver, previous, override, boot)
    if earlier is not None and earlier.driver == now:
        # pyuio bound the present driver, too. The driver that had the function before that is the one to return to.
        record = earlier._replace(driver=driver)
    else:
        earlier = None
    binding = Binding(address, driver, previous, override, earlier)
    # Write the present value first, so that a user who may not write it gets the error before anything is recorded.
    _write(address, device / "driver_override", ("" if text == "(null)" else text) + "\n")
    try:
        # Record it before the first change, so that `unbind` can undo the binding if this process is killed in between.
        _remember(address, record)
        _write(address, device / "driver_override", driver)
        if now is not None:
            _write(address, device / "driver/unbind", address)
        _write(address, PCI_DRIVERS.parent / "drivers_probe", address)
        if bound_driver(address) != driver:
            raise BindingError(errno.EINVAL, f"{driver} did not take {address}; the kernel log (dmesg) says why")
    except BaseException:
        binding.undo_free()
        raise
    _log.info("%s: bound to %s, taken from %s", address, driver, previous or "no driver")
    return binding


def clear_override(address: str) -> None:
    """Let any kernel driver take a function again that a udev rule of pyuio's reserved for a driver of user space.

    Raises:
        DeviceRemovedError: there is no such function.
        PermissionDeniedError: only root may.
    """
    override = PCI_DEVICES / address / "driver_override"
    with postponed_signals(), _binding_lock(address), _free_of_vfio(address):
        if read_optional(override) in (UIO_PCI_GENERIC, VFIO_PCI):
            _write(address, override, "\n")


class Unbinding(NamedTuple):
    """What `unbind` did.

    Attributes:
        released: the driver that the function was taken from, or None.
        driver: the kernel driver that has the function now, or None.
        given_back: whether `unbind` gave the function to that driver.
        known: whether pyuio knew which driver the function had before it was bound.
    """

    released: str | None
    driver: str | None
    given_back: bool = False
    known: bool = True


def unbind(address: str) -> Unbinding:
    """Give a function back to the kernel driver that it had before pyuio, in this process or another, bound one.

    If something other than pyuio bound the function, its former driver is not known, and it is left without a driver.
    If an ordinary kernel driver has the function, or no driver has it, nothing changes.

    Args:
        address: in the kernel's form, ``0000:00:04.0``.

    Raises:
        BindingError: the kernel refused, or the previous driver did not take the function back.
        DeviceBusyError: another process is binding or unbinding the function, and did not finish in time; or has it
            open through VFIO.
        DeviceRemovedError: there is no such function.
        PermissionDeniedError: only root may unbind.
    """
    refuse_held(address)
    with postponed_signals(), _binding_lock(address):
        driver = bound_driver(address)
        record = binding_record.load(address)
        if record is not None and driver in (None, record.driver, record.previous):
            Binding(address, record.driver, record.previous, record.previous_override).undo_locked()
            now = bound_driver(address)
            return Unbinding(None if driver == now else driver, now, given_back=now not in (None, driver))
        _remember(address, None)  # something else has bound it since then
        if driver is None or not is_for_user_space(address):
            return Unbinding(None, driver)
        Binding(address, driver, None, "").undo_locked()
        return Unbinding(driver, bound_driver(address), known=False)


def remove(address: str) -> None:
    """Have the kernel forget a function, as if the card were pulled out, until `rescan` finds it again.

    Its driver loses it, and it comes back as a new one, with the driver that the kernel chooses.

    Args:
        address: in the kernel's form, ``0000:00:04.0``.

    Raises:
        BindingError: the kernel refused.
        DeviceBusyError: another process is binding or unbinding the function, and did not finish in time; or somebody
            has it, or a function that would go with it, open through VFIO: the kernel would wait for that program.
        DeviceRemovedError: there is no such function.
        PermissionDeniedError: only root may.
    """
    device = PCI_DEVICES / address
    for along in (*device.glob("virtfn*"), *device.resolve().glob("**/????:??:??.?")):
        refuse_held(along.resolve().name)
    refuse_held(address)
    _refuse_while_taking(f"removing {address}")  # the kernel removes and adds functions under one lock
    with postponed_signals(), _binding_lock(address), _free_of_vfio(address):
        _put_back_interrupts(device)
        _write(address, device / "remove", "1")
        _remember(address, None)


def rescan() -> None:
    """Have the kernel look for functions on all buses that it does not know yet (``/sys/bus/pci/rescan``).

    Raises:
        BindingError: the kernel refused.
        DeviceBusyError: the kernel would wait for a program that has a function open through VFIO.
        PermissionDeniedError: only root may.
    """
    _refuse_while_taking("looking for functions")
    path = PCI_DEVICES.parent / "rescan"
    try:
        write_text(path, "1")
    except OSError as error:
        raise translated(error, f"writing {path}", BindingError) from error
