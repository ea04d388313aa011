/* SPDX-License-Identifier: MIT */
/* Window.read and Window.write: runs of accesses of one width. */
#ifndef PYUIO_ACCESS_RUN_H
#define PYUIO_ACCESS_RUN_H

#include "access_check.h"

/* The arguments of read(offset, length, width, fixed) and write(offset, data, width, fixed). */
typedef struct {
    unsigned long offset, length, width;
    int fixed; /* every access is at the same offset, as for a queue's data register */
} Run;

/* Converts and checks the arguments. A NULL length or width leaves what *run has. Returns 0, or -1 with an exception
 * set. */
static COLD int parse_run(Window *self, const char *verb, PyObject *offset, PyObject *length, PyObject *width, Run *run)
{
    int fits = number(offset, &run->offset);
    int length_fits = fits < 0 ? -1 : length ? number(length, &run->length) : 1;
    int width_fits = length_fits < 0 ? -1 : width ? number(width, &run->width) : 1;
    size_t least;

    if (width_fits < 0)
        return -1;
    if (!self->open)
        return refuse_closed(self), -1;
    if (self->presence && self->presence->gone)
        return presence_refuse(self->name), -1;
    if (!width_fits || (run->width != 1 && run->width != 2 && run->width != 4 && run->width != 8))
        return PyErr_Format(PyExc_ValueError, "%U: the width must be 1, 2, 4 or 8 bytes, not %S", self->name, width), -1;
    if (!length_fits || run->length % run->width != 0)
        return refuse(self, verb, (int)run->width * 8, offset,
                      PyUnicode_FromString("the length is not a whole number of accesses")), -1;
    /* A run of no bytes is checked like a run of one access, so that it cannot hide a wrong offset. */
    least = run->length && !run->fixed ? run->length : run->width;
    if (!fits || !inside(self, run->offset, least, (int)run->width * 8))
        return refuse_offset(self, verb, (int)run->width * 8, offset, least), -1;
    return 0;
}

static PyObject *window_read(Window *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"", "length", "width", "fixed", NULL};
    PyObject *offset, *length, *width = NULL, *result;
    Run run = {.width = 4};
    unsigned long last = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|O$p:read", keywords, &offset, &length, &width, &run.fixed) ||
        parse_run(self, "read", offset, length, width, &run) < 0)
        return NULL;
    result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)run.length); /* this runs no Python code */
    if (!result)
        return NULL;
    for (size_t done = 0; done < run.length; done += run.width) {
        size_t at = run.offset + (run.fixed ? 0 : done);

        if (UNLIKELY(!load_to((unsigned char *)PyBytes_AS_STRING(result) + done, self->base + at, run.width))) {
            Py_DECREF(result);
            return unanswered(self, "read", (int)run.width * 8, at);
        }
    }
    AFTER_READ();
    /* If the device was there for the last access, it was there for all of them. */
    if (run.length)
        memcpy((char *)&last + (PY_BIG_ENDIAN ? sizeof last - run.width : 0),
               PyBytes_AS_STRING(result) + run.length - run.width, run.width);
    if (run.length && read_from_removed(self, last, (int)run.width * 8))
        Py_CLEAR(result);
    return result;
}

static PyObject *window_write(Window *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"", "data", "width", "fixed", NULL};
    PyObject *offset, *width = NULL, *result = NULL;
    Run run = {.width = 4};
    Py_buffer data;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Oy*|O$p:write", keywords, &offset, &data, &width, &run.fixed))
        return NULL;
    run.length = (unsigned long)data.len;
    if (parse_run(self, "write", offset, NULL, width, &run) == 0) {
        self->writes++;
        BEFORE_WRITE();
        result = Py_NewRef(Py_None);
        for (size_t done = 0; result && done < run.length; done += run.width) {
            size_t at = run.offset + (run.fixed ? 0 : done);

            if (UNLIKELY(!store_from(self->base + at, (unsigned char *)data.buf + done, run.width))) {
                Py_DECREF(result);
                result = unanswered(self, "write", (int)run.width * 8, at);
            }
        }
    }
    PyBuffer_Release(&data);
    return result;
}

#endif
