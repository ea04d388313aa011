/* SPDX-License-Identifier: MIT */
/*
 * Reader: the short way of `Interrupt.read` and `Interrupt.poll`, from Python into C and back without a Python frame.
 *
 * interrupt.c does the waiting, in the module that cffi makes; `_connect` gets the addresses of its functions. This file
 * converts the timeout, releases the global interpreter lock, waits again after a signal, and makes the result a Python
 * object. Everything but success is for the Python class that derives from this one:
 *
 * - _nanoseconds(timeout) converts a timeout that is not a plain number, or refuses it;
 * - _require_there() raises if the device is known to be gone;
 * - _look_for_signals() lets Python run its signal handlers, which it does between two bytecodes, as PEP 475 asks;
 * - _failed(result) raises the error that a result means;
 * - _took_one() tells the asyncio tasks that still wait;
 * - _look_at_line() looks whether anybody acknowledges the interrupt;
 * - timed_out(timeout) returns the error of a read whose time is over.
 */
#include "removal.h"

#include <limits.h>
#include <structmember.h>
#include <time.h>

#include "interrupt.h"
#include "main_interpreter.h"

#define NANOSECONDS 1000000000LL
#define LONGEST_FAST 1000000000 /* seconds: a longer timeout is converted by Python */

typedef struct {
    PyObject_HEAD
    pyuio_interrupt *interrupt; /* NULL before _connect */
    int64_t (*read)(pyuio_interrupt *interrupt, int64_t timeout);
    int (*wait)(pyuio_interrupt *interrupt, int64_t timeout);
    PyObject *owner;    /* what frees the interrupt in C */
    Presence *presence; /* of the device; NULL: there is none */
    PyObject *loops;    /* a dict, empty while no asyncio task waits */
    uint64_t writes;    /* to the device's registers, as they were at the last read: `presence_writes` */
    unsigned int unwritten; /* reads since the last write */
    unsigned int patience;  /* from so many on, a read begins with _look_at_line(); UINT_MAX for never */
} Reader;

static PyTypeObject *presence_class; /* of the module _access */

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * NANOSECONDS + time.tv_nsec;
}

/* Converts a timeout to nanoseconds, negative for ever. Returns false with an exception set. */
static bool nanoseconds(Reader *self, PyObject *timeout, int64_t *result)
{
    PyObject *converted;

    if (timeout == Py_None) {
        *result = -1;
        return true;
    }
    if (PyFloat_CheckExact(timeout)) {
        double seconds = PyFloat_AS_DOUBLE(timeout);

        if (seconds >= 0 && seconds < LONGEST_FAST) {
            *result = (int64_t)(seconds * NANOSECONDS);
            return true;
        }
    }
    if (PyLong_CheckExact(timeout)) {
        int overflow;
        long seconds = PyLong_AsLongAndOverflow(timeout, &overflow);

        if (!overflow && seconds >= 0 && seconds < LONGEST_FAST) {
            *result = seconds * NANOSECONDS;
            return true;
        }
    }
    converted = PyObject_CallMethod((PyObject *)self, "_nanoseconds", "O", timeout);
    *result = converted ? PyLong_AsLongLong(converted) : -1;
    Py_XDECREF(converted);
    return !PyErr_Occurred();
}

/* Returns the only argument, which may be given by name, or `otherwise`; NULL with an exception set. */
static PyObject *only_argument(const char *function, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                               PyObject *otherwise)
{
    Py_ssize_t named = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;

    if (nargs + named > 1)
        return PyErr_Format(PyExc_TypeError, "%s() takes one argument, timeout, not %zd", function, nargs + named);
    if (named && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "timeout") != 0)
        return PyErr_Format(PyExc_TypeError, "%s() has no keyword argument %R", function, PyTuple_GET_ITEM(kwnames, 0));
    return nargs + named ? args[0] : otherwise;
}

