# SPDX-License-Identifier: MIT
"""Every exception that pyuio raises on purpose.

All of them derive from `PyuioError`, and each also from the built-in exception that a Python programmer would catch,
so that ``except PermissionError`` and ``except pyuio.PyuioError`` both work. A value out of range or a misaligned
offset is a plain `ValueError` and a wrong type a plain `TypeError`: those are mistakes in the calling program, not
troubles of a device.

Those that derive from `OSError` carry an ``errno``.
"""


class PyuioError(Exception):
    """The root of every exception that pyuio raises on purpose."""


class DeviceNotFoundError(PyuioError, LookupError):
    """No device matches what was asked for; the message lists what there is."""


class AmbiguousDeviceError(PyuioError, LookupError):
    """More than one device matches what was asked for; the message lists them."""


class DeviceBusyError(PyuioError, OSError):
    """The device is in use: another `Device` is open on it, or another kernel driver holds it (errno EBUSY)."""


class DriverNotBoundError(PyuioError, OSError):
    """No UIO driver is bound to the device, and binding one was not asked for (errno ENODEV)."""


class DriverNotFoundError(PyuioError, LookupError):
    """No installed package publishes a driver for the device; the message lists those that there are."""


class AmbiguousDriverError(PyuioError, LookupError):
    """Several installed packages publish a driver for the same device; the message lists them."""


class DriverLoadError(PyuioError, ImportError):
    """A driver that an installed package publishes cannot be loaded; the message names the package."""


class UnsupportedByDriverError(PyuioError, NotImplementedError):
    """A driver was asked for something optional that it does not supply."""


class UnsupportedDeviceError(PyuioError, ValueError):
    """The device is of another kind than those that the driver serves, or says so."""


class BindingError(PyuioError, OSError):
    """The kernel refused to bind a driver to a device, or to release it."""


class DeviceRemovedError(PyuioError, OSError):
    """The device was unplugged, removed or unbound while it was open (errno ENODEV)."""


class BusError(PyuioError, OSError):
    """An access to a register was not answered (errno EFAULT); a PC would mostly have read all ones.

    A write may raise it too, and may also get lost, as a processor need not wait for the answer to a write.
    """


class PermissionDeniedError(PyuioError, PermissionError):
    """The kernel refused access; the message names the file and what would grant it (errno EACCES or EPERM)."""


class ConfigLockedError(PyuioError, ValueError):
    """A write to configuration space would change bits that no driver owns; the message says what to use instead.

    The hardware was not touched. ``config.unlocked()`` allows such a write to those who mean it.
    """


class KernelSupportError(PyuioError, OSError):
    """The running kernel lacks something that is needed, such as UIO (errno ENOSYS)."""


class KernelFileError(PyuioError, ValueError):
    """A kernel file does not have the content that it should; the message names the file and its content."""


class MappingError(PyuioError, OSError):
    """A BAR cannot be mapped: it does not exist, has no address, or the kernel refused."""


class InterruptUnavailableError(PyuioError, OSError):
    """The device has no interrupt of the kind that was asked for, or its kernel driver delivers none (errno ENXIO)."""


class ShortBufferError(PyuioError, OSError):
    """A buffer is too short for the data to be read into it (errno EINVAL)."""


class DeviceTimeoutError(PyuioError, TimeoutError):
    """A wait for the device timed out (errno ETIMEDOUT)."""


class WouldBlockError(DeviceTimeoutError, BlockingIOError):
    """A wait with a time limit of 0 found nothing (errno EAGAIN); an interrupt is left unmasked.

    It is a `DeviceTimeoutError`, too: a caller that counts down to a deadline may come to 0.
    """


class ResetUnavailableError(PyuioError, OSError):
    """The kernel knows no way to reset the device without its neighbours (errno EOPNOTSUPP), or the reset failed."""


class DmaUnavailableError(PyuioError, OSError):
    """The device cannot reach this process's memory, or nobody knows whether it can (errno EOPNOTSUPP).

    An IOMMU translates its addresses, or it is not a PCI function.
    """


class DmaMemoryError(PyuioError, MemoryError):
    """There is no memory of this size, alignment and range to give to a device; the message says why."""


class DmaMovedError(PyuioError, OSError):
    """Memory that was given to a device has moved, or was never at its address (errno EFAULT)."""


class OverrunError(PyuioError, OSError):
    """A native service had no room for `lost` events, because the program read them too late (errno EOVERFLOW)."""

    lost = 0


class ClosedError(PyuioError, ValueError):
    """The program used an object that is closed."""


class RealTimeError(PyuioError, OSError):
    """The kernel refused to make or to restore a setting of `pyuio.realtime`; the message says what would grant it."""


class RealTimeDeniedError(RealTimeError, PermissionError):
    """This process may not have a setting of `pyuio.realtime` (errno EPERM or EACCES)."""


class RegisterAccessError(PyuioError, AttributeError):
    """A register or field does not allow the access: it is read-only, write-only, or reading it has an effect.

    The hardware was not touched.
    """


class RegisterNotFoundError(PyuioError, LookupError):
    """A register map has no register or field of this name; the message lists those with similar names."""


class StateFileError(PyuioError, ValueError):
    """A file with the saved state of a device cannot be used; the message names the file and the place in it."""


class YamlUnavailableError(PyuioError, ImportError):
    """PyYAML, which reads and writes saved states, is not installed; the message says how to install it."""


class TextualUnavailableError(PyuioError, ImportError):
    """Textual, which makes the screen of ``pyuio watch``, is not installed; the message says how to install it."""


class UnknownValueError(PyuioError, ValueError):
    """A field reads as a value that its enumeration has no name for."""


class SystemRdlError(PyuioError, ValueError):
    """A SystemRDL file cannot be read, or has something that pyuio cannot access; the message names file and line."""


class CsrFileError(PyuioError, ValueError):
    """LiteX's ``csr.json`` or ``csr.csv`` cannot be read, or is no such file; the message says what is wrong."""


class SystemRdlUnavailableError(PyuioError, ImportError):
    """systemrdl-compiler, which reads SystemRDL, is not installed; the message says how to install it."""
