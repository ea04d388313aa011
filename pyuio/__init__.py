# SPDX-License-Identifier: MIT
"""Write PCI drivers in Python, in user space, on Linux UIO and VFIO.

`devices` lists what there is, `open` opens one device; a `Device` has configuration space, BARs, memory for DMA, and an
interrupt whose read returns how many came. `Driver` is the base of a driver, `RegisterMap` names registers, `Hotplug`
tells of cards that come and go, `realtime` makes a thread wake up in time.
"""

# General layout:
#
# Folders are layers: each imports only from those below it, which `make lint` proves. From the top:
#
# cli/, latency/, doctor/, vm/, inspect/  what people use: commands, measurements, diagnosis, the guest, register tools
# driver.py, installed_drivers.py         the base of a driver; the drivers that packages publish
# device.py                               an open device, which only assembles what follows
# backend/                                the ways to a device: UIO, VFIO
# service.py, program.py                  serving an interrupt in C, and the register operations that it runs
# interrupt/, dma/, region/               what a device consists of: an interrupt, memory that it reaches, BARs
# registers/, systemrdl/                  registers by name; names from SystemRDL files
# litex/, peakrdl/                        names from LiteX's files, and from what PeakRDL reads
# claim/                                  taking a device from its kernel driver, and giving it back
# pci/                                    addresses, configuration space, capabilities; discovery and hotplug
# rt/                                     real time
# kernel/, process/                       files of Linux; this process: forks, signals, timeouts
# _native/                                the only C
# errors.py                               every exception that these raise on purpose
#
# To understand pyuio, read drivers/edu.py, then device.py and backend/uio.py, then interrupt/interrupt.py and
# _native/interrupt.c: together they are the path of an interrupt from the kernel to a driver.
#
# Users import from here. The packages pci, region, registers, interrupt and dma, and the modules program and service,
# export what users name besides, mostly for annotations. Everything else is internal.

import typing as _typing

from pyuio._native import _access as _access  # first, as it refuses interpreters on which all else may do worse
from pyuio.errors import (
    AmbiguousDeviceError,
    AmbiguousDriverError,
    BindingError,
    BusError,
    ClosedError,
    ConfigLockedError,
    CsrFileError,
    DeviceBusyError,
    DeviceNotFoundError,
    DeviceRemovedError,
    DeviceTimeoutError,
    DmaMemoryError,
    DmaMovedError,
    DmaUnavailableError,
    DriverLoadError,
    DriverNotBoundError,
    DriverNotFoundError,
    InterruptUnavailableError,
    KernelFileError,
    KernelSupportError,
    MappingError,
    OverrunError,
    PermissionDeniedError,
    PyuioError,
    RealTimeDeniedError,
    RealTimeError,
    RegisterAccessError,
    RegisterNotFoundError,
    ResetUnavailableError,
    ShortBufferError,
    StateFileError,
    SystemRdlError,
    SystemRdlUnavailableError,
    TextualUnavailableError,
    UnknownValueError,
    UnsupportedByDriverError,
    UnsupportedDeviceError,
    WouldBlockError,
    YamlUnavailableError,
)
from pyuio.process.late import late as _late

if _typing.TYPE_CHECKING:
    from pyuio.device import Device, open
    from pyuio.dma.allocator import DmaBuffer, ScatterBuffer, dma_rmb, dma_wmb
    from pyuio.dma.cyclic import CyclicBuffer
    from pyuio.dma.ring import DescriptorRing
    from pyuio.driver import Driver
    from pyuio.interrupt.wait import wait
    from pyuio.kernel.uio import UioMap
    from pyuio.pci.discovery import FoundDevice, devices
    from pyuio.pci.hotplug import Hotplug, HotplugEvent
    from pyuio.registers.register_map import Array, Field, FieldArray, Memory, Register, RegisterMap
    from pyuio.rt.realtime import realtime
    from pyuio.rt.settings import RealTime
    from pyuio.service import Event, Service

    __version__: str