/* Calls a method that returns nothing. Returns whether it raised nothing. */
static bool let(Reader *self, const char *method)
{
    PyObject *done = PyObject_CallMethod((PyObject *)self, method, NULL);

    Py_XDECREF(done);
    return done != NULL;
}

/* Waits until there is a result other than a signal. Returns it, 0 or more; or -1 with an exception set. */
static int64_t wait_for_result(Reader *self, PyObject *timeout, bool reads)
{
    int64_t left, deadline, result;

    if (UNLIKELY(!self->interrupt)) {
        PyErr_SetString(PyExc_ValueError, "the interrupt is not connected: its __init__ was not called");
        return -1;
    }
    if (!nanoseconds(self, timeout, &left))
        return -1;
    /* Another part of the device may have noticed before the kernel does. */
    if (UNLIKELY(self->presence && self->presence->gone) && !let(self, "_require_there"))
        return -1;
    deadline = left > 0 ? now() : 0;
    deadline = left > INT64_MAX - deadline ? INT64_MAX : deadline + left;
    for (;;) {
        Py_BEGIN_ALLOW_THREADS
        result = reads ? self->read(self->interrupt, left) : self->wait(self->interrupt, left);
        Py_END_ALLOW_THREADS
        if (result >= 0)
            return result;
        if (result != PYUIO_SIGNAL) {
            PyObject *done = PyObject_CallMethod((PyObject *)self, "_failed", "L", (long long)result);

            Py_XDECREF(done);
            return done ? 0 : -1;
        }
        if (!let(self, "_look_for_signals"))
            return -1;
        if (left > 0) {
            left = deadline - now();
            left = left < 0 ? 0 : left;
        }
    }
}

/* Notes that interrupts were read. */
static inline void note_read(Reader *self)
{
    uint64_t writes = self->presence ? presence_writes(self->presence) : 0;

    self->unwritten = writes == self->writes && self->unwritten < UINT_MAX - 1 ? self->unwritten + 1 : 0;
    self->writes = writes;
}

static PyObject *reader_note_read(Reader *self, PyObject *Py_UNUSED(none))
{
    note_read(self);
    Py_RETURN_NONE;
}

static PyObject *reader_read(Reader *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *timeout = only_argument("read", args, nargs, kwnames, Py_None), *error;
    int64_t count;

    if (UNLIKELY(self->unwritten && self->unwritten >= self->patience) && timeout && !let(self, "_look_at_line"))
        return NULL;
    count = timeout ? wait_for_result(self, timeout, true) : -1;
    if (count > 0) {
        note_read(self);
        if (UNLIKELY(PyDict_GET_SIZE(self->loops) > 0) && !let(self, "_took_one"))
            return NULL;
        return PyLong_FromLongLong(count);
    }
    if (count == 0 && (error = PyObject_CallMethod((PyObject *)self, "timed_out", "O", timeout))) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
        Py_DECREF(error);
    }
    return NULL;
}

static PyObject *reader_poll(Reader *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *zero = PyLong_FromLong(0);
    PyObject *timeout = zero ? only_argument("poll", args, nargs, kwnames, zero) : NULL;
    int64_t result = timeout ? wait_for_result(self, timeout, false) : -1;

    Py_XDECREF(zero);
    return result < 0 ? NULL : PyBool_FromLong(result == PYUIO_READY);
}

/* ---- Life ---- */

