/* SPDX-License-Identifier: MIT */
/* Converts the arguments of an access and checks them, before the access. The messages of the checks are here, too. */
#ifndef PYUIO_ACCESS_CHECK_H
#define PYUIO_ACCESS_CHECK_H

#include "removal.h"
#if PY_VERSION_HEX < 0x030B0000
#include <longintrepr.h>
#endif

#include "access_bus.h"

/* ---- Arguments ---- */

/* What number() does for anything but a small int. */
static COLD int number_slow(PyObject *object, unsigned long *value)
{
    PyObject *index;

    if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
        PyErr_Clear();
        return 0;
    }
    if (PyLong_Check(object) || !PyErr_ExceptionMatches(PyExc_TypeError))
        return -1;
    PyErr_Clear();
    index = PyNumber_Index(object); /* numpy's integers and the like */
    if (!index)
        return -1;
    *value = PyLong_AsUnsignedLong(index);
    Py_DECREF(index);
    if (*value != (unsigned long)-1 || !PyErr_Occurred())
        return 1;
    if (!PyErr_ExceptionMatches(PyExc_OverflowError))
        return -1;
    PyErr_Clear();
    return 0;
}

/* Returns the value of a small non-negative int, which nearly every offset is; -1 for anything else. It saves a call
 * for each argument, which is a tenth of the time of an update. */
INLINE long small(PyObject *object)
{
    if (!PyLong_CheckExact(object))
        return -1;
#if PY_VERSION_HEX >= 0x030C0000
    return PyUnstable_Long_IsCompact((PyLongObject *)object) ? PyUnstable_Long_CompactValue((PyLongObject *)object) : -1;
#else
    return Py_SIZE(object) == 1 ? (long)((PyLongObject *)object)->ob_digit[0] : Py_SIZE(object) == 0 ? 0 : -1;
#endif
}

/* Converts an argument. Returns 1 with the number in *value; 0 for an integer that is negative or beyond 64 bits,
 * *value is then all ones; -1 with an exception set. */
INLINE int number(PyObject *object, unsigned long *value)
{
    long fast = small(object);

    if (fast >= 0) {
        *value = (unsigned long)fast;
        return 1;
    }
    *value = PyLong_AsUnsignedLong(object);
    if (UNLIKELY(*value == (unsigned long)-1) && PyErr_Occurred())
        return number_slow(object, value);
    return 1;
}

/* Parses the keyword endian; there is no other. Returns whether it is "big", or `big` if it was not given, or -1 with
 * an exception set. Cold, because the frequent calls have no keywords. */
static COLD int parse_endian(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, int wanted, const char *verb,
                             int bits, int big)
{
    PyObject *given;

    if (nargs != wanted)
        return PyErr_Format(PyExc_TypeError, "%s%d() takes %d positional arguments, not %zd", verb, bits, wanted,
                            nargs), -1;
    for (Py_ssize_t i = 0; kwnames && i < PyTuple_GET_SIZE(kwnames); i++) {
        if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, i), "endian") != 0)
            return PyErr_Format(PyExc_TypeError, "%s%d() has no keyword argument %R", verb, bits,
                                PyTuple_GET_ITEM(kwnames, i)), -1;
        given = args[nargs + i];
        if (given == Py_None)
            continue;
        if (!PyUnicode_Check(given))
            return PyErr_Format(PyExc_TypeError, "endian must be a str, not %.100s", Py_TYPE(given)->tp_name), -1;
        big = PyUnicode_CompareWithASCIIString(given, "big") == 0;
        if (!big && PyUnicode_CompareWithASCIIString(given, "little") != 0)
            return PyErr_Format(PyExc_ValueError, "endian must be 'little' or 'big', not %R", given), -1;
    }
    return big;
}

/* ---- Checks and their messages ---- */

/* Returns whether `length` bytes at `offset` lie below `limit`, aligned to the width. */
INLINE bool below(const Window *self, size_t limit, size_t offset, size_t length, int bits)
{
    size_t width = (size_t)bits / 8;

    return offset < limit && length <= limit - offset && ((offset | (uintptr_t)self->base) & (width - 1)) == 0 &&
           width <= sizeof(unsigned long);
}

/* Returns whether `length` bytes at `offset` may be accessed by this width, aligned to it. */
INLINE bool inside(const Window *self, size_t offset, size_t length, int bits)
{
    return below(self, self->limits[LIMIT(bits)], offset, length, bits);
}

