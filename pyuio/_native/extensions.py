# SPDX-License-Identifier: MIT
"""What is compiled: for setup.py, for the programs that cffi runs, and for `pyuio.vm`, for other processors.

Nothing is imported here, because nothing need be compiled yet when this file is read.
"""

OPTIONS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra")
# The modules, and their files of C, without the suffix.
CPYTHON = {
    "_access": ("_access", "bus_error", "presence"),
    "_memory": ("_memory",),
    "_program": ("_program",),
    "_reader": ("_reader",),
    "_registers": ("_registers",),
}
# build_interrupt.py and so on generate one more file for each of these.
CFFI = {
    "_interrupt": ("command_register", "interrupt", "program", "service", "service_wait", "syscall_breaker"),
    "_realtime": ("scheduling", "memory_lock", "throttling"),
    "_timer": ("timer",),
}
CFFI_OPTIONS = (*OPTIONS, "-fvisibility=hidden")
