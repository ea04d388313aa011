# SPDX-License-Identifier: MIT
"""A service's handler in C, for the edu card: it reads the interrupt status and acknowledges what it says."""

from __future__ import annotations

from pathlib import Path

import cffi

from pyuio.service import HANDLER
from tests.shared_library import compiled

DECLARATION = "void handle(pyuio_event *event, void *context)"
SOURCE = f"""
#include <stdint.h>
{HANDLER}
{DECLARATION} {{
    volatile uint32_t *bar = context;
    event->values[0] = bar[9];
    event->values[1] = event->count + 40;
    event->late = 1;
    bar[25] = (uint32_t)event->values[0];
}}
"""


def build(directory: Path) -> Path:
    """Return the library that has it, compiling it in a directory if that was not done before."""
    return compiled("service_handler", SOURCE, directory)


def load(directory: Path) -> tuple[object, object]:
    """Return the library, to be kept for as long as the handler is in use, and a pointer to the handler."""
    ffi = cffi.FFI()
    ffi.cdef(f"{HANDLER}{DECLARATION};")
    library = ffi.dlopen(str(build(directory)))
    return library, ffi.addressof(library, "handle")
