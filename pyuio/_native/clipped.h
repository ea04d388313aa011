/* SPDX-License-Identifier: MIT */
/* A place or a length as an argument, for PyArg_Parse's "O&": one beyond Py_ssize_t becomes the last there is, which is
 * beyond every buffer, so that it meets the same check and the same error as any other that is too large. */
#ifndef PYUIO_CLIPPED_H
#define PYUIO_CLIPPED_H

#include <Python.h>

static int clipped(PyObject *object, void *result)
{
    Py_ssize_t value = PyNumber_AsSsize_t(object, NULL);
    if (value == -1 && PyErr_Occurred())
        return 0;
    *(Py_ssize_t *)result = value;
    return 1;
}

#endif
