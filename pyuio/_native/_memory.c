/* SPDX-License-Identifier: MIT */
/*
 * Span: a part of another object's memory that can be written, exported, sliced and closed. It is the base class of
 * `pyuio.dma.DmaBuffer`, because a class in Python has no buffer protocol before 3.12.
 *
 * The functions are what the standard library lacks: pinning a page, keeping a mapping out of forked children, filling
 * the hole that it leaves there, and the barriers of DMA. See _memory.pyi.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "clipped.h"
#include "main_interpreter.h"

/* Linux's dma_wmb and dma_rmb: arch/x86/include/asm/barrier.h, where the processor keeps the order of stores, and of
 * loads, of ordinary memory, and only the compiler must not reorder them; arch/arm64/include/asm/barrier.h. */
#if defined(__x86_64__) || defined(__i386__)
#define DMA_WMB() __asm__ volatile("" ::: "memory")
#define DMA_RMB() __asm__ volatile("" ::: "memory")
#elif defined(__aarch64__)
#define DMA_WMB() __asm__ volatile("dmb oshst" ::: "memory")
#define DMA_RMB() __asm__ volatile("dmb oshld" ::: "memory")
#else
#define DMA_WMB() __sync_synchronize()
#define DMA_RMB() __sync_synchronize()
#endif

typedef struct {
    PyObject_HEAD
    char *base;
    Py_ssize_t size;
    Py_ssize_t exports; /* buffers of it that others hold; the memory stays until there are none */
    bool open;
    Py_buffer parent;
} Span;

static int require_open(Span *self)
{
    PyObject *errors, *closed;

    if (self->open)
        return 0;
    errors = PyImport_ImportModule("pyuio.errors");
    closed = errors ? PyObject_GetAttrString(errors, "ClosedError") : NULL;
    if (closed)
        PyErr_SetString(closed, "the buffer is closed, or belongs to the process that this one was forked from");
    Py_XDECREF(closed);
    Py_XDECREF(errors);
    return -1;
}

/* ---- Life ---- */

/* Releases the memory. */
static void release_parent(Span *self)
{
    Py_buffer parent = self->parent;

    self->parent.obj = NULL; /* first, because releasing may run Python code, which may come back here */
    PyBuffer_Release(&parent);
}

static int span_init(Span *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"", "", "", NULL};
    PyObject *object;
    Py_ssize_t offset, size;
    Py_buffer parent;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO&O&:Span", keywords, &object, clipped, &offset, clipped, &size))
        return -1;
    if (PyObject_GetBuffer(object, &parent, PyBUF_WRITABLE) < 0)
        return -1;
    if (self->base || offset < 0 || size < 1 || offset > parent.len || size > parent.len - offset) {
        if (self->base)
            PyErr_SetString(PyExc_TypeError, "a span cannot be initialised twice");
        else
            PyErr_Format(PyExc_ValueError, "%zd bytes at offset %zd are not inside %zd bytes", size, offset,
                         parent.len);
        PyBuffer_Release(&parent);
        return -1;
    }
    self->parent = parent;
    self->base = (char *)parent.buf + offset;
    self->size = size;
    self->open = true;
    return 0;
}

static PyObject *span_close(Span *self, PyObject *Py_UNUSED(none))
{
    self->open = false;
    if (self->exports == 0)
        release_parent(self);
    Py_RETURN_NONE;
}

static int span_traverse(Span *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->parent.obj);
    return 0;
}

/* There is no tp_clear: a span in a cycle releases its memory when it is deallocated, and no exporter of memory refers
 * to its spans. */
