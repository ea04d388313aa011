/* SPDX-License-Identifier: MIT */
/*
 * Runner and Prepared: the short way of `Device.run`, for programs whose registers are all in memory.
 *
 * A Prepared is a program in the form that program.c runs. A Runner, from which Device derives, remembers those that it
 * ran last, so that a program that is run again and again is made ready once. It compares the operations themselves, and
 * they cannot change: so a list that was changed meanwhile is another program.
 *
 * The rules at the top of _access.c hold here, too: a run keeps the global interpreter lock, and no Python code runs from
 * the check of the windows to the last access. Programs that are not remembered are for the method _run_slowly of the
 * class that derives.
 */
#include "access_check.h"
#include "main_interpreter.h"
#include "program.h"

#define REMEMBERED 8     /* programs of one device */
#define FEW_VALUES 32    /* that a program keeps without memory from the heap */

typedef int (*run_function)(const pyuio_operation *operations, int operation_count, pyuio_interrupt *interrupt,
                            void *counters, pyuio_event *event);

typedef struct {
    PyObject_HEAD
    run_function run;
    const pyuio_operation *native;
    int length;
    Py_ssize_t slots;     /* values that it keeps */
    PyObject *owner;      /* what frees `native` */
    PyObject *operations; /* a tuple: the program as Python has it */
    PyObject *windows;    /* a tuple of Window */
    PyObject *names;      /* a tuple: of the first values */
    PyObject *finish;     /* gets these values as a dict, and the others, if there are any, as a tuple, and returns the
                           * result; if the program keeps nothing, it is the result */
} Prepared;

typedef struct {
    PyObject_HEAD
    Prepared *recent[REMEMBERED]; /* NULL for none; the last one first */
} Runner;

static PyTypeObject prepared_type;
static PyTypeObject *window_class;

/* ---- Prepared ---- */

/* Returns whether all windows can be accessed, and notes that they are written to; false, with an exception set, if one is
 * closed, or a device is gone. */
static bool is_ready(const Prepared *self)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->windows); i++) {
        Window *window = (Window *)PyTuple_GET_ITEM(self->windows, i);

        if (UNLIKELY(window->limits[0] == 0)) {
            if (!window->open)
                refuse_closed(window);
            else
                presence_refuse(window->name);
            return false;
        }
        window->writes++;
    }
    return true;
}

/* Returns true, with DeviceRemovedError set, if a value was read from a device that is gone. It looks at the last value of
 * each read: a device that is gone stays so. */
static bool has_read_from_removed(Prepared *self, const pyuio_event *event)
{
    for (int i = 0; i < self->length; i++) {
        const pyuio_operation *one = &self->native[i];

        if ((one->kind != PYUIO_READ && one->kind != PYUIO_APPEND) ||
            !all_ones_or_zero((unsigned long)event->values[one->slot], one->bits))
            continue;
        for (Py_ssize_t j = 0; j < PyTuple_GET_SIZE(self->windows); j++) {
            Window *window = (Window *)PyTuple_GET_ITEM(self->windows, j);

            if (window->presence && raise_if_removed(window))
                return true;
        }
        break;
    }
    return false;
}

/* Returns what a run has kept, as the result that Python makes of it. */
static PyObject *finished(Prepared *self, const pyuio_event *event)
{
    Py_ssize_t named = PyTuple_GET_SIZE(self->names);
    PyObject *values = PyDict_New(), *rest = values ? PyTuple_New(self->slots - named) : NULL, *result = NULL;

    for (Py_ssize_t i = 0; rest && i < self->slots; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(event->values[i]);

        if (value && i >= named) {
            PyTuple_SET_ITEM(rest, i - named, value);
        } else if (!value || PyDict_SetItem(values, PyTuple_GET_ITEM(self->names, i), value) < 0) {
            Py_CLEAR(rest);
            Py_XDECREF(value);
        } else {
            Py_DECREF(value);
        }
    }
    if (rest)
        result = PyObject_CallFunctionObjArgs(self->finish, values, self->slots > named ? rest : NULL, NULL);
    Py_XDECREF(values);
    Py_XDECREF(rest);
    return result;
}

