// SPDX-License-Identifier: MIT
// Serving an interrupt without the GIL: a thread waits, and right after the kernel's read it runs a program, which is a
// list of register operations, or a function, and puts an event into a ring. One thread runs it, one takes events.
//
// Functions that can fail return a negative errno, or PYUIO_CLOSED.

#include "service.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "access_bus.h"
#include "interrupt.h"

struct pyuio_service {
    pyuio_interrupt *interrupt;
    pyuio_operation *operations;
    int operation_count;
    pyuio_handler handler; // in place of the operations
    void *context;
    _Atomic uint64_t *counters;
    unsigned char *ring; // one record more than its capacity: where an event goes that finds no room
    size_t ring_bytes;
    size_t record;     // bytes of an event
    uint32_t capacity; // of the ring, in events; a power of two
    int value_count;
    int ready; // eventfd: readable while there is something to take
    _Atomic uint64_t head, tail; // events put in and taken out, ever
    _Atomic uint64_t lost;
    _Atomic int64_t ended; // what ended it; 0 while it runs
};

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void say_ready(pyuio_service *self)
{
    uint64_t one = 1;
    ssize_t ignored = write(self->ready, &one, sizeof one); // an eventfd takes this far beyond any ring's size
    (void)ignored;
}

// A new service. The operations are copied; what they touch must outlive it. NULL, with errno set: no memory, no
// descriptor, or memory that may not be locked.
pyuio_service *pyuio_service_new(pyuio_interrupt *interrupt, const pyuio_operation *operations, int operation_count,
                                 pyuio_handler handler, void *context, int value_count, int counter_count,
                                 uint32_t capacity)
{
    pyuio_service *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->interrupt = interrupt;
    self->handler = handler;
    self->context = context;
    self->operation_count = operation_count;
    self->value_count = value_count;
    self->capacity = capacity;
    self->record = sizeof(pyuio_event) + (size_t)value_count * sizeof(uint64_t);
    self->ring_bytes = ((size_t)capacity + 1) * self->record;
    self->ring = MAP_FAILED;
    self->ready = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    self->operations = calloc((size_t)operation_count + 1, sizeof *operations);
    self->counters = calloc((size_t)counter_count + 1, sizeof *self->counters);
    if (self->ready >= 0 && self->operations != NULL && self->counters != NULL)
        self->ring = mmap(NULL, self->ring_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (self->ring == MAP_FAILED || mlock(self->ring, self->ring_bytes) < 0) {
        int error = errno;
        pyuio_service_free(self);
        errno = error;
        return NULL;
    }
    for (int i = 0; i < operation_count; i++)
        self->operations[i] = operations[i];
    return self;
}

// It must not run any more.
void pyuio_service_free(pyuio_service *self)
{
    if (self->ring != MAP_FAILED)
        munmap(self->ring, self->ring_bytes);
    if (self->ready >= 0)
        close(self->ready);
    free(self->counters);
    free(self->operations);
    free(self);
}

// ---- The program ----

static int read_register(const pyuio_operation *operation, uint64_t *value)
{
    unsigned long found = 0; // of a port, the bytes it gives stay in the low ones: this is little-endian
    if (operation->file < 0)
        found = load((const volatile void *)(uintptr_t)operation->address, operation->bits);
    else {
        unsigned char bytes[8] = {0};
        size_t length = (size_t)operation->bits / 8;
        if (pread(operation->file, bytes, length, (off_t)operation->address) != (ssize_t)length)
            return errno ? -errno : -ENODEV;
        for (size_t i = length; i-- > 0;)
            found = found << 8 | bytes[i];
    }
    *value = operation->swap ? swapped(found, operation->bits) : found;
    return 0;
}

static int write_register(const pyuio_operation *operation, uint64_t value)
{
    unsigned long given = operation->swap ? swapped((unsigned long)value, operation->bits) : (unsigned long)value;
    if (operation->file < 0) {
        store((volatile void *)(uintptr_t)operation->address, given, operation->bits);
        return 0;
    }
    unsigned char bytes[8];
    size_t length = (size_t)operation->bits / 8;
    for (size_t i = 0; i < length; i++)
        bytes[i] = (unsigned char)(given >> 8 * i);
    return pwrite(operation->file, bytes, length, (off_t)operation->address) == (ssize_t)length ? 0 : -errno;
}

static int poll_register(const pyuio_operation *operation, pyuio_event *event)
{
    int64_t deadline = now() + operation->limit;
    for (;;) {
        int late = now() >= deadline; // before the look, so that one look comes after the deadline
        int result = read_register(operation, &event->values[operation->slot]);
        if (result < 0 || (event->values[operation->slot] & operation->mask) == operation->value)
            return result;
        if (late) {
            event->late = 1;
            return 0;
        }
    }
}

static int run_program(pyuio_service *self, pyuio_event *event)
{
    for (int i = 0; i < self->operation_count; i++) {
        const pyuio_operation *operation = &self->operations[i];
        int result = 0;
        switch (operation->kind) {
        case PYUIO_READ: result = read_register(operation, &event->values[operation->slot]); break;
        case PYUIO_WRITE: result = write_register(operation, operation->value); break;
        case PYUIO_WRITE_BACK:
            result = write_register(operation, event->values[operation->slot] & operation->mask);
            break;
        case PYUIO_TEST:
            if ((event->values[operation->slot] & operation->mask) != operation->value)
                i += operation->skip;
            break;
        case PYUIO_POLL: result = poll_register(operation, event); break;
        case PYUIO_STAMP: event->values[operation->slot] = (uint64_t)now(); break;
        case PYUIO_UNMASK: result = pyuio_unmask(self->interrupt); break;
        default: atomic_fetch_add(&self->counters[operation->slot], event->count); break;
        }
        if (result < 0)
            return result;
    }
    return 0;
}

// ---- The ring ----

static pyuio_event *place(pyuio_service *self, uint64_t index)
{
    return (pyuio_event *)(self->ring + (index & (self->capacity - 1)) * self->record);
}

static int serve(pyuio_service *self, uint32_t count, int64_t time)
{
    uint64_t head = atomic_load_explicit(&self->head, memory_order_relaxed);
    int full = head - atomic_load_explicit(&self->tail, memory_order_acquire) >= self->capacity;
    pyuio_event *event = full ? (pyuio_event *)(self->ring + self->capacity * self->record) : place(self, head);
    event->time = time;
    event->count = count;
    event->late = 0;
    event->lost = atomic_load_explicit(&self->lost, memory_order_relaxed);
    for (int i = 0; i < self->value_count; i++)
        event->values[i] = 0;
    int result = 0;
    if (self->handler != NULL)
        self->handler(event, self->context);
    else
        result = run_program(self, event);
    if (full) {
        atomic_fetch_add(&self->lost, 1);
        return result;
    }
    // In this order, and the taker's the other way round: one of the two sees what the other did.
    atomic_store(&self->head, head + 1);
    if (atomic_load(&self->tail) == head)
        say_ready(self);
    return result;
}

// Serves, after pyuio_serve_begin, until pyuio_service_stop, the interrupt's end, or an error, which is returned.
int64_t pyuio_service_run(pyuio_service *self)
{
    // Signals are left to other threads, as Python's handlers run in the main one; but not those for this one's faults,
    // and not its kicks.
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    sigset_t others, before;
    pyuio_kick kick;
    sigfillset(&others);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&others, faults[i]);
    pthread_sigmask(SIG_SETMASK, &others, &before);
    int64_t time = 0, result = pyuio_kick_prepare(&kick);
    int prepared = result == 0;
    if (prepared) {
        pthread_sigmask(SIG_UNBLOCK, &kick.signals, NULL);
        pyuio_serve_enter(self->interrupt, &kick);
    }
    while (result >= 0 || result == PYUIO_SIGNAL) {
        result = pyuio_serve_next(self->interrupt, &time);
        if (result > 0)
            result = serve(self, (uint32_t)result, time);
    }
    pyuio_serve_end(self->interrupt);
    if (prepared)
        pyuio_kick_dismiss(&kick);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    atomic_store(&self->ended, result);
    say_ready(self);
    return result;
}