static void span_dealloc(Span *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    release_parent(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- The buffer protocol ---- */

static int span_getbuffer(Span *self, Py_buffer *view, int flags)
{
    view->obj = NULL;
    if (require_open(self) < 0 ||
        PyBuffer_FillInfo(view, (PyObject *)self, self->base, self->size, 0, flags) < 0)
        return -1;
    self->exports++;
    return 0;
}

static void span_releasebuffer(Span *self, Py_buffer *Py_UNUSED(view))
{
    self->exports--;
    if (!self->open && self->exports == 0)
        release_parent(self);
}

/* ---- Bytes and slices ---- */

static Py_ssize_t span_length(Span *self)
{
    return self->size;
}

/* Converts an index or a slice, and then checks that the span is open: no Python code runs after that check. Returns
 * whether the key is a slice, or -1 with an exception set. */
static int locate(Span *self, PyObject *key, Py_ssize_t *start, Py_ssize_t *length)
{
    Py_ssize_t stop, step;

    if (PySlice_Check(key)) {
        if (PySlice_Unpack(key, start, &stop, &step) < 0 || require_open(self) < 0)
            return -1;
        *length = PySlice_AdjustIndices(self->size, start, &stop, step);
        if (step != 1)
            return PyErr_SetString(PyExc_ValueError, "a slice of a DMA buffer has no step"), -1;
        return 1;
    }
    *start = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if ((*start == -1 && PyErr_Occurred()) || require_open(self) < 0)
        return -1;
    *start += *start < 0 ? self->size : 0;
    *length = 1;
    if (*start < 0 || *start >= self->size)
        return PyErr_SetString(PyExc_IndexError, "index out of range"), -1;
    return 0;
}

static PyObject *span_subscript(Span *self, PyObject *key)
{
    Py_ssize_t start, length;
    int slice = locate(self, key, &start, &length);

    if (slice < 0)
        return NULL;
    if (slice)
        return PyObject_CallMethod((PyObject *)self, "_slice", "nn", start, length);
    return PyLong_FromLong((unsigned char)self->base[start]);
}

static int span_assign(Span *self, PyObject *key, PyObject *value)
{
    Py_ssize_t start, length;
    Py_buffer data;
    int slice, result = -1;

    if (!value)
        return PyErr_SetString(PyExc_TypeError, "memory cannot be deleted"), -1;
    if (!PySlice_Check(key)) {
        int beyond;
        long number = PyLong_AsLongAndOverflow(value, &beyond); /* before the check: it may run Python code */

        if ((number == -1 && PyErr_Occurred()) || locate(self, key, &start, &length) < 0)
            return -1;
        if (beyond || number < 0 || number > 255)
            return PyErr_SetString(PyExc_ValueError, "a byte is 0 to 255"), -1;
        self->base[start] = (char)number;
        return 0;
    }
    if (PyObject_GetBuffer(value, &data, PyBUF_SIMPLE) < 0)
        return -1;
    slice = locate(self, key, &start, &length);
    if (slice > 0 && data.len != length)
        PyErr_Format(PyExc_ValueError, "%zd bytes do not fit a slice of %zd", data.len, length);
    else if (slice > 0) {
        memmove(self->base + start, data.buf, (size_t)length);
        result = 0;
    }
    PyBuffer_Release(&data);
    return result;
}

static PyObject *span_zero(Span *self, PyObject *Py_UNUSED(none))
{
    if (require_open(self) < 0)
        return NULL;
    memset(self->base, 0, (size_t)self->size);
    Py_RETURN_NONE;
}

static PyObject *get_exports(Span *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(self->exports);
}

static PyObject *get_closed(Span *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!self->open);
}

static PyObject *get_size(Span *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(self->size);
}

static PyGetSetDef span_getset[] = {
    {"exports", (getter)get_exports, NULL, "How many buffers of it others hold.", NULL},
    {"closed", (getter)get_closed, NULL, "Whether close() was called.", NULL},
    {"size", (getter)get_size, NULL, "In bytes.", NULL},
    {0},
};

static PyMethodDef span_methods[] = {
    {"close", (PyCFunction)span_close, METH_NOARGS,
     "close($self, /)\n--\n\nLater uses raise ClosedError; the last export of the memory releases it."},
    {"zero", (PyCFunction)span_zero, METH_NOARGS, "zero($self, /)\n--\n\nFill it with zeros."},
    {0},
};

static PyType_Slot span_slots[] = {
    {Py_tp_doc, "Span(buffer, offset, size, /)\n--\n\nA part of another object's memory. See _memory.pyi."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, span_init},
    {Py_tp_dealloc, span_dealloc},
    {Py_tp_traverse, span_traverse},
    {Py_tp_methods, span_methods},
    {Py_tp_getset, span_getset},
    {Py_bf_getbuffer, span_getbuffer},
    {Py_bf_releasebuffer, span_releasebuffer},
    {Py_mp_length, span_length},
    {Py_mp_subscript, span_subscript},
    {Py_mp_ass_subscript, span_assign},
    {0, NULL},
};

static PyType_Spec span_spec = {
    .name = "pyuio._native._memory.Span",
    .basicsize = sizeof(Span),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = span_slots,
};

/* ---- Functions ---- */

static PyObject *memory_pointer(PyObject *Py_UNUSED(module), PyObject *argument)
{
    Py_buffer buffer;
    void *pointer;

    if (PyObject_GetBuffer(argument, &buffer, PyBUF_SIMPLE) < 0)
        return NULL;
    pointer = buffer.buf;
    PyBuffer_Release(&buffer);
    return PyLong_FromVoidPtr(pointer);
}

static PyObject *memory_pin_by_pipe(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer buffer;
    struct iovec byte = {.iov_len = 1};
    ssize_t taken;
    int pipe;

    if (!PyArg_ParseTuple(args, "w*i:pin_by_pipe", &buffer, &pipe))
        return NULL;
    byte.iov_base = buffer.buf;
    Py_BEGIN_ALLOW_THREADS
    taken = vmsplice(pipe, &byte, 1, SPLICE_F_NONBLOCK);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&buffer);
    return taken == 1 ? Py_NewRef(Py_None) : PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *memory_set_dontfork(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer buffer;
    int result, dontfork;

    if (!PyArg_ParseTuple(args, "w*p:set_dontfork", &buffer, &dontfork))
        return NULL;
    result = madvise(buffer.buf, (size_t)buffer.len, dontfork ? MADV_DONTFORK : MADV_DOFORK);
    PyBuffer_Release(&buffer);
    return result == 0 ? Py_NewRef(Py_None) : PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *memory_fill_hole(PyObject *Py_UNUSED(module), PyObject *argument)
{
    Py_buffer buffer;
    void *found;

    if (PyObject_GetBuffer(argument, &buffer, PyBUF_WRITABLE) < 0)
        return NULL;
    found = mmap(buffer.buf, (size_t)buffer.len, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    PyBuffer_Release(&buffer);
    if (found != MAP_FAILED)
        Py_RETURN_NONE;
    /* Something else is mapped there, or will be, and unmapping this object's range would unmap that. So never free the
     * object, not even at the end of the interpreter. */
    Py_INCREF(argument);
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *map_over(PyObject *memory, int flags, int file, off_t offset)
{
    Py_buffer buffer;
    void *found;

    if (PyObject_GetBuffer(memory, &buffer, PyBUF_WRITABLE) < 0)
        return NULL;
    found = mmap(buffer.buf, (size_t)buffer.len, PROT_READ | PROT_WRITE, flags | MAP_FIXED, file, offset);
    PyBuffer_Release(&buffer);
    return found == MAP_FAILED ? PyErr_SetFromErrno(PyExc_OSError) : Py_NewRef(Py_None);
}

static PyObject *memory_map_file_over(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *memory;
    int file;
    long long offset;

    if (!PyArg_ParseTuple(args, "OiL:map_file_over", &memory, &file, &offset))
        return NULL;
    return map_over(memory, MAP_SHARED, file, (off_t)offset);
}

static PyObject *memory_map_zeros_over(PyObject *Py_UNUSED(module), PyObject *memory)
{
    return map_over(memory, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static PyObject *memory_punch_hole(PyObject *Py_UNUSED(module), PyObject *args)
{
    long long offset, size;
    int file;

    if (!PyArg_ParseTuple(args, "iLL:punch_hole", &file, &offset, &size))
        return NULL;
    if (fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *memory_dma_wmb(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    DMA_WMB();
    Py_RETURN_NONE;
}

static PyObject *memory_dma_rmb(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
    DMA_RMB();
    Py_RETURN_NONE;
}

static PyMethodDef memory_methods[] = {
    {"pointer", memory_pointer, METH_O, "pointer(memory, /)\n--\n\nReturn its address in this process."},
    {"pin_by_pipe", memory_pin_by_pipe, METH_VARARGS,
     "pin_by_pipe(memory, pipe, /)\n--\n\nPin the first page, until the pipe is closed."},
    {"set_dontfork", memory_set_dontfork, METH_VARARGS,
     "set_dontfork(memory, dontfork, /)\n--\n\nSay whether forked children lack the mapping."},
    {"fill_hole", memory_fill_hole, METH_O,
     "fill_hole(memory, /)\n--\n\nIn a forked child: map zeros where set_dontfork left a hole."},
    {"map_file_over", memory_map_file_over, METH_VARARGS,
     "map_file_over(memory, file, offset, /)\n--\n\nMap a file in place of a mapping."},
    {"map_zeros_over", memory_map_zeros_over, METH_O,
     "map_zeros_over(memory, /)\n--\n\nMap zeros in place of a mapping."},
    {"punch_hole", memory_punch_hole, METH_VARARGS,
     "punch_hole(file, offset, size, /)\n--\n\nFree the pages of a part of a file."},
    {"dma_wmb", memory_dma_wmb, METH_NOARGS,
     "dma_wmb()\n--\n\nA device sees the stores before this call before the stores after it."},
    {"dma_rmb", memory_dma_rmb, METH_NOARGS,
     "dma_rmb()\n--\n\nThe loads before this call, of memory that a device writes, come before the loads after it."},
    {0},
};

static int memory_exec(PyObject *module)
{
    PyObject *type = require_main_interpreter() < 0 ? NULL : PyType_FromModuleAndSpec(module, &span_spec, NULL);
    int result = type ? PyModule_AddType(module, (PyTypeObject *)type) : -1;

    Py_XDECREF(type);
    return result;
}

static PyModuleDef_Slot memory_slots[] = {
    {Py_mod_exec, memory_exec},
    {0, NULL},
};

static struct PyModuleDef memory_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pyuio._native._memory",
    .m_doc = "Memory for DMA.",
    .m_methods = memory_methods,
    .m_slots = memory_slots,
};

PyMODINIT_FUNC PyInit__memory(void)
{
    return PyModuleDef_Init(&memory_module);
}
