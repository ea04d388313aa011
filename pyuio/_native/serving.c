// SPDX-License-Identifier: MIT
// Waiting for the interrupt of a UIO device as a service does, which alone reads it: by the patch's own loop. The
// descriptor blocks meanwhile, so that an interrupt takes two system calls, the write that unmasks and the read, and after
// waking there is none. What ends the read is a kick.
//
// Functions that can fail return a negative errno, or PYUIO_CLOSED.

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "command.h"
#include "interrupt.h"

static int set_blocking(pyuio_interrupt *self, int blocking)
{
    int flags = fcntl(self->device, F_GETFL);
    flags = blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK;
    return fcntl(self->device, F_SETFL, flags) < 0 ? -errno : 0;
}

// Begins a service, which alone reads the interrupt until pyuio_serve_end: 0, -EBUSY when another reads or waits, or an
// error.
int pyuio_serve_begin(pyuio_interrupt *self)
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
        self->ending = 0;
        self->users++;
    }
    pthread_mutex_unlock(&self->state);
    return result;
}

// Says that the calling thread is the one that serves. `kick` is its own, prepared, and stays until pyuio_serve_end.
void pyuio_serve_enter(pyuio_interrupt *self, pyuio_kick *kick)
{
    pthread_mutex_lock(&self->state);
    self->kick = kick;
    pthread_mutex_unlock(&self->state);
}

// Makes pyuio_serve_next return PYUIO_CLOSED, now and later. Waits for nobody.
void pyuio_serve_stop(pyuio_interrupt *self)
{
    pthread_mutex_lock(&self->state);
    if (self->served) {
        self->ending = 1;
        if (self->kick != NULL)
            pyuio_kick_arm(self->kick);
    }
    pthread_mutex_unlock(&self->state);
}

// Masks, and lets others read the interrupt again.
void pyuio_serve_end(pyuio_interrupt *self)
{
    pthread_mutex_lock(&self->state);
    if (!self->closed) {
        pyuio_write_mask(self, 1, 0); // a device that is gone needs no masking
        set_blocking(self, 0);
    }
    self->served = 0;
    self->kick = NULL;
    pthread_mutex_unlock(&self->state);
    pyuio_release(self);
}

// Unmasks, by one lock. 0, PYUIO_CLOSED when it is to end, or an error.
static int unmask(pyuio_interrupt *self)
{
    if (self->masking == MASK_BY_COMMAND)
        return pyuio_command_unmask_unless(self->command, &self->ending);
    pthread_mutex_lock(&self->state);
    int result = self->ending ? PYUIO_CLOSED : pyuio_write_mask(self, 0, 1);
    pthread_mutex_unlock(&self->state);
    return result;
}

// Waits for the next interrupts: the count, PYUIO_SIGNAL, PYUIO_CLOSED when it was closed or stopped, or an error. `time`
// gets CLOCK_MONOTONIC, in ns, right after the kernel's read.
int64_t pyuio_serve_next(pyuio_interrupt *self, int64_t *time)
{
    int result = unmask(self);
    if (result < 0)
        return result;
    uint32_t total, before = self->total;
    struct timespec returned;
    ssize_t done = read(self->device, &total, sizeof total);
    clock_gettime(CLOCK_MONOTONIC, &returned);
    if (done != (ssize_t)sizeof total) {
        result = done < 0 && errno != EINTR ? -errno : PYUIO_SIGNAL;
        pyuio_note_if_gone(self, result);
        return result;
    }
    *time = returned.tv_sec * 1000000000LL + returned.tv_nsec;
    pyuio_note_total(self, total);
    return (uint32_t)(total - before);
}
