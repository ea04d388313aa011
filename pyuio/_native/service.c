// SPDX-License-Identifier: MIT
// A native service: a thread that serves an interrupt without the GIL.
//
// The thread waits (service_wait.c). Right after the kernel's read it runs a program, which is a list of register
// operations (program.c), or calls a function instead. Then it puts an event into a ring. One thread runs the service,
// one other thread takes events.
//
// The ring has one producer and one consumer. `head` counts the events put in, `tail` those taken out; each is written
// by one side only. The producer wakes the consumer, by the eventfd `ready`, only when the ring was empty, which saves
// a system call for each event of a burst. An event that finds the ring full goes to a spare record and is counted as
// lost; its program runs all the same, because the card must be served.
//
// Functions that can fail return a negative errno, or PYUIO_CLOSED.

#include "service.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "syscall_breaker.h"

struct pyuio_service {
    pyuio_interrupt *interrupt;
    pyuio_operation *operations;
    int operation_count;
    pyuio_handler handler; // in place of the operations
    void *context;
    _Atomic uint64_t *counters;
    unsigned char *ring; // one record more than the capacity: the spare one for an event that finds no room
    size_t ring_bytes;
    size_t record;     // bytes of an event
    uint32_t capacity; // of the ring, in events; a power of two
    int value_count;
    int ready; // eventfd: readable while there is something to take
    _Atomic uint64_t head, tail; // events put in and taken out since the start
    _Atomic uint64_t lost;
    _Atomic int64_t ended; // the result that ended the service; 0 while it runs
};

static void signal_ready(pyuio_service *self)
{
    uint64_t one = 1;
    ssize_t ignored = write(self->ready, &one, sizeof one); // cannot fail: an eventfd counts far beyond any ring's size
    (void)ignored;
}

// Makes a service. It copies the operations; the registers that they touch must outlive it. Returns NULL with errno set
// when no memory or no descriptor is left, or when the ring may not be locked in memory.
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

// Frees a service that does not run.
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

// ---- The ring ----

static pyuio_event *record_at(pyuio_service *self, uint64_t index)
{
    return (pyuio_event *)(self->ring + (index & (self->capacity - 1)) * self->record);
}

// Serves one return of the kernel's read: runs the program and puts the event into the ring.
static int serve(pyuio_service *self, uint32_t count, int64_t time)
{
    uint64_t head = atomic_load_explicit(&self->head, memory_order_relaxed);
    int full = head - atomic_load_explicit(&self->tail, memory_order_acquire) >= self->capacity;
    pyuio_event *event = full ? (pyuio_event *)(self->ring + self->capacity * self->record) : record_at(self, head);
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
        result = pyuio_program_run(self->operations, self->operation_count, self->interrupt, self->counters, event);
    if (full) {
        atomic_fetch_add(&self->lost, 1);
        return result;
    }
    // The consumer does these two steps in the other order, so one of the two sees what the other did.
    atomic_store(&self->head, head + 1);
    if (atomic_load(&self->tail) == head)
        signal_ready(self);
    return result;
}

// Serves until pyuio_service_stop, the interrupt's closing, or an error, and returns the result that ended it.
// pyuio_service_wait_begin comes before this call; this function undoes it.
int64_t pyuio_service_run(pyuio_service *self)
{
    // Other threads handle signals, since Python's handlers run in the main one. This thread lets through only the
    // signals of its own faults, and its breaker's.
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    sigset_t others, before;
    pyuio_syscall_breaker breaker;
    sigfillset(&others);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&others, faults[i]);
    pthread_sigmask(SIG_SETMASK, &others, &before);
    int64_t time = 0, result = pyuio_syscall_breaker_init(&breaker);
    int has_breaker = result == 0;
    if (has_breaker) {
        pthread_sigmask(SIG_UNBLOCK, &breaker.signals, NULL);
        pyuio_service_wait_set_breaker(self->interrupt, &breaker);
    }
    while (result >= 0 || result == PYUIO_SIGNAL) {
        result = pyuio_service_wait_next(self->interrupt, &time);
        if (result > 0)
            result = serve(self, (uint32_t)result, time);
    }
    pyuio_service_wait_end(self->interrupt);
    if (has_breaker)
        pyuio_syscall_breaker_close(&breaker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    atomic_store(&self->ended, result);
    signal_ready(self);
    return result;
}

// Makes pyuio_service_run end soon; waits for nobody.
void pyuio_service_stop(pyuio_service *self)
{
    pyuio_service_wait_stop(self->interrupt);
}

// Returns a descriptor that is readable while there are events to take, and for ever once the service has ended.
int pyuio_service_descriptor(pyuio_service *self)
{
    return self->ready;
}

// Returns the result that ended the service, or 0 while it runs.
int64_t pyuio_service_ended(pyuio_service *self)
{
    return atomic_load(&self->ended);
}

// Returns how many events found no room in the ring.
uint64_t pyuio_service_lost(pyuio_service *self)
{
    return atomic_load(&self->lost);
}

// Returns a counter of the program.
uint64_t pyuio_service_counter(pyuio_service *self, int slot)
{
    return atomic_load(&self->counters[slot]);
}

// Copies up to `most` events out of the ring, and returns how many.
size_t pyuio_service_take(pyuio_service *self, unsigned char *events, size_t most)
{
    uint64_t nothing;
    ssize_t ignored = read(self->ready, &nothing, sizeof nothing);
    (void)ignored;
    uint64_t tail = atomic_load(&self->tail);
    size_t taken = 0;
    while (taken < most && atomic_load(&self->head) != tail) {
        memcpy(events + taken * self->record, record_at(self, tail), self->record);
        taken++;
        atomic_store(&self->tail, ++tail);
    }
    if (atomic_load(&self->head) != tail || atomic_load(&self->ended) != 0)
        signal_ready(self);
    return taken;
}
