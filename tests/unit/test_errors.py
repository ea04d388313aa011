# SPDX-License-Identifier: MIT
from __future__ import annotations

import errno

import pytest

import pyuio
from pyuio import errors
from pyuio.kernel.sysfs import translated

BUILT_IN = {
    "DriverNotFoundError": LookupError,
    "AmbiguousDriverError": LookupError,
    "DriverLoadError": ImportError,
    "UnsupportedByDriverError": NotImplementedError,
    "DeviceNotFoundError": LookupError,
    "AmbiguousDeviceError": LookupError,
    "DeviceBusyError": OSError,
    "DriverNotBoundError": OSError,
    "BindingError": OSError,
    "DeviceRemovedError": OSError,
    "SetupError": OSError,
    "PermissionDeniedError": PermissionError,
    "KernelFileError": ValueError,
    "KernelSupportError": OSError,
    "MappingError": OSError,
    "MeasurementError": RuntimeError,
    "OverrunError": OSError,
    "InterruptUnavailableError": OSError,
    "WouldBlockError": BlockingIOError,
    "ShortBufferError": OSError,
    "DeviceTimeoutError": TimeoutError,
    "DmaUnavailableError": OSError,
    "DmaMemoryError": MemoryError,
    "DmaMovedError": OSError,
    "ClosedError": ValueError,
    "ConfigLockedError": ValueError,
    "RealTimeError": OSError,
    "RealTimeDeniedError": PermissionError,
    "ResultFileError": ValueError,
    "ResultExistsError": FileExistsError,
    "OutputDirectoryError": OSError,
    "PlotUnavailableError": ImportError,
    "LoadError": RuntimeError,
    "RegisterAccessError": AttributeError,
    "RegisterNotFoundError": LookupError,
    "UnknownValueError": ValueError,
    "SystemRdlError": ValueError,
    "SystemRdlUnavailableError": ImportError,
}


def test_every_error_is_a_built_in_one_too() -> None:
    found = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert found == {"PyuioError", *BUILT_IN}
    for name, base in BUILT_IN.items():
        error = getattr(pyuio, name)
        assert issubclass(error, pyuio.PyuioError)
        assert issubclass(error, base)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, pyuio.PermissionDeniedError),
        (errno.EPERM, pyuio.PermissionDeniedError),
        (errno.ENODEV, pyuio.DeviceRemovedError),
        (errno.ENXIO, pyuio.DeviceRemovedError),
        (errno.EINVAL, pyuio.BindingError),
    ],
)
def test_what_the_kernel_answers_keeps_its_number(number: int, kind: type[OSError]) -> None:
    error = translated(OSError(number, "so it says"), "writing 1 to /sys/x", pyuio.BindingError)
    assert type(error) is kind
    assert error.errno == number
    assert "writing 1 to /sys/x: so it says" in str(error)
