/* SPDX-License-Identifier: MIT */
/*
 * Window: memory-mapped registers. Each access is exactly one load or store of the width asked for.
 *
 * Python itself promises no such access: slicing a mapping copies by memmove, struct.pack_into stores a zero first, and
 * ctypes reads what it is about to write. But a register may act when it is read or written.
 *
 * - An access keeps the global interpreter lock: retaking it costs up to 5 ms when another Python thread is busy. The
 *   lock also makes update, set and clear indivisible for other Python threads.
 * - An access converts every argument before it checks anything, because a conversion may run Python code, which may
 *   close the window. From the check to the access no Python code can run.
 * - A free-threaded interpreter turns its lock on when it imports this module, because the module does not declare that
 *   it can do without the lock.
 *
 * The macro WIDTH makes the functions of the registers, for each width:
 *
 *     read8   write8   update8   set8   clear8
 *     read16  write16  update16  set16  clear16
 *     read32  write32  update32  set32  clear32
 *     read64  write64  update64  set64  clear64
 *
 * They call do_read, do_write and do_change. The macro ENTRY puts them into the method table.
 */
#include "access_block.h"
#include "clipped.h"
#include "main_interpreter.h"

#include <unistd.h>

/* ---- The accesses. The macro WIDTH, below, compiles each once for every width. ---- */

INLINE PyObject *do_read(Window *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, int bits)
{
    unsigned long offset, value;
    int big = self->big;
    int fits;

    if (UNLIKELY(nargs != 1 || kwnames)) {
        big = parse_endian(args, nargs, kwnames, 1, "read", bits, big);
        if (big < 0)
            return NULL;
    }
    fits = number(args[0], &offset);
    if (UNLIKELY(fits < 0))
        return NULL;
    if (UNLIKELY(!fits || !inside(self, offset, (size_t)bits / 8, bits)))
        return refuse_offset(self, "read", bits, args[0], (size_t)bits / 8);
    if (UNLIKELY(!load(self->base + offset, bits, &value)))
        return unanswered(self, "read", bits, offset);
    if (read_from_removed(self, value, bits))
        return NULL;
    return PyLong_FromUnsignedLong(big != PY_BIG_ENDIAN ? swapped(value, bits) : value);
}

INLINE PyObject *do_write(Window *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, int bits)
{
    unsigned long offset, value;
    int big = self->big;
    int fits, value_fits;

    if (UNLIKELY(nargs != 2 || kwnames)) {
        big = parse_endian(args, nargs, kwnames, 2, "write", bits, big);
        if (big < 0)
            return NULL;
    }
    fits = number(args[0], &offset);
    value_fits = fits < 0 ? -1 : number(args[1], &value);
    if (UNLIKELY(value_fits < 0))
        return NULL;
    if (UNLIKELY(!fits || !inside(self, offset, (size_t)bits / 8, bits)))
        return refuse_offset(self, "write", bits, args[0], (size_t)bits / 8);
    if (UNLIKELY(!value_fits || !in_range(value, bits)))
        return refuse_value(self, "write", bits, args[0], "value", args[1]);
    self->writes++;
    if (UNLIKELY(!store(self->base + offset, big != PY_BIG_ENDIAN ? swapped(value, bits) : value, bits)))
        return unanswered(self, "write", bits, offset);
    Py_RETURN_NONE;
}

enum change { UPDATE, SET, CLEAR };

INLINE PyObject *do_change(Window *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, int bits,
                           enum change change)
{
    static const char *const verbs[] = {"update", "set", "clear"};
    const char *verb = verbs[change];
    int wanted = change == UPDATE ? 3 : 2;
    unsigned long offset, mask, value = 0, old, new;
    int big = self->big;
    int fits, mask_fits, value_fits;

