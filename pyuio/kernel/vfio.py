# SPDX-License-Identifier: MIT
"""The kernel's VFIO interface: groups, containers and devices, by their ioctls.

VFIO hands a PCI function to a program that needs no privilege, because an IOMMU lets the function reach only the memory
that the program has given to it. Functions that the IOMMU cannot tell apart form a group, which one process opens as
a whole. A group gets its memory from a container. A function, once opened, is one file: BARs and configuration space
lie at offsets in it, and its interrupts arrive at eventfds.

The kernel takes a function back only when everything of it is closed: each descriptor, and each mapping of a BAR. What
unbinds the function waits that long, and cannot be killed meanwhile.

Sources: Documentation/driver-api/vfio.rst; ``include/uapi/linux/vfio.h``; ``drivers/vfio/``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pyuio.errors import DeviceBusyError, DeviceRemovedError, KernelSupportError
from pyuio.kernel import device_lock, interrupt_remapping, memory_use
from pyuio.kernel.drivers import VFIO_PCI
from pyuio.kernel.sysfs import link_name, read_optional, translated

CONTAINER = Path("/dev/vfio/vfio")
_GROUPS = Path("/dev/vfio")

# Numbers of include/uapi/linux/vfio.h. Its requests are _IO(';', 100 + n), which carry no size.
_GET_API_VERSION, _CHECK_EXTENSION, _SET_IOMMU = (ord(";") << 8 | 100 + n for n in range(3))
_GROUP_GET_STATUS, _GROUP_SET_CONTAINER, _GROUP_UNSET_CONTAINER, _GROUP_GET_DEVICE_FD = (
    ord(";") << 8 | 103 + n for n in range(4)
)
_DEVICE_GET_INFO, _DEVICE_GET_REGION_INFO, _DEVICE_GET_IRQ_INFO, _DEVICE_SET_IRQS, _DEVICE_RESET = (
    ord(";") << 8 | 107 + n for n in range(5)
)
_IOMMU_GET_INFO, _IOMMU_MAP_DMA, _IOMMU_UNMAP_DMA = (ord(";") << 8 | 112 + n for n in range(3))

_TYPE1V2 = 3  # VFIO_TYPE1v2_IOMMU
_VIABLE = 1 << 0  # VFIO_GROUP_FLAGS_VIABLE
_CAN_RESET = 1 << 0  # VFIO_DEVICE_FLAGS_RESET
_REGION_MAPPABLE = 1 << 2  # VFIO_REGION_INFO_FLAG_MMAP
_READ_AND_WRITE = 3  # VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE
_HAS_CAPABILITIES = 1 << 1  # VFIO_IOMMU_INFO_CAPS
_IOVA_RANGES = 1  # VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE

CONFIG_REGION = 7  # VFIO_PCI_CONFIG_REGION_INDEX; the BARs are 0 to 5
INTX, MSI, MSIX, ERROR, REQUEST = range(5)  # VFIO_PCI_*_IRQ_INDEX

_DATA_NONE, _DATA_EVENTFD = 1 << 0, 1 << 2  # VFIO_IRQ_SET_DATA_*
_TRIGGER = 1 << 5  # VFIO_IRQ_SET_ACTION_TRIGGER

_REGION = struct.Struct("=IIIIQQ")  # struct vfio_region_info
_IRQ = struct.Struct("=IIII")  # struct vfio_irq_info
_IRQ_SET = struct.Struct("=IIIII")  # struct vfio_irq_set, without its data
_IOMMU_INFO = struct.Struct("=IIQII")  # struct vfio_iommu_type1_info
_CAPABILITY = struct.Struct("=HHI")  # struct vfio_info_cap_header
_MAP = struct.Struct("=IIQQQ")  # struct vfio_iommu_type1_dma_map
_UNMAP = struct.Struct("=IIQQ")  # struct vfio_iommu_type1_dma_unmap


def group_of(function: Path) -> int | None:
    """Return the number of a function's IOMMU group; None if no IOMMU has it.

    Args:
        function: its directory in sysfs.
    """
    name = link_name(function / "iommu_group")
    return int(name) if name is not None and name.isdecimal() else None


def iommus() -> list[str]:
    """Return the names of this machine's IOMMUs that the kernel drives.

    A function gets its group at the start of the machine, or when a driver is first bound to it: so it is where a table
    of the firmware says which IOMMU has it, as with virtio-iommu (``drivers/pci/pci-driver.c``, pci_dma_configure).
    """
    with suppress(OSError):
        return sorted(entry.name for entry in Path("/sys/class/iommu").iterdir())
    return []


def group_path(number: int | str) -> Path:
    """Return the device file of an IOMMU group, which exists while a VFIO driver has a function of the group."""
    return _GROUPS / str(number)


def translating_type(function: Path) -> str | None:
    """Return the type of a function's IOMMU group if the IOMMU translates, so that physical addresses mean nothing.

    Source: Documentation/ABI/testing/sysfs-kernel-iommu_groups, ``type``.

    Args:
        function: its directory in sysfs.

    Returns:
        ``DMA``, ``DMA-FQ`` and the like; None if no IOMMU has the function, or if it passes addresses on as they are.
    """
    kind = read_optional(function / "iommu_group/type")
    return None if kind == "identity" else kind


class Member(NamedTuple):
    """A function of an IOMMU group.

    Attributes:
        address: ``0000:00:1f.2``.
        driver: the kernel driver that has it, or None.
    """

    address: str
    driver: str | None

    @property
    def is_handed_out(self) -> bool:
        """Whether a driver of VFIO's has it, of which some are for one card (``mlx5_vfio_pci``)."""
        return (self.driver or "").replace("_", "-").endswith(VFIO_PCI)

    @property
    def in_the_way(self) -> bool:
        """Whether its driver keeps the group from VFIO: all do but those that set driver_managed_dma.

        These are VFIO's own, pci-stub, and those of bridges.
        """
        return self.driver not in (None, "pci-stub", "pcieport", "shpchp") and not self.is_handed_out


