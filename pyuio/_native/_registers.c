/* SPDX-License-Identifier: MIT */
/*
 * Register and Field: the short way of `pyuio.registers`, for registers of a Window (a BAR in memory).
 *
 * `regs.status.read()`, `regs.status.computing` and `regs.control.enable = 1` run here when there is nothing to refuse:
 * the register is bound to a Window, its declaration allows the access, and the value fits. All other calls, from a BAR
 * of I/O ports to a mistake, go to the Python classes that derive from these, to the methods whose names end in
 * _slowly. Those know the names and say what is wrong.
 *
 * The rules at the top of _access.c hold here, too: each call is one access, keeps the lock, and runs no Python code
 * from the checks to the access.
 */
#include "access_check.h"
#include "clipped.h"
#include "main_interpreter.h"

#define LIKELY(condition) __builtin_expect(!!(condition), 1)

typedef struct {
    PyObject_HEAD
    Window *window; /* NULL: Python makes every access */
    size_t offset;
    int bits;
    bool readable, writable; /* as a whole */
    uint64_t gettable;       /* bits of fields that may be read by name */
    uint64_t settable;       /* bits of fields that may be set by name */
    uint64_t unkept;         /* bits that a change of another field writes as 0, because writing 1 to them acts */
    uint64_t needed;         /* bits that must be read when another field is changed */
    uint64_t ones;           /* bits for which only writing 1 means anything */
} Register;

typedef struct {
    PyObject_HEAD
    uint64_t mask; /* in place */
    int low;
    bool is_bool;
    PyObject *table; /* NULL, or the members of an enumeration: a tuple by value, with None for no member */
} Field;

static PyTypeObject register_type, field_type;
static PyTypeObject *window_type;

INLINE bool reachable(const Register *self)
{
    return self->window &&
           below(self->window, self->window->limits[0], self->offset, (size_t)self->bits / 8, self->bits);
}

/* Reads the register; returns false, with an exception set, if it was not answered, or by a device that is gone. */
INLINE bool fetch(const Register *self, unsigned long *value)
{
    if (UNLIKELY(!load(self->window->base + self->offset, self->bits, value)))
        return unanswered(self->window, "read", self->bits, self->offset), false;
    if (self->window->big != PY_BIG_ENDIAN)
        *value = swapped(*value, self->bits);
    return !read_from_removed(self->window, *value, self->bits);
}

/* Writes the register; returns false, with an exception set, if it was not answered. */
INLINE bool put(const Register *self, unsigned long value)
{
    self->window->writes++;
    if (UNLIKELY(!store(self->window->base + self->offset,
                        self->window->big != PY_BIG_ENDIAN ? swapped(value, self->bits) : value, self->bits)))
        return unanswered(self->window, "write", self->bits, self->offset), false;
    return true;
}

/* ---- Register ---- */

static PyObject *register_read(Register *self, PyObject *Py_UNUSED(none))
{
    unsigned long value;

    if (LIKELY(self->readable && reachable(self)))
        return fetch(self, &value) ? PyLong_FromUnsignedLong(value) : NULL;
    return PyObject_CallMethod((PyObject *)self, "_read_slowly", NULL);
}

static PyObject *register_write(Register *self, PyObject *object)
{
    unsigned long value;
    int fits = number(object, &value);

    if (UNLIKELY(fits < 0))
        return NULL;
    if (LIKELY(fits && self->writable && reachable(self) && in_range(value, self->bits)))
        return put(self, value) ? Py_NewRef(Py_None) : NULL;
    return PyObject_CallMethod((PyObject *)self, "_write_slowly", "O", object);
}

