/* SPDX-License-Identifier: MIT */
/* Each module of C calls this when it is imported. A card has one owner in a process, and the state of the process (the
 * lists of open things, the types that others look up) belongs to the main interpreter. */
#ifndef PYUIO_MAIN_INTERPRETER_H
#define PYUIO_MAIN_INTERPRETER_H

#include <Python.h>

/* Returns 0, or -1 with ImportError set in a sub-interpreter. */
static int require_main_interpreter(void)
{
    if (PyInterpreterState_Get() == PyInterpreterState_Main())
        return 0;
    PyErr_SetString(PyExc_ImportError, "pyuio works in the main interpreter of a process, and not in sub-interpreters; "
                                       "import it there, or start a process");
    return -1;
}

#endif
