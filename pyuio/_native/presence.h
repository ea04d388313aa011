/* SPDX-License-Identifier: MIT */
/*
 * Presence: whether an open device is still there. One for each open device; whatever notices that the device is gone
 * says so here, once, and from then on no window of the device can be accessed: each has its limit set to 0, which costs
 * an access nothing.
 *
 * A mapping does not tell. A card that was pulled out reads as all ones, one that QEMU has taken away as 0, and one that
 * was unbound, or removed by sysfs, answers as before. So the kernel is asked, by two files that were opened while the
 * device was there:
 *
 * - an attribute of the UIO node in sysfs. The node goes first, in each of these cases, and reading the attribute gives
 *   ENODEV from then on (fs/kernfs/file.c: kernfs_seq_start), whether or not the device has an interrupt;
 * - the configuration space: a card that was pulled out reads as all ones before the kernel has noticed.
 *
 * The global interpreter lock is kept while asking: it is a few microseconds, and getting the lock back can take
 * milliseconds.
 */
#ifndef PYUIO_PRESENCE_H
#define PYUIO_PRESENCE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define COLD __attribute__((cold, noinline, unused)) /* not every file uses all of this */

typedef struct Window Window;

typedef struct {
    PyObject_HEAD
    PyObject *name;
    int config, node; /* descriptors of its own; -1 for none */
    bool gone;
    Window *windows; /* that are open; each knows the next, and leaves the list when it is closed */
} Presence;

struct Window {
    PyObject_HEAD
    volatile unsigned char *base;
    size_t limit;     /* bytes that may be accessed: the size, and 0 once closed or gone, so that one check does for all */
    size_t size;
    bool big;         /* registers are big-endian unless a call says otherwise */
    bool open;
    Py_buffer buffer; /* keeps the mapping from being closed or resized */
    PyObject *name;
    Presence *presence; /* of the device; NULL for memory that cannot go */
    Window *next, **link;
};

extern PyTypeObject presence_type;

static COLD void presence_note_gone(Presence *self)
{
    self->gone = true;
    for (Window *window = self->windows; window; window = window->next)
        window->limit = 0;
}

/* Offsets 0 and 8 of the header: vendor and device id, revision and class (PCI Local Bus Specification 3.0, section 6.2).
 * All ones at the first are also what a virtual function has that is there (SR-IOV 1.1, section 3.4.1.1); at the second
 * nothing has them. */
static COLD bool config_answers(int config)
{
    for (off_t offset = 0; offset <= 8; offset += 8) {
        uint32_t word;
        ssize_t done = pread(config, &word, sizeof word, offset);

        if (done != (ssize_t)sizeof word)
            return done < 0 && errno != ENODEV && errno != ENXIO;
        if (word != 0xffffffff)
            return true;
    }
    return false;
}

/* A window leaves when it is closed. */
static COLD void presence_leave(Window *window)
{
    if (window->link)
        *window->link = window->next;
    if (window->link && window->next)
        window->next->link = window->link;
    window->link = NULL;
}

/* An open window becomes one of the device's. */
static COLD void presence_join(Presence *self, Window *window)
{
    presence_leave(window);
    Py_XSETREF(window->presence, (Presence *)Py_NewRef(self));
    window->next = self->windows;
    window->link = &self->windows;
    if (window->next)
        window->next->link = &window->next;
    self->windows = window;
    if (self->gone)
        window->limit = 0;
}

/* Asks the kernel, unless the device is known to be gone. No Python code runs. */
static COLD bool presence_is_gone(Presence *self)
{
    char text[16];
    bool here;

    if (self->gone)
        return true;
    here = self->node < 0 || pread(self->node, text, sizeof text, 0) >= 0 || errno != ENODEV;
    if (!here || (self->config >= 0 && !config_answers(self->config)))
        presence_note_gone(self);
    return self->gone;
}

/* Raises DeviceRemovedError. */
static COLD PyObject *presence_refuse(PyObject *name)
{
    PyObject *errors = PyImport_ImportModule("pyuio.errors");
    PyObject *type = errors ? PyObject_GetAttrString(errors, "DeviceRemovedError") : NULL;
    PyObject *why = type ? PyUnicode_FromFormat("%U: the device was removed or unbound, or does not answer; close it, and "
                                                "open it again when it is back", name) : NULL;
    PyObject *arguments = why ? Py_BuildValue("(iO)", ENODEV, why) : NULL;

    if (arguments)
        PyErr_SetObject(type, arguments);
    Py_XDECREF(arguments);
    Py_XDECREF(why);
    Py_XDECREF(type);
    Py_XDECREF(errors);
    return NULL;
}

#endif