static COLD PyObject *refuse_closed(Window *self)
{
    PyObject *errors = PyImport_ImportModule("pyuio.errors");
    PyObject *closed = errors ? PyObject_GetAttrString(errors, "ClosedError") : NULL;

    if (closed)
        PyErr_Format(closed, "%V is closed", self->name, "the window");
    Py_XDECREF(closed);
    Py_XDECREF(errors);
    return NULL;
}

/* Raises ValueError. Takes over the reference to `why`, which is NULL if making it failed. (The offset is formatted
 * apart, because PyErr_Format has no %lx before Python 3.12.) */
static COLD PyObject *refuse(Window *self, const char *verb, int bits, PyObject *offset, PyObject *why)
{
    PyObject *hex = why ? PyNumber_ToBase(offset, 16) : NULL;
    char size[24];

    snprintf(size, sizeof size, "0x%zx", self->size);
    if (hex)
        PyErr_Format(PyExc_ValueError, "%U (size %s): %d-bit %s at offset %U: %U", self->name, size, bits, verb, hex,
                     why);
    Py_XDECREF(hex);
    Py_XDECREF(why);
    return NULL;
}

/* Raises the reason why inside() or number() refused `offset`. `length` is that of one access or of a whole run. */
static COLD PyObject *refuse_offset(Window *self, const char *verb, int bits, PyObject *offset, size_t length)
{
    unsigned long value;
    PyObject *why;
    int fits;

    if (!self->open)
        return refuse_closed(self);
    if (self->presence && self->presence->gone)
        return presence_refuse(self->name);
    fits = number(offset, &value);
    if (fits < 0)
        return NULL;
    if ((size_t)bits / 8 > sizeof(unsigned long))
        why = PyUnicode_FromString("this processor has no 64-bit access");
    else if (bits > self->widest)
        why = PyUnicode_FromFormat("accesses of this region have at most %d bits, as its width= says", self->widest);
    else if (fits && value % ((size_t)bits / 8) != 0)
        why = PyUnicode_FromFormat("the offset is not a multiple of %d", bits / 8);
    else if (!fits || value >= self->size || length > self->size - value)
        why = PyUnicode_FromFormat("%zu bytes there are not inside the region", length);
    else
        why = PyUnicode_FromFormat("the region does not start at a multiple of %d", bits / 8);
    return refuse(self, verb, bits, offset, why);
}

/* Raises the reason why an access was not answered: DeviceRemovedError or BusError. `place` is what was accessed. */
static COLD PyObject *refuse_unanswered(Presence *presence, PyObject *name, const char *place)
{
    PyObject *errors, *type, *arguments = NULL;

    if (presence && presence_is_gone(presence))
        return presence_refuse(name);
    errors = PyImport_ImportModule("pyuio.errors");
    type = errors ? PyObject_GetAttrString(errors, "BusError") : NULL;
    if (type)
        arguments = Py_BuildValue("(iN)", EFAULT, PyUnicode_FromFormat(
            "%U: %s: the bus answered with an error: no register is there, or none of this width; or the device has no "
            "power or no clock; or it does not decode memory, or the kernel has taken the mapping away", name, place));
    if (arguments)
        PyErr_SetObject(type, arguments);
    Py_XDECREF(arguments);
    Py_XDECREF(type);
    Py_XDECREF(errors);
    return NULL;
}

static COLD PyObject *unanswered(Window *self, const char *verb, int bits, size_t offset)
{
    char place[64];

    snprintf(place, sizeof place, "%d-bit %s at offset 0x%zx", bits, verb, offset);
    return refuse_unanswered(self->presence, self->name, place);
}

/* Raises ValueError for a value or a mask that does not fit; `what` is "value" or "mask". */
static COLD PyObject *refuse_value(Window *self, const char *verb, int bits, PyObject *offset, const char *what,
                                   PyObject *value)
{
    PyObject *hex = PyNumber_ToBase(value, 16), *why = NULL;

    if (hex)
        why = PyUnicode_FromFormat("%s %U is not in 0..0x%s", what, hex, &"ffffffffffffffff"[16 - bits / 4]);
    Py_XDECREF(hex);
    return refuse(self, verb, bits, offset, why);
}

static COLD PyObject *refuse_outside_mask(Window *self, int bits, PyObject *const *args)
{
    PyObject *mask = PyNumber_ToBase(args[1], 16), *value = mask ? PyNumber_ToBase(args[2], 16) : NULL, *why = NULL;

    if (value)
        why = PyUnicode_FromFormat("value %U has bits outside mask %U", value, mask);
    Py_XDECREF(mask);
    Py_XDECREF(value);
    return refuse(self, "update", bits, args[0], why);
}

INLINE bool in_range(unsigned long value, int bits)
{
    return (value >> (bits - 1)) >> 1 == 0;
}

#endif