def members(number: int) -> list[Member]:
    """Return the functions of an IOMMU group, by address."""
    directory = Path("/sys/kernel/iommu_groups", str(number), "devices")
    with suppress(FileNotFoundError):
        return [Member(entry.name, link_name(entry / "driver")) for entry in sorted(directory.iterdir())]
    return []


def group_to_try(function: Path) -> int | None:
    """Return the IOMMU group to open before anything is done to a function that waits for the function's users.

    Whoever takes a function from ``vfio-pci`` while a program has it open waits until that lets it go, and cannot be
    killed meanwhile (``drivers/vfio/vfio_main.c``, vfio_unregister_group_dev). It holds the function's lock
    (device_lock), and so everybody waits with it who reads ``driver_override`` or ``sriov_numvfs``, or loads, binds or
    unbinds a driver. The function has no driver by then, and nothing says that it is still VFIO's. The group can be
    opened if no program has the function.

    Args:
        function: its directory in sysfs.

    Returns:
        The group's number. None if VFIO cannot have the function open.
    """
    number, driver = group_of(function), link_name(function / "driver")
    if number is None or driver not in (None, VFIO_PCI) or not group_path(number).exists():
        return None
    if driver == VFIO_PCI or (function / "vfio-dev").exists():
        return number
    # Without a driver: the group may be there for its other functions. An open function is enabled.
    others = any(one.driver == VFIO_PCI for one in members(number))
    return None if others and read_optional(function / "enable") == "0" else number


