// SPDX-License-Identifier: MIT
// Runs the program of a native service: register operations, one after the other, right after the kernel's read. Python
// has checked every operation (pyuio/program.py), so here only the device can fail.
//
// Functions that can fail return a negative errno: EFAULT for an access that was not answered.

#include "program.h"

#include <errno.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "access_bus.h"

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int read_register(const pyuio_operation *operation, uint64_t *value)
{
    unsigned long found = 0;
    if (operation->file < 0) {
        if (!load((const volatile void *)(uintptr_t)operation->address, operation->bits, &found))
            return -EFAULT;
    } else {
        _Alignas(uint64_t) unsigned char bytes[8];
        size_t length = (size_t)operation->bits / 8;
        if (pread(operation->file, bytes, length, (off_t)operation->address) != (ssize_t)length)
            return errno ? -errno : -ENODEV;
        load(bytes, operation->bits, &found);
    }
    *value = operation->swap ? swapped(found, operation->bits) : found;
    return 0;
}

static int write_register(const pyuio_operation *operation, uint64_t value)
{
    unsigned long given = operation->swap ? swapped((unsigned long)value, operation->bits) : (unsigned long)value;
    if (operation->file < 0)
        return store((volatile void *)(uintptr_t)operation->address, given, operation->bits) ? 0 : -EFAULT;
    _Alignas(uint64_t) unsigned char bytes[8];
    size_t length = (size_t)operation->bits / 8;
    store(bytes, given, operation->bits);
    return pwrite(operation->file, bytes, length, (off_t)operation->address) == (ssize_t)length ? 0 : -errno;
}

// Does so many PYUIO_WRITEs of 32 bits to memory, without asking each what it is. Programs are mostly made of these.
static int write_words(const pyuio_operation *operation, int64_t count)
{
    bool answered = true;
    for (const pyuio_operation *end = operation + count; answered && operation < end; operation++)
        answered = store((volatile void *)(uintptr_t)operation->address, (unsigned long)operation->value, 32);
    return answered ? 0 : -EFAULT;
}

static int holds(const pyuio_operation *operation, const pyuio_event *event)
{
    return (event->values[operation->slot] & operation->mask) == operation->value;
}

static int poll_register(const pyuio_operation *operation, pyuio_event *event)
{
    int64_t deadline = now() + operation->limit;
    for (;;) {
        int late = now() >= deadline; // asked before the read, so that one read comes after the deadline
        int result = read_register(operation, &event->values[operation->slot]);
        if (result < 0 || holds(operation, event))
            return result;
        if (late) {
            event->late = 1;
            return 0;
        }
    }
}

// Python has reserved room in the list for every round.
static int append_register(const pyuio_operation *operation, pyuio_event *event)
{
    uint64_t *list = &event->values[operation->value]; // the number of values, and then the values
    if (*list >= (uint64_t)operation->limit)
        return -EOVERFLOW;
    int result = read_register(operation, &event->values[operation->slot]);
    if (result == 0)
        list[++*list] = event->values[operation->slot];
    return result;
}

// Runs the operations for one event, and fills in its values. Returns 0 or the first error, which ends the program. Each
// PYUIO_WHILE is a call within the call, as deep as Python let the program be.
int pyuio_program_run(const pyuio_operation *operations, int operation_count, pyuio_interrupt *interrupt,
                      void *counters, pyuio_event *event)
{
    for (int i = 0; i < operation_count; i++) {
        const pyuio_operation *operation = &operations[i];
        int result = 0;
        switch (operation->kind) {
        case PYUIO_READ: result = read_register(operation, &event->values[operation->slot]); break;
        case PYUIO_WRITE: result = write_register(operation, operation->value); break;
        case PYUIO_WRITE_WORDS:
            result = write_words(operation, operation->limit);
            i += (int)operation->limit - 1;
            break;
        case PYUIO_WRITE_BACK:
            result = write_register(operation, event->values[operation->slot] & operation->mask);
            break;
        case PYUIO_TEST:
            if (!holds(operation, event))
                i += operation->skip;
            break;
        case PYUIO_POLL: result = poll_register(operation, event); break;
        case PYUIO_STAMP: event->values[operation->slot] = (uint64_t)now(); break;
        case PYUIO_UNMASK: result = pyuio_interrupt_unmask(interrupt); break;
        case PYUIO_APPEND: result = append_register(operation, event); break;
        case PYUIO_WHILE:
            for (int64_t round = 0; round < operation->limit && result >= 0 && holds(operation, event); round++)
                result = pyuio_program_run(operation + 1, operation->skip, interrupt, counters, event);
            i += operation->skip;
            break;
        default: atomic_fetch_add((_Atomic uint64_t *)counters + operation->slot, event->count); break; // PYUIO_COUNT
        }
        if (result < 0)
            return result;
    }
    return 0;
}
