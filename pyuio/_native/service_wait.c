// SPDX-License-Identifier: MIT
// How a service waits for the next interrupt. A service is the only reader of its interrupt, so it uses the patch's own
// loop: the descriptor blocks, and each interrupt takes two system calls, the write that unmasks and the read. After
// the thread wakes it makes no system call at all. Over VFIO it sleeps in a third, ppoll, which the removal ends, too.
// To end the read, another thread fires the service's breaker (syscall_breaker.c).
//
// Functions that can fail return a negative errno, or PYUIO_CLOSED.

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "command_register.h"
#include "interrupt_state.h"
#include "service.h"

static int set_blocking(pyuio_interrupt *self, int blocking)
{
    int flags = fcntl(self->source, F_GETFL);
    flags = blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
    return fcntl(self->source, F_SETFL, flags) < 0 ? -errno : 0;
}

// Makes the caller's service the only reader of the interrupt until pyuio_service_wait_end. Returns 0, -EBUSY when
// another service or thread reads or waits, or an error.
int pyuio_service_wait_begin(pyuio_interrupt *self)
{
    int result = 0;
    pthread_mutex_lock(&self->state);
    if (self->closed)
        result = PYUIO_CLOSED;
    else if (self->served || self->sleepers > 0)
        result = -EBUSY;
    else
        result = set_blocking(self, 1);
    if (result == 0) {
        self->served = 1;
        self->service_ending = 0;
        self->users++;
    }
    pthread_mutex_unlock(&self->state);
    return result;
}

// Tells how the service's read is ended. `breaker` belongs to the service's thread and lasts until
// pyuio_service_wait_end.
void pyuio_service_wait_set_breaker(pyuio_interrupt *self, pyuio_syscall_breaker *breaker)
{
    pthread_mutex_lock(&self->state);
    self->breaker = breaker;
    pthread_mutex_unlock(&self->state);
}

// Makes pyuio_service_wait_next return PYUIO_CLOSED, now and later. Waits for nobody.
void pyuio_service_wait_stop(pyuio_interrupt *self)
{
    pthread_mutex_lock(&self->state);
    if (self->served) {
        self->service_ending = 1;
        if (self->breaker != NULL)
            pyuio_syscall_breaker_fire(self->breaker);
    }
    pthread_mutex_unlock(&self->state);
}

// Masks, and lets others read the interrupt again.
void pyuio_service_wait_end(pyuio_interrupt *self)
{
    pthread_mutex_lock(&self->state);
    if (!self->closed) {
        pyuio_interrupt_set_masked(self, 1, 0); // an error is ignored: a device that is gone needs no masking
        set_blocking(self, 0);
    }
    self->served = 0;
    self->breaker = NULL;
    pthread_mutex_unlock(&self->state);
    pyuio_interrupt_release(self);
}

// Unmasks, with one lock taken. Returns 0, PYUIO_CLOSED when the service is to end, or an error.
static int unmask(pyuio_interrupt *self)
{
    if (self->masking == MASK_BY_COMMAND)
        return pyuio_command_unmask_unless(self->command, &self->service_ending);
    pthread_mutex_lock(&self->state);
    int result = self->service_ending ? PYUIO_CLOSED : pyuio_interrupt_set_masked(self, 0, 1);
    pthread_mutex_unlock(&self->state);
    return result;
}

// Waits until an eventfd has interrupts. Reading it would not end when the device is to be given back. Returns 0 or a
// negative errno.
static int wait_for_eventfd(pyuio_interrupt *self)
{
    struct pollfd files[2] = {{.fd = self->source, .events = POLLIN}, {.fd = self->removal, .events = POLLIN}};
    if (ppoll(files, 2, NULL, NULL) < 0)
        return -errno;
    return files[1].revents ? -EIO : 0;
}

// Waits for the next interrupts. Returns their count, PYUIO_SIGNAL, PYUIO_CLOSED when the interrupt was closed or the
// service stopped, or an error. `time` gets CLOCK_MONOTONIC, in ns, as it is right after the kernel's read.
int64_t pyuio_service_wait_next(pyuio_interrupt *self, int64_t *time)
{
    int64_t result = unmask(self);
    if (result == 0 && self->removal >= 0)
        result = wait_for_eventfd(self);
    if (result == 0)
        result = pyuio_interrupt_take_count(self, time);
    return result == -EINTR ? PYUIO_SIGNAL : pyuio_interrupt_noted(self, result);
}