__all__ = [
    "AmbiguousDeviceError",
    "AmbiguousDriverError",
    "Array",
    "BindingError",
    "BusError",
    "ClosedError",
    "ConfigLockedError",
    "CsrFileError",
    "CyclicBuffer",
    "DescriptorRing",
    "Device",
    "DeviceBusyError",
    "DeviceNotFoundError",
    "DeviceRemovedError",
    "DeviceTimeoutError",
    "DmaBuffer",
    "DmaMemoryError",
    "DmaMovedError",
    "DmaUnavailableError",
    "Driver",
    "DriverLoadError",
    "DriverNotBoundError",
    "DriverNotFoundError",
    "Event",
    "Field",
    "FieldArray",
    "FoundDevice",
    "Hotplug",
    "HotplugEvent",
    "InterruptUnavailableError",
    "KernelFileError",
    "KernelSupportError",
    "MappingError",
    "Memory",
    "OverrunError",
    "PermissionDeniedError",
    "PyuioError",
    "RealTime",
    "RealTimeDeniedError",
    "RealTimeError",
    "Register",
    "RegisterAccessError",
    "RegisterMap",
    "RegisterNotFoundError",
    "ResetUnavailableError",
    "ScatterBuffer",
    "Service",
    "ShortBufferError",
    "StateFileError",
    "SystemRdlError",
    "SystemRdlUnavailableError",
    "TextualUnavailableError",
    "UioMap",
    "UnknownValueError",
    "UnsupportedByDriverError",
    "UnsupportedDeviceError",
    "WouldBlockError",
    "YamlUnavailableError",
    "devices",
    "dma_rmb",
    "dma_wmb",
    "open",
    "realtime",
    "wait",
]


# Where the names are: imported at the first use, so that ``import pyuio`` is quick, and so is every command.
_LATE = {
    "Array": "pyuio.registers.register_map",
    "CyclicBuffer": "pyuio.dma.cyclic",
    "DescriptorRing": "pyuio.dma.ring",
    "Device": "pyuio.device",
    "DmaBuffer": "pyuio.dma.allocator",
    "Driver": "pyuio.driver",
    "Event": "pyuio.service",
    "Field": "pyuio.registers.register_map",
    "FieldArray": "pyuio.registers.register_map",
    "FoundDevice": "pyuio.pci.discovery",
    "Hotplug": "pyuio.pci.hotplug",
    "HotplugEvent": "pyuio.pci.hotplug",
    "Memory": "pyuio.registers.register_map",
    "RealTime": "pyuio.rt.settings",
    "Register": "pyuio.registers.register_map",
    "RegisterMap": "pyuio.registers.register_map",
    "ScatterBuffer": "pyuio.dma.allocator",
    "Service": "pyuio.service",
    "UioMap": "pyuio.kernel.uio",
    "devices": "pyuio.pci.discovery",
    "dma_rmb": "pyuio.dma.allocator",
    "dma_wmb": "pyuio.dma.allocator",
    "open": "pyuio.device",
    "realtime": "pyuio.rt.realtime",
    "wait": "pyuio.interrupt.wait",
}

# The packages and modules that users name.
_MODULES = ("dma", "interrupt", "pci", "program", "region", "registers", "service")


if not _typing.TYPE_CHECKING:  # or a type checker would take any name for one of pyuio's

    def __getattr__(name: str) -> object:
        """Return something of `_LATE`, a package or module that has something to name, or ``__version__``."""
        if name in _LATE:
            globals()[name] = value = getattr(_late(_LATE[name]), name)
            return value
        if name in _MODULES:
            return _late(f"pyuio.{name}")
        if name == "__version__":
            from importlib.metadata import version

            return version("pyuio-framework")
        raise AttributeError(f"module 'pyuio' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names, those of `_LATE` too."""
    return sorted({*globals(), *_LATE, "__version__"})
