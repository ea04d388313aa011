/* SPDX-License-Identifier: MIT */
/* What a module is executed by. A card has one owner in a process, and what is kept per process (the lists of open
 * things, types that others look up) is the main interpreter's. */
#ifndef PYUIO_MAIN_INTERPRETER_H
#define PYUIO_MAIN_INTERPRETER_H

#include <Python.h>

/* 0, or -1 with ImportError set in a sub-interpreter. */
static int require_main_interpreter(void)
{
    if (PyInterpreterState_Get() == PyInterpreterState_Main())
        return 0;
    PyErr_SetString(PyExc_ImportError, "pyuio works in the main interpreter of a process, and not in sub-interpreters; "
                                       "import it there, or start a process");
    return -1;
}

#endif