// Ends pyuio_service_run, soon; waits for nobody.
void pyuio_service_stop(pyuio_service *self)
{
    pyuio_serve_stop(self->interrupt);
}

// Readable when there are events to take, and for ever from its end on.
int pyuio_service_descriptor(pyuio_service *self)
{
    return self->ready;
}

// What ended it, or 0.
int64_t pyuio_service_ended(pyuio_service *self)
{
    return atomic_load(&self->ended);
}

// Events that found no room.
uint64_t pyuio_service_lost(pyuio_service *self)
{
    return atomic_load(&self->lost);
}

uint64_t pyuio_service_counter(pyuio_service *self, int slot)
{
    return atomic_load(&self->counters[slot]);
}

// Copies up to `most` events, and returns how many.
size_t pyuio_service_take(pyuio_service *self, unsigned char *events, size_t most)
{
    uint64_t nothing;
    ssize_t ignored = read(self->ready, &nothing, sizeof nothing);
    (void)ignored;
    uint64_t tail = atomic_load(&self->tail);
    size_t taken = 0;
    while (taken < most && atomic_load(&self->head) != tail) {
        memcpy(events + taken * self->record, place(self, tail), self->record);
        taken++;
        atomic_store(&self->tail, ++tail);
    }
    if (atomic_load(&self->head) != tail || atomic_load(&self->ended) != 0)
        say_ready(self);
    return taken;
}