/* Raises the reason why a run has ended early. It names all windows, since the run does not say which access it was. */
static COLD PyObject *unfinished(Prepared *self, int error)
{
    PyObject *names = NULL;
    Presence *presence = NULL;

    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->windows); i++) {
        Window *window = (Window *)PyTuple_GET_ITEM(self->windows, i);

        Py_XSETREF(names, names ? PyUnicode_FromFormat("%U or %U", names, window->name) : Py_NewRef(window->name));
        if (!names)
            return NULL;
        if (window->presence) /* all are of one device */
            presence = window->presence;
    }
    errno = -error;
    if (error == -EFAULT && names)
        refuse_unanswered(presence, names, "an access of a program");
    else
        PyErr_SetFromErrno(PyExc_OSError);
    Py_XDECREF(names);
    return NULL;
}

static PyObject *prepared_run(Prepared *self, PyObject *Py_UNUSED(none))
{
    struct {
        pyuio_event event;
        uint64_t values[FEW_VALUES];
    } few;
    size_t size = sizeof few.event + (size_t)self->slots * sizeof(uint64_t);
    pyuio_event *event;
    PyObject *result;
    int error;

    if (!is_ready(self))
        return NULL;
    event = self->slots <= FEW_VALUES ? &few.event : PyMem_Malloc(size);
    if (!event)
        return PyErr_NoMemory();
    memset(event, 0, size);
    error = self->run(self->native, self->length, NULL, NULL, event);
    if (UNLIKELY(error < 0)) {
        result = unfinished(self, error);
    } else if (self->slots == 0) {
        result = Py_NewRef(self->finish);
    } else {
        result = has_read_from_removed(self, event) ? NULL : finished(self, event);
    }
    if (event != &few.event)
        PyMem_Free(event);
    return result;
}

static PyObject *prepared_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"", "", "length", "slots", "owner", "operations", "windows", "names", "finish", NULL};
    unsigned long long run, native;
    PyObject *owner, *operations, *windows, *names, *finish;
    Py_ssize_t slots;
    Prepared *self;
    int length;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KK$inOO!O!O!O:Prepared", keywords, &run, &native, &length, &slots,
                                     &owner, &PyTuple_Type, &operations, &PyTuple_Type, &windows, &PyTuple_Type, &names,
                                     &finish))
        return NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(windows); i++) {
        if (!PyObject_TypeCheck(PyTuple_GET_ITEM(windows, i), window_class))
            return PyErr_Format(PyExc_TypeError, "a Window is wanted, not %.100s",
                                Py_TYPE(PyTuple_GET_ITEM(windows, i))->tp_name);
    }
    self = (Prepared *)type->tp_alloc(type, 0);
    if (!self)
        return NULL;
    self->run = (run_function)(uintptr_t)run;
    self->native = (const pyuio_operation *)(uintptr_t)native;
    self->length = length;
    self->slots = slots;
    self->owner = Py_NewRef(owner);
    self->operations = Py_NewRef(operations);
    self->windows = Py_NewRef(windows);
    self->names = Py_NewRef(names);
    self->finish = Py_NewRef(finish);
    return (PyObject *)self;
}

static int prepared_traverse(Prepared *self, visitproc visit, void *arg)
{
    Py_VISIT(self->owner);
    Py_VISIT(self->operations);
    Py_VISIT(self->windows);
    Py_VISIT(self->names);
    Py_VISIT(self->finish);
    return 0;
}

static void prepared_dealloc(Prepared *self)
{
    PyObject_GC_UnTrack(self);
    Py_XDECREF(self->owner);
    Py_XDECREF(self->operations);
    Py_XDECREF(self->windows);
    Py_XDECREF(self->names);
    Py_XDECREF(self->finish);
    Py_TYPE(self)->tp_free(self);
}

static PyMethodDef prepared_methods[] = {
    {"run", (PyCFunction)prepared_run, METH_NOARGS, "Do all operations now, and return what they kept."},
    {0},
};

/* No tp_clear: it is immutable, and what refers to it, a Runner, has one. */
static PyTypeObject prepared_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "pyuio._native._program.Prepared",
    .tp_doc = "A program in the form that C runs. See _program.pyi.",
    .tp_basicsize = sizeof(Prepared),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = prepared_new,
    .tp_dealloc = (destructor)prepared_dealloc,
    .tp_traverse = (traverseproc)prepared_traverse,
    .tp_methods = prepared_methods,
};