static PyObject *register_attach(Register *self, PyObject *args)
{
    PyObject *window;
    unsigned long long gettable, settable, unkept, needed, ones;
    Py_ssize_t offset;
    int bits, readable, writable;

    if (!PyArg_ParseTuple(args, "O!O&ippKKKKK:_attach", window_type, &window, clipped, &offset, &bits, &readable,
                          &writable, &gettable, &settable, &unkept, &needed, &ones))
        return NULL;
    if (bits != 8 && bits != 16 && bits != 32 && bits != 64)
        return PyErr_Format(PyExc_ValueError, "a register has 8, 16, 32 or 64 bits, not %d", bits);
    if (bits > ((Window *)window)->widest) /* reachable() does not look at the width */
        return PyErr_Format(PyExc_ValueError, "the region has no access of %d bits", bits);
    self->offset = (size_t)offset; /* a negative one lies beyond any window */
    self->bits = bits;
    self->readable = readable;
    self->writable = writable;
    self->gettable = gettable;
    self->settable = settable;
    self->unkept = unkept;
    self->needed = needed;
    self->ones = ones;
    Py_XSETREF(self->window, (Window *)Py_NewRef(window));
    Py_RETURN_NONE;
}

static int register_traverse(Register *self, visitproc visit, void *arg)
{
    Py_VISIT(self->window);
    return 0;
}

static int register_clear(Register *self)
{
    Py_CLEAR(self->window);
    return 0;
}

