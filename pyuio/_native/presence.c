/* SPDX-License-Identifier: MIT */
/* The class Presence, as Python sees it. removal.h says what it does. */
#include "removal.h"

#include <fcntl.h>

static PyObject *presence_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"name", NULL};
    PyObject *name;
    Presence *self;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "U:Presence", keywords, &name))
        return NULL;
    self = (Presence *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->name = Py_NewRef(name);
    self->config = self->node = self->request = -1;
    return (PyObject *)self;
}

static int duplicate_into(int *mine, PyObject *given)
{
    int file = PyObject_AsFileDescriptor(given);
    int duplicate = file < 0 ? -1 : fcntl(file, F_DUPFD_CLOEXEC, 0);

    if (duplicate < 0) {
        if (file >= 0)
            PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (*mine >= 0)
        close(*mine);
    *mine = duplicate;
    return 0;
}

static PyObject *presence_ask_config(Presence *self, PyObject *args)
{
    PyObject *file;
    long long start = 0;

    if (!PyArg_ParseTuple(args, "O|L:ask_config", &file, &start) || duplicate_into(&self->config, file) < 0)
        return NULL;
    self->config_start = start;
    Py_RETURN_NONE;
}

static PyObject *presence_ask_node(Presence *self, PyObject *file)
{
    if (duplicate_into(&self->node, file) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *presence_ask_request(Presence *self, PyObject *file)
{
    if (duplicate_into(&self->request, file) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *note_gone(Presence *self, PyObject *Py_UNUSED(none))
{
    presence_note_gone(self);
    Py_RETURN_NONE;
}

static PyObject *is_gone(Presence *self, PyObject *Py_UNUSED(none))
{
    return PyBool_FromLong(presence_is_gone(self));
}

static PyObject *require(Presence *self, PyObject *Py_UNUSED(none))
{
    if (presence_is_gone(self))
        return presence_refuse(self->name);
    Py_RETURN_NONE;
}

static PyObject *note_write(Presence *self, PyObject *Py_UNUSED(none))
{
    self->writes++;
    Py_RETURN_NONE;
}

static PyObject *asserts_interrupt(Presence *self, PyObject *Py_UNUSED(none))
{
    uint8_t status[2]; /* PCI Local Bus Specification 3.0, section 6.2.3 */
    bool there = self->config >= 0 && pread(self->config, status, sizeof status, self->config_start + 6) == sizeof status;

    return PyBool_FromLong(there && (status[0] & 1 << 3) && !(status[0] == 0xff && status[1] == 0xff));
}

static PyObject *presence_close(Presence *self, PyObject *Py_UNUSED(none))
{
    int *files[] = {&self->config, &self->node, &self->request};

    for (size_t i = 0; i < 3; i++) {
        if (*files[i] >= 0)
            close(*files[i]);
        *files[i] = -1;
    }
    Py_RETURN_NONE;
}

static void presence_dealloc(Presence *self)
{
    Py_XDECREF(presence_close(self, NULL)); /* its list is empty, because each window holds a reference to it */
    Py_CLEAR(self->name);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *get_gone(Presence *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->gone);
}

static PyMethodDef presence_methods[] = {
    {"ask_config", (PyCFunction)presence_ask_config, METH_VARARGS,
     "ask_config($self, file, start=0, /)\n--\n\nAsk by the configuration space, which starts at `start` in the file of "
     "this descriptor, from now on. Duplicates it."},
    {"ask_node", (PyCFunction)presence_ask_node, METH_O,
     "ask_node($self, file, /)\n--\n\nAsk by this descriptor of an attribute of the node from now on. Duplicates it."},
    {"ask_request", (PyCFunction)presence_ask_request, METH_O,
     "ask_request($self, file, /)\n--\n\nAsk by this eventfd, readable once the device is gone. Duplicates it."},
    {"note_gone", (PyCFunction)note_gone, METH_NOARGS,
     "note_gone($self, /)\n--\n\nTell that the device is gone: every later access to its registers raises."},
    {"is_gone", (PyCFunction)is_gone, METH_NOARGS,
     "is_gone($self, /)\n--\n\nReturn whether the device is gone; ask the kernel."},
    {"require", (PyCFunction)require, METH_NOARGS,
     "require($self, /)\n--\n\nAsk the kernel, and raise DeviceRemovedError if the device is gone."},
    {"note_write", (PyCFunction)note_write, METH_NOARGS,
     "note_write($self, /)\n--\n\nTell of a write to a register that has no window."},
    {"asserts_interrupt", (PyCFunction)asserts_interrupt, METH_NOARGS,
     "asserts_interrupt($self, /)\n--\n\nReturn whether the function asserts INTx now, masked or not; False if that "
     "cannot be known."},
    {"close", (PyCFunction)presence_close, METH_NOARGS,
     "close($self, /)\n--\n\nClose the files; what is known stays known. A second close does nothing."},
    {0},
};

static PyGetSetDef presence_getset[] = {
    {"gone", (getter)get_gone, NULL, "Whether the device is known to be gone, without asking.", NULL},
    {0},
};

PyTypeObject presence_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pyuio._native._access.Presence",
    .tp_doc = "Presence(name)\n--\n\nWhether an open device is still there. See _access.pyi.",
    .tp_basicsize = sizeof(Presence),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = presence_new,
    .tp_dealloc = (destructor)presence_dealloc,
    .tp_methods = presence_methods,
    .tp_getset = presence_getset,
};