/* ---- Runner ---- */

/* Returns whether a list or a tuple has the very operations of a program. */
static bool is_the_same(PyObject *given, const Prepared *prepared)
{
    Py_ssize_t length = PyTuple_GET_SIZE(prepared->operations);
    PyObject **items = PySequence_Fast_ITEMS(given);

    return PySequence_Fast_GET_SIZE(given) == length &&
           memcmp(items, PySequence_Fast_ITEMS(prepared->operations), (size_t)length * sizeof *items) == 0;
}

static PyObject *runner_run(Runner *self, PyObject *program)
{
    if (PyList_CheckExact(program) || PyTuple_CheckExact(program)) {
        for (int i = 0; i < REMEMBERED && self->recent[i]; i++) {
            Prepared *prepared = self->recent[i];

            if (is_the_same(program, prepared)) {
                PyObject *result;

                Py_INCREF(prepared); /* making the result may run Python code, which may close the device */
                result = prepared_run(prepared, NULL);
                Py_DECREF(prepared);
                return result;
            }
        }
    }
    return PyObject_CallMethod((PyObject *)self, "_run_slowly", "O", program);
}

static PyObject *runner_remember(Runner *self, PyObject *prepared)
{
    Prepared *oldest = self->recent[REMEMBERED - 1];

    if (!Py_IS_TYPE(prepared, &prepared_type))
        return PyErr_Format(PyExc_TypeError, "a Prepared is wanted, not %.100s", Py_TYPE(prepared)->tp_name);
    memmove(self->recent + 1, self->recent, (REMEMBERED - 1) * sizeof *self->recent);
    self->recent[0] = (Prepared *)Py_NewRef(prepared);
    Py_XDECREF(oldest);
    Py_RETURN_NONE;
}

static int runner_clear(Runner *self)
{
    for (int i = 0; i < REMEMBERED; i++)
        Py_CLEAR(self->recent[i]);
    return 0;
}

static PyObject *runner_forget(Runner *self, PyObject *Py_UNUSED(none))
{
    runner_clear(self);
    Py_RETURN_NONE;
}

static int runner_traverse(Runner *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    for (int i = 0; i < REMEMBERED; i++)
        Py_VISIT(self->recent[i]);
    return 0;
}

static void runner_dealloc(Runner *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    runner_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef runner_methods[] = {
    {"run", (PyCFunction)runner_run, METH_O,
     "run($self, program, /)\n--\n\nDo a program of register operations now, in one call. See _program.pyi."},
    {"_remember", (PyCFunction)runner_remember, METH_O, "Run this program the short way from now on."},
    {"_forget_programs", (PyCFunction)runner_forget, METH_NOARGS, "Forget all programs."},
    {0},
};

static PyType_Slot runner_slots[] = {
    {Py_tp_doc, "What pyuio.Device does without Python code. See _program.pyi."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, runner_dealloc},
    {Py_tp_traverse, runner_traverse},
    {Py_tp_clear, runner_clear},
    {Py_tp_methods, runner_methods},
    {0, NULL},
};

static PyType_Spec runner_spec = {
    .name = "pyuio._native._program.Runner",
    .basicsize = sizeof(Runner),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = runner_slots,
};

static int program_exec(PyObject *module)
{
    PyObject *access = require_main_interpreter() < 0 ? NULL : PyImport_ImportModule("pyuio._native._access");
    PyObject *window = access ? PyObject_GetAttrString(access, "Window") : NULL;
    PyObject *runner = window ? PyType_FromModuleAndSpec(module, &runner_spec, NULL) : NULL;
    int result = runner ? PyModule_AddType(module, (PyTypeObject *)runner) : -1;

    Py_XDECREF(access);
    Py_XDECREF(runner);
    if (window)
        Py_XSETREF(window_class, (PyTypeObject *)window);
    return result < 0 ? result : PyModule_AddType(module, &prepared_type);
}

static PyModuleDef_Slot program_slots[] = {
    {Py_mod_exec, program_exec},
    {0, NULL},
};

static struct PyModuleDef program_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyuio._native._program",
    .m_doc = "Register operations in one call.",
    .m_slots = program_slots,
};

PyMODINIT_FUNC PyInit__program(void)
{
    return PyModuleDef_Init(&program_module);
}
