# SPDX-License-Identifier: MIT
"""The kernel's iommufd: memory for the functions that VFIO hands out, and the device file of each function.

Linux 6.6 and later have it where they are built with CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV. A function then has a
file of its own, ``/dev/vfio/devices/vfioN``, beside the file of its IOMMU group. Whoever opens it can do nothing with
it until it is bound to an open ``/dev/iommu``, and only one can bind it. As long as it is bound, nobody can open the
group, nor bind it while somebody has the group open. The memory is that of an I/O address space, to which the function
is attached.

The kernel takes a function back only when its device file is closed, bound or not.

Sources: Documentation/driver-api/vfio.rst; Documentation/userspace-api/iommufd.rst; ``include/uapi/linux/iommufd.h``;
``drivers/vfio/device_cdev.c``; ``drivers/iommu/iommufd/``.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path

from pyuio._native._memory import pointer
from pyuio.errors import KernelSupportError
from pyuio.kernel import device_lock, memory_use
from pyuio.kernel.sysfs import translated

IOMMU = Path("/dev/iommu")
_DEVICES = Path("/dev/vfio/devices")

# Numbers of include/uapi/linux/vfio.h and iommufd.h. All are _IO(';', n), which carries no size.
_BIND_IOMMUFD, _ATTACH_IOMMUFD_PT = (ord(";") << 8 | 118 + n for n in range(2))
_IOAS_ALLOC = ord(";") << 8 | 0x81
_IOAS_IOVA_RANGES, _IOAS_MAP, _IOAS_UNMAP = (ord(";") << 8 | 0x84 + n for n in range(3))

_FIXED_READ_AND_WRITE = 7  # IOMMU_IOAS_MAP_FIXED_IOVA, _WRITEABLE, _READABLE

_BIND = struct.Struct("=IIiI")  # struct vfio_device_bind_iommufd
_ATTACH = struct.Struct("=III")  # struct vfio_device_attach_iommufd_pt
_ALLOC = struct.Struct("=III")  # struct iommu_ioas_alloc
_RANGES = struct.Struct("=IIIIQQ")  # struct iommu_ioas_iova_ranges
_MAP = struct.Struct("=IIIIQQQ")  # struct iommu_ioas_map
_UNMAP = struct.Struct("=IIQQ")  # struct iommu_ioas_unmap


def device_node(function: Path) -> Path | None:
    """Return the device file of a function that VFIO hands out; None if this kernel has none for it.

    Args:
        function: its directory in sysfs.
    """
    with suppress(OSError):
        for entry in (function / "vfio-dev").iterdir():
            if (node := _DEVICES / entry.name).exists():
                return node
    return None


def is_usable(function: Path) -> bool:
    """Return whether this user may open a function by its device file, and give it memory.

    Args:
        function: its directory in sysfs.
    """
    node = device_node(function)
    return node is not None and all(os.access(path, os.R_OK | os.W_OK, effective_ids=True) for path in (node, IOMMU))


class Ioas:
    """An I/O address space: the memory that the functions attached to it reach, by addresses that an IOMMU translates.

    Attributes:
        ranges: the bus addresses that can be given out; see `pyuio.kernel.vfio.Container`. Each function that is
            attached may take some away.
        page_sizes: the unit of `map`, in bytes, alone.

    Raises:
        KernelSupportError: this kernel has no iommufd.
        PermissionDeniedError: this user may not open ``/dev/iommu``.
    """

    page_sizes = (mmap.PAGESIZE,)  # what an IOMMU translates is no larger, or the kernel attaches nothing

    def __init__(self) -> None:
        self._file = -1
        self.ranges: tuple[tuple[int, int], ...] = ((0, (1 << 64) - 1),)
        try:
            self._file = os.open(IOMMU, os.O_RDWR | os.O_CLOEXEC)
            answer = bytearray(_ALLOC.pack(_ALLOC.size, 0, 0))
            fcntl.ioctl(self._file, _IOAS_ALLOC, answer)
        except OSError as error:
            self.close()
            raise translated(error, f"opening {IOMMU}", KernelSupportError) from error
        (_size, _flags, self._id) = _ALLOC.unpack(answer)

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._file

    def attach(self, device: int) -> None:
        """Bind a function to this, and let it reach what is mapped. Closing its descriptor ends that.

        Args:
            device: descriptor of its device file, just opened.

        Raises:
            OSError: the kernel's answer. EBUSY, EINVAL: somebody has the group, or the function, open. EPERM: a driver
                or another process has a function of its group, or the IOMMU does not remap interrupts.
        """
        request = bytearray(_BIND.pack(_BIND.size, 0, self._file, 0))
        device_lock.when_free(lambda: fcntl.ioctl(device, _BIND_IOMMUFD, request))
        fcntl.ioctl(device, _ATTACH_IOMMUFD_PT, bytearray(_ATTACH.pack(_ATTACH.size, 0, self._id)))
        self.ranges = self._ask_ranges()

    def _ask_ranges(self) -> tuple[tuple[int, int], ...]:
        room = 64
        while True:
            words = bytearray(16 * room)
            request = bytearray(_RANGES.pack(_RANGES.size, self._id, room, 0, pointer(words), 0))
            try:
                fcntl.ioctl(self._file, _IOAS_IOVA_RANGES, request)
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                room *= 2
                continue
            count = _RANGES.unpack(request)[2]
            return tuple(struct.iter_unpack("=QQ", words[: 16 * count]))

    def over_limit(self, size: int) -> str | None:
        """Say what is locked, if the limit of locked memory may not permit `size` bytes more; None if it does.

        The kernel counts what all processes of a user have, and does not tell how much that is.
        """
        if not memory_use.is_limited():
            return None
        by = "by this process; what this user's other processes have for devices and io_uring counts, too"
        return f"{memory_use.pinned_size()} are used {by}"

    def map(self, memory: int, address: int, size: int) -> None:
        """Pin memory of this process, and let the functions read and write it; as `pyuio.kernel.vfio.Container.map`.

        Raises:
            OSError: the kernel's answer. ENOMEM: more than the limit of locked memory. EEXIST: something is mapped at
                the bus address. EINVAL: a value is misaligned, or the IOMMU cannot translate the address. ENODEV: this
                is closed.
        """
        if self._file < 0:
            raise OSError(errno.ENODEV, f"{IOMMU} is closed")
        request = _MAP.pack(_MAP.size, _FIXED_READ_AND_WRITE, self._id, 0, memory, size, address)
        fcntl.ioctl(self._file, _IOAS_MAP, request)

    def unmap(self, address: int, size: int) -> None:
        """End what `map` did with the same bus address and size; closing has ended it. OSError: the kernel's answer."""
        if self._file < 0:
            return
        fcntl.ioctl(self._file, _IOAS_UNMAP, _UNMAP.pack(_UNMAP.size, self._id, address, size))

    def close(self) -> None:
        """Close it. The kernel ends all mappings when the functions are closed, too. A second close does nothing."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