static PyObject *reader_connect(Reader *self, PyObject *args)
{
    unsigned long long interrupt, read, wait;
    PyObject *owner, *presence, *loops;
    unsigned int patience;

    if (!PyArg_ParseTuple(args, "KKKOOO!I", &interrupt, &read, &wait, &owner, &presence, &PyDict_Type, &loops, &patience))
        return NULL;
    if (presence != Py_None && !PyObject_TypeCheck(presence, presence_class))
        return PyErr_Format(PyExc_TypeError, "a Presence or None is wanted, not %.100s", Py_TYPE(presence)->tp_name);
    if (self->interrupt) { /* a thread may be reading it */
        PyErr_SetString(PyExc_TypeError, "an interrupt cannot be initialised twice");
        return NULL;
    }
    self->interrupt = (pyuio_interrupt *)(uintptr_t)interrupt;
    self->read = (int64_t (*)(pyuio_interrupt *, int64_t))(uintptr_t)read;
    self->wait = (int (*)(pyuio_interrupt *, int64_t))(uintptr_t)wait;
    Py_XSETREF(self->owner, Py_NewRef(owner));
    Py_XSETREF(self->presence, presence == Py_None ? NULL : (Presence *)Py_NewRef(presence));
    Py_XSETREF(self->loops, Py_NewRef(loops));
    self->patience = patience;
    Py_RETURN_NONE;
}

static int reader_traverse(Reader *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->owner);
    Py_VISIT(self->presence);
    Py_VISIT(self->loops);
    return 0;
}

static int reader_clear(Reader *self)
{
    self->interrupt = NULL;
    Py_CLEAR(self->owner);
    Py_CLEAR(self->presence);
    Py_CLEAR(self->loops);
    return 0;
}

static void reader_dealloc(Reader *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    reader_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef reader_methods[] = {
    {"read", (PyCFunction)(void (*)(void))reader_read, METH_FASTCALL | METH_KEYWORDS,
     "read($self, /, timeout=None)\n--\n\nReturn how many interrupts came since the last read, waiting for one if there "
     "is none.\n\nIf some are pending, it returns at once, and the interrupt stays masked. Otherwise it unmasks the\n"
     "interrupt and waits; the next interrupt masks it again. timeout is in seconds; None waits for ever, 0 does\nnot "
     "wait. See _reader.pyi."},
    {"poll", (PyCFunction)(void (*)(void))reader_poll, METH_FASTCALL | METH_KEYWORDS,
     "poll($self, /, timeout=0)\n--\n\nReturn whether an interrupt is pending, after waiting for one up to timeout "
     "seconds, unmasked meanwhile.\n\nNone waits for ever. The interrupt stays pending, for read. See _reader.pyi."},
    {"_connect", (PyCFunction)reader_connect, METH_VARARGS, "Tell what to read, and by which functions in C."},
    {"_note_read", (PyCFunction)reader_note_read, METH_NOARGS, "Note that interrupts were read in another way."},
    {0},
};

static PyMemberDef reader_members[] = {
    {"_unwritten", T_UINT, offsetof(Reader, unwritten), 0, "Reads in a row without a write to a register."},
    {"_patience", T_UINT, offsetof(Reader, patience), 0, "From so many on, _look_at_line() comes before a read."},
    {0},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, "What pyuio.Interrupt does without Python code. See _reader.pyi."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {Py_tp_methods, reader_methods},
    {Py_tp_members, reader_members},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "pyuio._native._reader.Reader",
    .basicsize = sizeof(Reader),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = reader_slots,
};

static int reader_exec(PyObject *module)
{
    PyObject *access = require_main_interpreter() < 0 ? NULL : PyImport_ImportModule("pyuio._native._access");
    PyObject *presence = access ? PyObject_GetAttrString(access, "Presence") : NULL;
    PyObject *type = presence ? PyType_FromModuleAndSpec(module, &reader_spec, NULL) : NULL;
    int result = type ? PyModule_AddType(module, (PyTypeObject *)type) : -1;

    Py_XDECREF(access);
    Py_XDECREF(type);
    if (presence)
        Py_XSETREF(presence_class, (PyTypeObject *)presence);
    return result;
}

static PyModuleDef_Slot reader_module_slots[] = {
    {Py_mod_exec, reader_exec},
    {0, NULL},
};

static struct PyModuleDef reader_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyuio._native._reader",
    .m_doc = "Reading an interrupt without Python code.",
    .m_slots = reader_module_slots,
};

PyMODINIT_FUNC PyInit__reader(void)
{
    return PyModuleDef_Init(&reader_module);
}