    if (UNLIKELY(nargs != wanted || kwnames)) {
        big = parse_endian(args, nargs, kwnames, wanted, verb, bits, big);
        if (big < 0)
            return NULL;
    }
    fits = number(args[0], &offset);
    mask_fits = fits < 0 ? -1 : number(args[1], &mask);
    value_fits = mask_fits < 0 || change != UPDATE ? mask_fits : number(args[2], &value);
    if (UNLIKELY(value_fits < 0))
        return NULL;
    if (UNLIKELY(!fits || !inside(self, offset, (size_t)bits / 8, bits)))
        return refuse_offset(self, verb, bits, args[0], (size_t)bits / 8);
    if (UNLIKELY(!mask_fits || !in_range(mask, bits)))
        return refuse_value(self, verb, bits, args[0], "mask", args[1]);
    if (UNLIKELY(!value_fits || !in_range(value, bits)))
        return refuse_value(self, verb, bits, args[0], "value", args[2]);
    if (UNLIKELY(value & ~mask))
        return refuse_outside_mask(self, bits, args);
    if (big != PY_BIG_ENDIAN) { /* one swap here, rather than one after the read and one before the write */
        mask = swapped(mask, bits);
        value = swapped(value, bits);
    }
    if (UNLIKELY(!load(self->base + offset, bits, &old)))
        return unanswered(self, "read", bits, offset);
    if (read_from_removed(self, old, bits))
        return NULL;
    new = change == SET ? old | mask : (old & ~mask) | value;
    self->writes++;
    if (UNLIKELY(!store(self->base + offset, new, bits)))
        return unanswered(self, "write", bits, offset);
    Py_RETURN_NONE;
}

/* ---- Life ---- */

static PyObject *window_close(Window *self, PyObject *Py_UNUSED(none))
{
    Py_buffer buffer = self->buffer;

    self->open = false;
    window_set_limit(self, 0);
    self->base = NULL;
    presence_leave(self);
    self->buffer.obj = NULL; /* first, because releasing may run Python code, which may come back here */
    PyBuffer_Release(&buffer); /* a second time this does nothing */
    Py_RETURN_NONE;
}

static PyObject *window_join(Window *self, PyObject *presence)
{
    if (!Py_IS_TYPE(presence, &presence_type))
        return PyErr_Format(PyExc_TypeError, "a Presence is wanted, not %.100s", Py_TYPE(presence)->tp_name);
    if (!self->open)
        return refuse_closed(self);
    presence_join((Presence *)presence, self);
    Py_RETURN_NONE;
}

/* Returns how many bytes from the start of the buffer may be touched. */
static Py_ssize_t reachable(const Py_buffer *buffer)
{
    Py_ssize_t page = (Py_ssize_t)sysconf(_SC_PAGESIZE);
    PyObject *module = PyImport_ImportModule("mmap");
    PyObject *type = module ? PyObject_GetAttrString(module, "mmap") : NULL;
    bool is_mmap;

    Py_XDECREF(module);
    if (!type)
        return -1;
    /* The type of what gave the memory: an object's __class__ may claim anything, and so may a __buffer__. */
    is_mmap = buffer->obj && PyType_Check(type) && PyType_IsSubtype(Py_TYPE(buffer->obj), (PyTypeObject *)type);
    Py_DECREF(type);
    /* The kernel maps whole pages, while Python's mmap is as long as was asked for. The file of a BAR smaller than a
     * page has the BAR's size, and its registers may start anywhere in their page. */
    return is_mmap ? (buffer->len + page - 1) / page * page : buffer->len;
}

static int window_init(Window *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"", "offset", "size", "name", "endian", "width", NULL};
    PyObject *object, *name = NULL;
    int width = 64;
    Py_ssize_t offset = PY_SSIZE_T_MIN, size = PY_SSIZE_T_MIN, available;
    const char *endian = NULL;
    Py_buffer buffer;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$O&O&Usi:Window", keywords, &object, clipped, &offset, clipped,
                                     &size, &name, &endian, &width))
        return -1;
    if (!name || !endian || size == PY_SSIZE_T_MIN || offset == PY_SSIZE_T_MIN)
        return PyErr_SetString(PyExc_TypeError, "a window needs offset, size, name and endian"), -1;
    if (self->name)
        return PyErr_SetString(PyExc_TypeError, "a window cannot be initialised twice"), -1;
    if (strcmp(endian, "big") != 0 && strcmp(endian, "little") != 0)
        return PyErr_Format(PyExc_ValueError, "endian must be 'little' or 'big', not '%s'", endian), -1;
    if (width != 8 && width != 16 && width != 32 && width != 64)
        return PyErr_Format(PyExc_ValueError, "%U: the widest access is of 8, 16, 32 or 64 bits, not %d", name, width), -1;
    if (PyObject_GetBuffer(object, &buffer, PyBUF_WRITABLE) < 0)
        return -1;
    available = reachable(&buffer);
    if (available < 0 || offset < 0 || size < 1 || offset > available || size > available - offset || self->name) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "%U: %zd bytes at offset %zd are not inside the mapping of %zd bytes", name,
                         size, offset, available);
        PyBuffer_Release(&buffer);
        return -1;
    }
    self->buffer = buffer;
    self->name = Py_NewRef(name);
    self->base = (volatile unsigned char *)buffer.buf + offset;
    self->size = (size_t)size;
    self->widest = width;
    window_set_limit(self, self->size);
    self->big = strcmp(endian, "big") == 0;
    self->open = true;
    bus_error_handle();
    return 0;
}