static void register_dealloc(Register *self)
{
    PyObject_GC_UnTrack(self);
    register_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *register_init_subclass(PyObject *cls, PyObject *none);

static PyMethodDef register_methods[] = {
    {"read", (PyCFunction)register_read, METH_NOARGS,
     "read($self, /)\n--\n\nRead the register: one load. Returns its value."},
    {"write", (PyCFunction)register_write, METH_O,
     "write($self, value, /)\n--\n\nWrite the whole register: one store."},
    {"_attach", (PyCFunction)register_attach, METH_VARARGS,
     "Tell where the register is, and which accesses are allowed."},
    {"__init_subclass__", register_init_subclass, METH_CLASS | METH_NOARGS, "Give the subclass methods of its own."},
    {0},
};

/* As in _access.c: Python calls a C method faster when the method was made for the very type of the object. */
static PyObject *register_init_subclass(PyObject *cls, PyObject *Py_UNUSED(none))
{
    for (PyMethodDef *method = register_methods; method->ml_flags != METH_VARARGS; method++) {
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

static PyTypeObject register_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pyuio._native._registers.Register",
    .tp_doc = "What pyuio.registers.Register does without Python code. See _registers.pyi.",
    .tp_basicsize = sizeof(Register),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)register_dealloc,
    .tp_traverse = (traverseproc)register_traverse,
    .tp_clear = (inquiry)register_clear,
    .tp_methods = register_methods,
};

/* ---- Field ---- */

/* Converts a field's value to what Python sees. Returns NULL, and sets no exception, if the enumeration has
 * no such member. */
INLINE PyObject *converted(const Field *self, unsigned long value)
{
    PyObject *member;

    if (self->is_bool)
        return Py_NewRef(value ? Py_True : Py_False);
    if (!self->table)
        return PyLong_FromUnsignedLong(value);
    member = value < (size_t)PyTuple_GET_SIZE(self->table) ? PyTuple_GET_ITEM(self->table, value) : Py_None;
    return member == Py_None ? NULL : Py_NewRef(member);
}

static PyObject *field_get(Field *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    Register *of = (Register *)object;
    unsigned long value;
    PyObject *result;

    if (!object || object == Py_None)
        return Py_NewRef(self);
    if (UNLIKELY(!PyObject_TypeCheck(object, &register_type)))
        return PyErr_Format(PyExc_TypeError, "a field is one of a Register, not of %.100s", Py_TYPE(object)->tp_name);
    if (UNLIKELY(self->mask & ~of->gettable || !reachable(of)))
        return PyObject_CallMethod((PyObject *)self, "_get_slowly", "O", object);
    if (!fetch(of, &value))
        return NULL;
    value = (value & (unsigned long)self->mask) >> self->low;
    result = converted(self, value);
    if (UNLIKELY(!result && !PyErr_Occurred()))
        return PyObject_CallMethod((PyObject *)self, "_convert_slowly", "Ok", object, value);
    return result;
}

static int field_set(Field *self, PyObject *object, PyObject *given)
{
    Register *of = (Register *)object;
    unsigned long value, kept;
    PyObject *done;
    int fits;

    if (UNLIKELY(!PyObject_TypeCheck(object, &register_type)))
        return PyErr_Format(PyExc_TypeError, "a field is one of a Register, not of %.100s", Py_TYPE(object)->tp_name), -1;
    if (UNLIKELY(!given))
        return PyErr_SetString(PyExc_AttributeError, "a field of a register cannot be deleted"), -1;
    fits = number(given, &value);
    if (UNLIKELY(fits < 0))
        return -1;
    if (LIKELY(!(self->mask & ~of->settable) && fits && value <= (unsigned long)(self->mask >> self->low) &&
               (value || !(self->mask & of->ones)) && reachable(of))) {
        kept = 0;
        if (of->needed & ~self->mask) {
            if (!fetch(of, &kept))
                return -1;
            kept &= (unsigned long)~(self->mask | of->unkept);
        }
        return put(of, kept | value << self->low) ? 0 : -1;
    }
    done = PyObject_CallMethod((PyObject *)self, "_set_slowly", "OO", object, given);
    Py_XDECREF(done);
    return done ? 0 : -1;
}

static PyObject *field_place(Field *self, PyObject *args)
{
    unsigned long long mask;
    PyObject *table;
    int low, is_bool;

    if (!PyArg_ParseTuple(args, "iKpO:_place", &low, &mask, &is_bool, &table))
        return NULL;
    if (low < 0 || low > 63 || (table != Py_None && !PyTuple_Check(table)))
        return PyErr_Format(PyExc_ValueError, "no such field: from bit %d", low);
    self->low = low;
    self->mask = mask;
    self->is_bool = is_bool;
    Py_XSETREF(self->table, table == Py_None ? NULL : Py_NewRef(table));
    Py_RETURN_NONE;
}

static int field_traverse(Field *self, visitproc visit, void *arg)
{
    Py_VISIT(self->table);
    return 0;
}

static int field_clear(Field *self)
{
    Py_CLEAR(self->table);
    return 0;
}

static void field_dealloc(Field *self)
{
    PyObject_GC_UnTrack(self);
    field_clear(self);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef field_methods[] = {
    {"_place", (PyCFunction)field_place, METH_VARARGS, "Tell which bits the field has, and what they read as."},
    {"__class_getitem__", (PyCFunction)Py_GenericAlias, METH_O | METH_CLASS, "See PEP 585."},
    {0},
};

static PyTypeObject field_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pyuio._native._registers.Field",
    .tp_doc = "What pyuio.registers.Field does without Python code. See _registers.pyi.",
    .tp_basicsize = sizeof(Field),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_dealloc = (destructor)field_dealloc,
    .tp_traverse = (traverseproc)field_traverse,
    .tp_clear = (inquiry)field_clear,
    .tp_descr_get = (descrgetfunc)field_get,
    .tp_descr_set = (descrsetfunc)field_set,
    .tp_methods = field_methods,
};

static int registers_exec(PyObject *module)
{
    PyObject *access = require_main_interpreter() < 0 ? NULL : PyImport_ImportModule("pyuio._native._access");
    PyObject *window = access ? PyObject_GetAttrString(access, "Window") : NULL;

    Py_XDECREF(access);
    if (!window)
        return -1;
    Py_XSETREF(window_type, (PyTypeObject *)window);
    return PyModule_AddType(module, &register_type) < 0 ? -1 : PyModule_AddType(module, &field_type);
}

static PyModuleDef_Slot registers_slots[] = {
    {Py_mod_exec, registers_exec},
    {0, NULL},
};

static struct PyModuleDef registers_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyuio._native._registers",
    .m_doc = "Registers and fields by name.",
    .m_slots = registers_slots,
};

PyMODINIT_FUNC PyInit__registers(void)
{
    return PyModuleDef_Init(&registers_module);
}
