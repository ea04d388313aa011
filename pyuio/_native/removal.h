/* SPDX-License-Identifier: MIT */
/*
 * The removal of a device: how it is noticed, and how it ends all access to the device's registers.
 *
 * Each open device has one Presence. Whatever notices that the device is gone tells the Presence, once. The Presence
 * then sets the limit of each window of the device to 0, so that no register can be accessed any more. An access pays
 * nothing for this, because it checks the limit anyway.
 *
 * A mapping does not tell whether the device is there. A card that was pulled out reads as all ones, and one that QEMU
 * has taken away reads as 0. One that was unbound, or removed through sysfs, answers as before. So a register that
 * reads as all ones or as 0 is only a reason to ask. The Presence asks the kernel, by files that were opened while
 * the device was there:
 *
 * - an attribute of the UIO node in sysfs. In each of these cases the node goes first, and reading the attribute then
 *   fails with ENODEV (fs/kernfs/file.c: kernfs_seq_start), whether or not the device has an interrupt;
 * - the configuration space, where a card that was pulled out reads as all ones before the kernel has noticed;
 * - for a device that VFIO has, an eventfd, which is readable from the moment when the kernel wants the device back
 *   (VFIO_PCI_REQ_IRQ_INDEX). It is never read, so it stays so.
 *
 * Ports and configuration space have no windows: region/ports.py and pci/config_space.py ask their Presence themselves.
 *
 * The Presence asks with the global interpreter lock held: it takes a few microseconds, and getting the lock back can
 * take milliseconds.
 */
#ifndef PYUIO_REMOVAL_H
#define PYUIO_REMOVAL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "access_bus.h"

#define COLD __attribute__((cold, noinline, unused)) /* not every file uses all of this */

typedef struct Window Window;

typedef struct {
    PyObject_HEAD
    PyObject *name;
    int config, node, request; /* descriptors of its own; -1: none */
    long long config_start;    /* where in its file the configuration space starts */
    uint64_t writes;           /* to registers that have no window, or none any more */
    bool gone;
    Window *windows; /* the open ones, as a list; a window leaves the list when it is closed */
} Presence;

struct Window {
    PyObject_HEAD
    volatile unsigned char *base;
    size_t limits[4]; /* bytes that may be accessed by 8, 16, 32 and 64 bits: the size; 0 for a width that the device
                       * does not take, and for all once closed or gone, so that one check covers all */
    bool big;         /* registers are big-endian unless a call says otherwise */
    bool open;
    int widest;       /* bits of the widest access that the device takes: 8, 16, 32 or 64 */
    size_t size;
    uint64_t writes;  /* how many there were; one for each run of several */
    Py_buffer buffer; /* keeps the mapping from being closed or resized */
    PyObject *name;
    Presence *presence; /* of the device; NULL: memory that cannot be removed */
    Window *next, **link;
};

extern PyTypeObject presence_type;

/* Has accesses fail whose fault would end the program, from now on. */
void bus_error_handle(void);

/* The index into `limits`; a constant where `bits` is one. */
#define LIMIT(bits) ((bits) == 8 ? 0 : (bits) == 16 ? 1 : (bits) == 32 ? 2 : 3)

static inline void window_set_limit(Window *window, size_t limit)
{
    for (int bits = 8; bits <= 64; bits *= 2)
        window->limits[LIMIT(bits)] = bits <= window->widest ? limit : 0;
}

/* Notes that the device is gone, and ends the access to its registers. */
static COLD void presence_note_gone(Presence *self)
{
    self->gone = true;
    for (Window *window = self->windows; window; window = window->next)
        window_set_limit(window, 0);
}

/* Returns whether the configuration space reads as anything but all ones. It reads vendor and device id, at offset 0,
 * and revision and class, at offset 8 (PCI Local Bus Specification 3.0, section 6.2). A virtual function that is there
 * has all ones at offset 0 (SR-IOV 1.1, section 3.4.1.1), but nothing has them at offset 8. */
static COLD bool config_answers(int config, off_t start)
{
    for (off_t offset = 0; offset <= 8; offset += 8) {
        uint32_t word;
        ssize_t done = pread(config, &word, sizeof word, start + offset);

        if (done != (ssize_t)sizeof word)
            return done < 0 && errno != ENODEV && errno != ENXIO;
        if (word != 0xffffffff)
            return true;
    }
    return false;
}

/* Takes a window off its Presence's list; closing does this. */
static COLD void presence_leave(Window *window)
{
    if (window->link) {
        window->presence->writes += window->writes;
        *window->link = window->next;
    }
    if (window->link && window->next)
        window->next->link = window->link;
    window->link = NULL;
}

/* Makes an open window one of the device's. */
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
        window_set_limit(window, 0);
}

/* Returns whether the device is gone; asks the kernel unless that is known. Runs no Python code. */
static COLD bool presence_is_gone(Presence *self)
{
    char text[16];
    bool here;

    if (self->gone)
        return true;
    here = self->node < 0 || pread(self->node, text, sizeof text, 0) >= 0 || errno != ENODEV;
    here = here && (self->request < 0 || poll(&(struct pollfd){.fd = self->request, .events = POLLIN}, 1, 0) <= 0);
    if (!here || (self->config >= 0 && !config_answers(self->config, self->config_start)))
        presence_note_gone(self);
    return self->gone;
}

/* Returns a number that changes with every write to a register of the device by this process. */
static inline uint64_t presence_writes(const Presence *self)
{
    uint64_t writes = self->writes;

    for (const Window *window = self->windows; window; window = window->next)
        writes += window->writes;
    return writes;
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

/* ---- Values that were read ---- */

/* Returns whether all bits of a register's value are 1, or all are 0: what a removed device may read as. */
INLINE bool all_ones_or_zero(unsigned long value, int bits)
{
    return ((value + 1) << (sizeof value * 8 - (size_t)bits)) <= 1UL << (sizeof value * 8 - (size_t)bits);
}

/* Asks the kernel; returns true, with DeviceRemovedError set, if the window's device is gone. */
static COLD bool raise_if_removed(Window *window)
{
    return presence_is_gone(window->presence) && !presence_refuse(window->name);
}

/* Returns true, with DeviceRemovedError set, if `value` was read from a device that is gone. */
INLINE bool read_from_removed(Window *window, unsigned long value, int bits)
{
    return UNLIKELY(all_ones_or_zero(value, bits)) && window->presence && raise_if_removed(window);
}

#endif