static int window_traverse(Window *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->buffer.obj);
    Py_VISIT(self->name);
    return 0;
}

static int window_clear(Window *self)
{
    Py_XDECREF(window_close(self, NULL));
    return 0; /* the name stays, for the message to a caller that still uses the window */
}

static void window_dealloc(Window *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    window_clear(self);
    Py_CLEAR(self->name);
    Py_CLEAR(self->presence);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *get_size(Window *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->size);
}

static PyObject *get_name(Window *self, void *Py_UNUSED(closure))
{
    return self->name ? Py_NewRef(self->name) : PyUnicode_FromString("the window");
}

static PyObject *get_endian(Window *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(self->big ? "big" : "little");
}

static PyObject *get_width(Window *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(self->widest);
}

static PyObject *get_closed(Window *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!self->open);
}

static PyObject *get_presence(Window *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->presence ? (PyObject *)self->presence : Py_None);
}

static PyGetSetDef window_getset[] = {
    {"size", (getter)get_size, NULL, "Size in bytes.", NULL},
    {"name", (getter)get_name, NULL, "The name in error messages.", NULL},
    {"endian", (getter)get_endian, NULL, "Byte order of the registers: 'little' or 'big'.", NULL},
    {"width", (getter)get_width, NULL, "The widest access in bits: 8, 16, 32 or 64.", NULL},
    {"closed", (getter)get_closed, NULL, "Whether close() was called.", NULL},
    {"presence", (getter)get_presence, NULL, "The Presence of the device; None for memory of no device.", NULL},
    {0},
};

/* Makes the five functions of one width; the head of this file lists them. */
#define WIDTH(bits)                                                                                                   \
    static PyObject *read##bits(Window *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)             \
    {                                                                                                                 \
        return do_read(self, args, nargs, kwnames, bits);                                                             \
    }                                                                                                                 \
    static PyObject *write##bits(Window *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)            \
    {                                                                                                                 \
        return do_write(self, args, nargs, kwnames, bits);                                                            \
    }                                                                                                                 \
    static PyObject *update##bits(Window *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)           \
    {                                                                                                                 \
        return do_change(self, args, nargs, kwnames, bits, UPDATE);                                                   \
    }                                                                                                                 \
    static PyObject *set##bits(Window *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)              \
    {                                                                                                                 \
        return do_change(self, args, nargs, kwnames, bits, SET);                                                      \
    }                                                                                                                 \
    static PyObject *clear##bits(Window *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)            \
    {                                                                                                                 \
        return do_change(self, args, nargs, kwnames, bits, CLEAR);                                                    \
    }

WIDTH(8)
WIDTH(16)
WIDTH(32)
WIDTH(64)

#define ENTRY(verb, bits, arguments, what)                                                                            \
    {                                                                                                                 \
        #verb #bits, (PyCFunction)(void (*)(void))verb##bits, METH_FASTCALL | METH_KEYWORDS,                          \
            #verb #bits "($self, " arguments ", /, *, endian=None)\n--\n\n" what                                       \
            "\n\nThe offset is in bytes and a multiple of the width. endian is 'little', 'big' or None, the region's."  \
    }
