# SPDX-License-Identifier: MIT
from __future__ import annotations

import errno
from types import ModuleType

import pytest

import pyuio
import pyuio.claim.permission
import pyuio.latency.errors
from pyuio import errors
from pyuio.kernel.sysfs import translated

BUILT_IN = {
    "DriverNotFoundError": LookupError,
    "AmbiguousDriverError": LookupError,
    "DriverLoadError": ImportError,
    "UnsupportedByDriverError": NotImplementedError,
    "UnsupportedDeviceError": ValueError,
    "DeviceNotFoundError": LookupError,
    "AmbiguousDeviceError": LookupError,
    "DeviceBusyError": OSError,
    "DriverNotBoundError": OSError,
    "BindingError": OSError,
    "DeviceRemovedError": OSError,
    "PermissionDeniedError": PermissionError,
    "KernelFileError": ValueError,
    "KernelSupportError": OSError,
    "MappingError": OSError,
    "OverrunError": OSError,
    "InterruptUnavailableError": OSError,
    "ResetUnavailableError": OSError,
    "WouldBlockError": BlockingIOError,
    "ShortBufferError": OSError,
    "DeviceTimeoutError": TimeoutError,
    "DmaUnavailableError": OSError,
    "DmaMemoryError": MemoryError,
    "DmaMovedError": OSError,
    "BusError": OSError,
    "ClosedError": ValueError,
    "CsrFileError": ValueError,
    "ConfigLockedError": ValueError,
    "RealTimeError": OSError,
    "RealTimeDeniedError": PermissionError,
    "RegisterAccessError": AttributeError,
    "RegisterNotFoundError": LookupError,
    "StateFileError": ValueError,
    "YamlUnavailableError": ImportError,
    "TextualUnavailableError": ImportError,
    "UnknownValueError": ValueError,
    "SystemRdlError": ValueError,
    "SystemRdlUnavailableError": ImportError,
}

BUILT_IN_OF_THE_LABORATORY = {
    "ResultFileError": ValueError,
    "ResultExistsError": FileExistsError,
    "OutputDirectoryError": OSError,
    "PlotUnavailableError": ImportError,
    "LoadError": RuntimeError,
    "MeasurementError": RuntimeError,
    "HistogramUnavailableError": ImportError,
}


def errors_in(module: ModuleType) -> dict[str, type[Exception]]:
    """The exceptions that a module defines."""
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == module.__name__
    }


@pytest.mark.parametrize(
    ("module", "offered_by", "built_in"),
    [
        (errors, pyuio, {"PyuioError": Exception, **BUILT_IN}),
        (pyuio.latency.errors, pyuio.latency, BUILT_IN_OF_THE_LABORATORY),
        (pyuio.claim.permission, pyuio.claim, {"SetupError": OSError}),
    ],
)
def test_every_error_is_a_built_in_one_too(
    module: ModuleType, offered_by: ModuleType, built_in: dict[str, type[Exception]]
) -> None:
    found = errors_in(module)
    assert found.keys() == built_in.keys()
    for name, base in built_in.items():
        error = getattr(offered_by, name)
        assert error is found[name]
        assert issubclass(error, pyuio.PyuioError)
        assert issubclass(error, base)


def test_errors_of_tools_are_not_at_the_top_level() -> None:
    assert not {*BUILT_IN_OF_THE_LABORATORY, "SetupError"} & {*dir(pyuio), *dir(errors)}


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