class Container:
    """The memory that the functions of a group reach, by addresses that an IOMMU translates.

    Attributes:
        ranges: the bus addresses that can be given out, as pairs of the first and the last, in ascending order. Missing
            are those that the IOMMU cannot translate, and those that it keeps for message-signalled interrupts.
        page_sizes: the sizes that the IOMMU translates, in bytes, ascending; the first is the unit of `map`.

    Raises:
        KernelSupportError: this kernel has no VFIO, or none for this IOMMU.
        PermissionDeniedError: this user may not open ``/dev/vfio/vfio``.
    """

    def __init__(self) -> None:
        try:
            self._file = os.open(CONTAINER, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            reason = f"there is no {CONTAINER}: this kernel has no VFIO, or it is not loaded (modprobe vfio-pci)"
            raise KernelSupportError(errno.ENOSYS, reason) from error
        except OSError as error:
            raise translated(error, f"opening {CONTAINER}", KernelSupportError) from error
        if fcntl.ioctl(self._file, _CHECK_EXTENSION, _TYPE1V2) != 1:
            self.close()
            raise KernelSupportError(errno.ENOSYS, "this kernel's VFIO has no IOMMU driver (vfio_iommu_type1)")
        self.ranges: tuple[tuple[int, int], ...] = ()
        self.page_sizes: tuple[int, ...] = ()

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._file

    def begin(self) -> None:
        """Set the IOMMU up, once a group is in the container. OSError: the kernel's answer."""
        fcntl.ioctl(self._file, _SET_IOMMU, _TYPE1V2)
        room = 4096
        answer = bytearray(room)
        _IOMMU_INFO.pack_into(answer, 0, room, 0, 0, 0, 0)
        fcntl.ioctl(self._file, _IOMMU_GET_INFO, answer)
        _size, flags, page_sizes, capability, _padding = _IOMMU_INFO.unpack_from(answer)
        self.page_sizes = tuple(1 << bit for bit in range(64) if page_sizes >> bit & 1)
        self.ranges = ((0, (1 << 32) - 1),)  # what an older kernel does not tell, any IOMMU can do
        while flags & _HAS_CAPABILITIES and capability:
            kind, _version, following = _CAPABILITY.unpack_from(answer, capability)
            if kind == _IOVA_RANGES:
                (count,) = struct.unpack_from("=I", answer, capability + _CAPABILITY.size)
                words = struct.unpack_from(f"={2 * count}Q", answer, capability + _CAPABILITY.size + 8)
                self.ranges = tuple(zip(words[::2], words[1::2], strict=True))
            capability = following

    def over_limit(self, size: int) -> str | None:
        """Say what is locked, if the limit of locked memory does not permit `size` bytes more; None if it does."""
        room = memory_use.room_to_lock()
        if room is None or size <= room:
            return None
        by = "by memory for DMA, and by mlockall (pyuio.realtime), which counts the same memory once more"
        return f"{memory_use.locked_size()} are used: {by}"

    def map(self, memory: int, address: int, size: int) -> None:
        """Pin memory of this process, and let the group's functions read and write it.

        Args:
            memory: its address in this process, a multiple of the smallest page size.
            address: the bus address of its first byte, a multiple of the same.
            size: in bytes, a multiple of the same.

        Raises:
            OSError: the kernel's answer. ENOMEM: more than the limit of locked memory. EEXIST: something is mapped at
                the bus address. EINVAL: a value is misaligned, or the IOMMU cannot translate the address. ENOSPC: there
                are too many mappings. ENODEV: the container is closed.
        """
        if self._file < 0:
            raise OSError(errno.ENODEV, "the container is closed")
        fcntl.ioctl(self._file, _IOMMU_MAP_DMA, _MAP.pack(_MAP.size, _READ_AND_WRITE, memory, address, size))

    def unmap(self, address: int, size: int) -> None:
        """End what `map` did with the same bus address and size; closing has ended it. OSError: the kernel's answer."""
        if self._file < 0:
            return
        fcntl.ioctl(self._file, _IOMMU_UNMAP_DMA, _UNMAP.pack(_UNMAP.size, 0, address, size))

    def close(self) -> None:
        """Close it. The kernel ends all mappings when the groups in it are closed, too. A second close does nothing."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class Group:
    """An IOMMU group, open: the kernel lets nobody else open it meanwhile.

    Args:
        number: of the group.

    Raises:
        DeviceBusyError: a program has the group, or something of one of its functions, open.
        DeviceRemovedError: no VFIO driver has a function of the group.
        PermissionDeniedError: this user may not open it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.path = group_path(number)
        self._file = -1
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            reason = f"there is no {self.path}: {VFIO_PCI} has no function of IOMMU group {number}"
            if any(one.is_handed_out for one in members(number)):
                reason = (
                    f"there is no {self.path}; a container is given it by --device {CONTAINER} --device {self.path}"
                )
            raise DeviceRemovedError(errno.ENODEV, reason) from error
        except OSError as error:
            raise translated(error, f"opening {self.path}", DeviceBusyError) from error

    @property
    def viable(self) -> bool:
        """Whether no ordinary kernel driver has a function of the group. OSError: the kernel's answer."""
        answer = bytearray(struct.pack("=II", 8, 0))
        fcntl.ioctl(self._file, _GROUP_GET_STATUS, answer)
        return bool(struct.unpack("=II", answer)[1] & _VIABLE)

    def join(self, container: Container) -> None:
        """Put the group into a container, and set the container up. OSError: the kernel's answer.

        Raises:
            PermissionDeniedError: the IOMMU cannot keep the group's interrupts apart, and the kernel insists on that.
        """
        fcntl.ioctl(self._file, _GROUP_SET_CONTAINER, struct.pack("=i", container.fileno()))
        try:
            container.begin()
        except PermissionError as error:
            raise interrupt_remapping.missing(f"IOMMU group {self.number}", interrupt_remapping.BY_GROUP) from error

    def open_device(self, address: str) -> int:
        """Return a new descriptor of a function of the group. OSError: the kernel's answer.

        The kernel resets the function, if it has a reset, and leaves bus mastering off
        (``drivers/vfio/pci/vfio_pci_core.c``, vfio_pci_core_enable).
        """
        name = bytearray(address.encode() + b"\0")
        return int(device_lock.when_free(lambda: fcntl.ioctl(self._file, _GROUP_GET_DEVICE_FD, name)))

    def close(self) -> None:
        """Close it; functions that are open stay so. A second close does nothing."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class FileRegion(NamedTuple):
    """A region of a function's file: a BAR, or the configuration space.

    Attributes:
        offset: of its first byte in the file.
        size: in bytes; 0 if the function does not have it.
        mappable: whether it can be mapped. Otherwise it can be read and written by the file only.
    """

    offset: int
    size: int
    mappable: bool


def reset(device: int) -> None:
    """Reset the function with this descriptor. OSError: the kernel's answer; EINVAL: it has no reset of its own."""
    device_lock.when_free(lambda: fcntl.ioctl(device, _DEVICE_RESET))


def file_region(device: int, index: int) -> FileRegion:
    """Return where a region is in the function's file.

    Args:
        device: descriptor of the function.
        index: 0 to 5 for a BAR, `CONFIG_REGION` for the configuration space.
    """
    answer = bytearray(_REGION.pack(_REGION.size, 0, index, 0, 0, 0))
    fcntl.ioctl(device, _DEVICE_GET_REGION_INFO, answer)
    _size, flags, _index, _capability, size, offset = _REGION.unpack(answer)
    return FileRegion(offset, size, bool(flags & _REGION_MAPPABLE))


def interrupt_count(device: int, index: int) -> int:
    """Return how many interrupts of a kind a function has: `INTX`, `MSI`, `MSIX`, `ERROR` or `REQUEST`."""
    answer = bytearray(_IRQ.pack(_IRQ.size, 0, index, 0))
    try:
        fcntl.ioctl(device, _DEVICE_GET_IRQ_INFO, answer)
    except OSError as error:
        if error.errno == errno.EINVAL:  # the kernel does not know the kind
            return 0
        raise
    return int(_IRQ.unpack(answer)[3])


def deliver_interrupts(device: int, index: int, eventfds: Sequence[int]) -> None:
    """Enable the interrupts of one kind, and deliver each to an eventfd. An INTx interrupt is unmasked then.

    Args:
        device: descriptor of the function.
        index: the kind, as for `interrupt_count`.
        eventfds: one for each interrupt, from the first on; none to disable them.

    Raises:
        OSError: the kernel's answer.
    """
    if eventfds:
        data = struct.pack(f"={len(eventfds)}i", *eventfds)
        flags = _DATA_EVENTFD | _TRIGGER
    else:
        data, flags = b"", _DATA_NONE | _TRIGGER
    request = _IRQ_SET.pack(_IRQ_SET.size + len(data), flags, index, 0, len(eventfds))
    fcntl.ioctl(device, _DEVICE_SET_IRQS, bytearray(request + data))  # bytes may have 1,024 bytes only