#define ENTRIES(bits)                                                                                                 \
    ENTRY(read, bits, "offset", "Read a register of " #bits " bits: one load. Returns its value."),                   \
    ENTRY(write, bits, "offset, value", "Write a register of " #bits " bits: one store."),                            \
    ENTRY(update, bits, "offset, mask, value",                                                                        \
          "Give the bits in mask of a register of " #bits " bits the ones in value: one load, one store."),           \
    ENTRY(set, bits, "offset, mask", "Set the bits in mask of a register of " #bits " bits: one load, one store."),   \
    ENTRY(clear, bits, "offset, mask", "Clear the bits in mask of a register of " #bits " bits: one load, one store.")

static PyObject *window_init_subclass(PyObject *cls, PyObject *none);

static PyMethodDef window_methods[] = {
    ENTRIES(8),
    ENTRIES(16),
    ENTRIES(32),
    ENTRIES(64),
    {"read", (PyCFunction)(void (*)(void))window_read, METH_VARARGS | METH_KEYWORDS,
     "read($self, offset, /, length, width=4, *, fixed=False)\n--\n\n"
     "Read length bytes by ascending loads of width bytes each (1, 2, 4 or 8), or by loads of the same place if fixed is "
     "true. Returns bytes, in memory order."},
    {"write", (PyCFunction)(void (*)(void))window_write, METH_VARARGS | METH_KEYWORDS,
     "write($self, offset, /, data, width=4, *, fixed=False)\n--\n\n"
     "Write a bytes-like object by ascending stores of width bytes each (1, 2, 4 or 8), or by stores to the same place "
     "if fixed is true, in memory order."},
    {"close", (PyCFunction)window_close, METH_NOARGS,
     "close($self, /)\n--\n\nRelease the mapping. Later accesses raise ClosedError; a second close does nothing."},
    {"_join", (PyCFunction)window_join, METH_O,
     "_join($self, presence, /)\n--\n\nBelong to a device: accesses raise DeviceRemovedError once it is gone."},
    {"__init_subclass__", window_init_subclass, METH_CLASS | METH_NOARGS, "Give the subclass methods of its own."},
    {0},
};

/* Python 3.11 and later call a C method faster when the object has the very type that the method was made for. So this
 * gives every subclass methods of its own, except those that the subclass or a class between overrides. */
static PyObject *window_init_subclass(PyObject *cls, PyObject *Py_UNUSED(none))
{
    for (PyMethodDef *method = window_methods; method->ml_flags & METH_FASTCALL; method++) {
        PyObject *found = PyObject_GetAttrString(cls, method->ml_name), *own = NULL;
        int result = found ? 0 : -1;

        if (found && Py_IS_TYPE(found, &PyMethodDescr_Type) && ((PyMethodDescrObject *)found)->d_method == method) {
            own = PyDescr_NewMethod((PyTypeObject *)cls, method);
            result = own ? PyObject_SetAttrString(cls, method->ml_name, own) : -1;
        }
        Py_XDECREF(own);
        Py_XDECREF(found);
        if (result < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyType_Slot window_slots[] = {
    {Py_tp_doc, "Window(buffer, *, offset, size, name, endian, width=64)\n--\n\n"
                "Memory-mapped registers, each access exactly one load or store. See _access.pyi."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, window_init},
    {Py_tp_dealloc, window_dealloc},
    {Py_tp_traverse, window_traverse},
    {Py_tp_clear, window_clear},
    {Py_tp_methods, window_methods},
    {Py_tp_getset, window_getset},
    {0, NULL},
};

static PyType_Spec window_spec = {
    .name = "pyuio._native._access.Window",
    .basicsize = sizeof(Window),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = window_slots,
};

static int access_exec(PyObject *module)
{
    PyObject *type = require_main_interpreter() < 0 ? NULL : PyType_FromModuleAndSpec(module, &window_spec, NULL);
    int result = type ? PyModule_AddType(module, (PyTypeObject *)type) : -1;

    Py_XDECREF(type);
    return result < 0 ? result : PyModule_AddType(module, &presence_type);
}

static PyModuleDef_Slot access_slots[] = {
    {Py_mod_exec, access_exec},
    {0, NULL},
};

static struct PyModuleDef access_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyuio._native._access",
    .m_doc = "Memory-mapped register access of exact width.",
    .m_slots = access_slots,
};

PyMODINIT_FUNC PyInit__access(void)
{
    return PyModuleDef_Init(&access_module);
}
