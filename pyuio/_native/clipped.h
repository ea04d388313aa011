/* SPDX-License-Identifier: MIT */
/* Converts an offset or a length, for PyArg_Parse's "O&". A number beyond Py_ssize_t becomes the largest Py_ssize_t,
 * which lies beyond every buffer: so it meets the same check, and raises the same error, as any number that is too
 * large. */
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
