// SPDX-License-Identifier: MIT
// Waiting for the interrupt of a UIO device: unmask it if need be, sleep, take the count. One call from Python, made
// without the GIL; after waking there is one system call, the read.
//
// The kernel's side is drivers/uio/uio.c: a 4-byte read gives the running total of the device's interrupts, and blocks
// (or, on a non-blocking descriptor, fails with EAGAIN) while that has not changed since the last read of the same
// descriptor; a 4-byte write of 1 or 0 is irqcontrol. drivers/uio/uio_pci_generic.c has no irqcontrol and masks in its
// handler by the Interrupt Disable bit of the command register (PCI Local Bus Specification 3.0, section 6.2.2).
//
// Functions that can fail return a negative errno, or PYUIO_CLOSED.

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "command.h"
#include "interrupt.h"

#define NANOSECONDS 1000000000LL

// A signal that comes between Python's last look for signals and ppoll, or to another thread, does not end the ppoll, and
// only Python's main thread runs Python's handlers: it must look again by itself.
#define LONGEST_SLEEP (NANOSECONDS / 4)

static void note_masked(pyuio_interrupt *self)
{
    if (self->masking == MASK_BY_COMMAND) {
        pyuio_command_note_masked(self->command);
    } else {
        atomic_store_explicit(&self->masked, self->masking == MASK_BY_WRITE, memory_order_release);
    }
}

// A new interrupt on a non-blocking descriptor of /dev/uioN, which it owns from then on, with the total that the kernel
// has now. NULL, with errno set: no memory or no descriptor left.
pyuio_interrupt *pyuio_new(int device, uint32_t total)
{
    pyuio_interrupt *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->wake = eventfd(0, EFD_CLOEXEC);
    if (self->wake < 0) {
        free(self);
        return NULL;
    }
    self->device = device;
    self->owner = getpid();
    self->total = total;
    pthread_mutex_init(&self->state, NULL);
    return self;
}

static void close_descriptors(pyuio_interrupt *self)
{
    close(self->device);
    close(self->wake);
}

// Keeps the descriptors open until pyuio_release. 0, or PYUIO_CLOSED.
int pyuio_hold(pyuio_interrupt *self)
{
    pthread_mutex_lock(&self->state);
    int result = self->closed ? PYUIO_CLOSED : 0;
    self->users += !self->closed;
    pthread_mutex_unlock(&self->state);
    return result;
}

// Ends what pyuio_hold began.
void pyuio_release(pyuio_interrupt *self)
{
    pthread_mutex_lock(&self->state);
    if (--self->users == 0 && self->closed)
        close_descriptors(self);
    pthread_mutex_unlock(&self->state);
}

// From now on: masked and unmasked by irqcontrol.
void pyuio_mask_by_write(pyuio_interrupt *self)
{
    self->masking = MASK_BY_WRITE;
}

// From now on: masked and unmasked by the command register, which must outlive the interrupt.
void pyuio_mask_by_command(pyuio_interrupt *self, pyuio_command *command)
{
    self->masking = MASK_BY_COMMAND;
    self->command = command;
}

// State locked. Masks or unmasks; with `only_if_masked` not unless it is thought to be masked.
int pyuio_write_mask(pyuio_interrupt *self, int masked, int only_if_masked)
{
    if (self->gone)
        return -EIO;
    if (self->masking == MASK_BY_COMMAND)
        return pyuio_command_mask(self->command, masked, only_if_masked);
    if (self->masking == NO_MASKING || (only_if_masked && !self->masked))
        return 0;
    int32_t on = !masked;
    if (write(self->device, &on, sizeof on) < 0)
        return -errno;
    self->masked = masked;
    return 0;
}

// Masks, and ends every wait, now and later, with PYUIO_CLOSED; the last one out closes the descriptors. Waits for
// nobody, so that a signal handler may call it in a thread that waits. Again is harmless.
void pyuio_close(pyuio_interrupt *self)
{
    uint64_t one = 1;
    pthread_mutex_lock(&self->state);
    if (!self->closed) {
        self->closed = self->ending = 1;
        if (getpid() == self->owner) {
            pyuio_write_mask(self, 1, 0); // a device that is gone needs no masking
            // An eventfd at 0 takes a 1: this cannot fail.
            ssize_t ignored = write(self->wake, &one, sizeof one);
            (void)ignored;
            if (self->kick != NULL)
                pyuio_kick_arm(self->kick);
        }
        if (self->users == 0)
            close_descriptors(self);
    }
    pthread_mutex_unlock(&self->state);
}

// In a forked child, where no other thread is: closes it there, and leaves the device alone, which is the parent's.
void pyuio_forget(pyuio_interrupt *self)
{
    if (!self->closed || self->users > 0)
        close_descriptors(self);
    self->closed = self->ending = 1;
    self->users = self->sleepers = self->served = 0;
    self->kick = NULL;
    pthread_mutex_init(&self->state, NULL); // a thread of the parent's may have had it locked
}

// No thread may be in another function of the same interrupt.
void pyuio_free(pyuio_interrupt *self)
{
    pyuio_close(self);
    pthread_mutex_destroy(&self->state);
    free(self);
}

static int change_mask(pyuio_interrupt *self, int masked, int only_if_masked)
{
    pthread_mutex_lock(&self->state);
    int result = 0;
    if (self->closed)
        result = PYUIO_CLOSED;
    else
        result = pyuio_write_mask(self, masked, only_if_masked);
    pthread_mutex_unlock(&self->state);
    return result;
}

// Masks, whether or not it is thought to be masked.
int pyuio_mask(pyuio_interrupt *self)
{
    return change_mask(self, 1, 0);
}

// Unmasks, whether or not it is thought to be masked.
int pyuio_unmask(pyuio_interrupt *self)
{
    return change_mask(self, 0, 0);
}

// Whether it is masked, as far as is known here: an interrupt that was not read yet has masked it, too.
int pyuio_is_masked(pyuio_interrupt *self)
{
    return self->masking == MASK_BY_COMMAND ? pyuio_command_is_masked(self->command) : self->masked;
}

// The kernel's running total at the last read, modulo 2^32.
uint32_t pyuio_total(pyuio_interrupt *self)
{
    return self->total;
}

// By the one who reads: state locked, or a service. Notes the total that the kernel's read gave.
void pyuio_note_total(pyuio_interrupt *self, uint32_t total)
{
    atomic_store_explicit(&self->total, total, memory_order_release);
    note_masked(self); // the kernel's handler masked it
}

// By whoever got this result from the kernel: EIO is what a device that was removed or unbound gives.
void pyuio_note_if_gone(pyuio_interrupt *self, int64_t result)
{
    if (result == -EIO)
        self->gone = 1;
}

// Takes what is pending: the count, PYUIO_NONE, or an error.
static int64_t take(pyuio_interrupt *self)
{
    uint32_t total;
    int64_t result = -EBUSY;
    pthread_mutex_lock(&self->state);
    if (!self->served) { // or this read would block
        if (read(self->device, &total, sizeof total) != (ssize_t)sizeof total) {
            result = errno == EAGAIN ? PYUIO_NONE : -errno;
            pyuio_note_if_gone(self, result);
        } else {
            result = (uint32_t)(total - self->total); // unsigned: right across the wrap at 2^32
            pyuio_note_total(self, total);
            // Others still wait, who were not woken or found nothing left: for them it is unmasked again, as each would
            // have done by itself. What is not acknowledged by then fires once more, for one of them.
            if (self->sleepers > 0)
                pyuio_write_mask(self, 0, 1);
        }
    }
    pthread_mutex_unlock(&self->state);
    return result;
}

// Says that a caller, which holds the interrupt, waits by itself from now on (1), or no longer (-1).
void pyuio_count_sleeper(pyuio_interrupt *self, int change)
{
    pthread_mutex_lock(&self->state);
    self->sleepers += change;
    pthread_mutex_unlock(&self->state);
}

// Sleeps until the device's descriptor is ready. `timeout`: nanoseconds from now, or negative for ever; PYUIO_SIGNAL when
// it is time to look for signals.
static int sleep_until_ready(pyuio_interrupt *self, int64_t timeout)
{
    int whole = timeout >= 0 && timeout <= LONGEST_SLEEP;
    struct pollfd files[2] = {{.fd = self->device, .events = POLLIN}, {.fd = self->wake, .events = POLLIN}};
    struct timespec limit = {.tv_nsec = whole ? timeout : LONGEST_SLEEP};
    int ready = ppoll(files, 2, &limit, NULL);
    if (ready < 0)
        return errno == EINTR ? PYUIO_SIGNAL : -errno;
    if (files[1].revents)
        return PYUIO_CLOSED;
    if (files[0].revents & (POLLERR | POLLHUP)) { // removed or unbound
        pyuio_note_if_gone(self, -EIO);
        return -EIO;
    }
    if (files[0].revents & POLLNVAL)
        return -EBADF;
    if (ready > 0)
        return PYUIO_READY;
    return whole ? PYUIO_NONE : PYUIO_SIGNAL;
}

// Unmasks and sleeps, as one of the sleepers.
static int arm_and_sleep(pyuio_interrupt *self, int64_t timeout)
{
    pyuio_count_sleeper(self, 1);
    int result = change_mask(self, 0, 1);
    if (result == 0)
        result = sleep_until_ready(self, timeout);
    pyuio_count_sleeper(self, -1);
    return result;
}

// Whether an interrupt waits to be read: PYUIO_READY, PYUIO_NONE, or an error. Changes nothing.
int pyuio_is_pending(pyuio_interrupt *self)
{
    int result = pyuio_hold(self);
    if (result < 0)
        return result;
    result = sleep_until_ready(self, 0);
    pyuio_release(self);
    return result;
}

// A descriptor that becomes readable when the interrupt is closed, for a caller that waits by itself, held meanwhile.
int pyuio_wake_descriptor(pyuio_interrupt *self)
{
    return self->wake;
}

// As pyuio_hold, for those who wait or take: -EBUSY while a service does.
static int hold_unserved(pyuio_interrupt *self)
{
    int result = pyuio_hold(self);
    if (result == 0 && self->served) {
        pyuio_release(self);
        result = -EBUSY;
    }
    return result;
}

// Unmasks unless an interrupt is pending already: PYUIO_READY, PYUIO_NONE, or an error.
int pyuio_arm(pyuio_interrupt *self)
{
    int result = hold_unserved(self);
    if (result < 0)
        return result;
    pyuio_release(self);
    result = pyuio_is_pending(self);
    return result == PYUIO_NONE ? change_mask(self, 0, 1) : result;
}

// Waits until an interrupt is pending, unmasked meanwhile, and leaves it pending. `timeout`: nanoseconds, negative for
// ever. PYUIO_READY, PYUIO_NONE, PYUIO_SIGNAL, or an error.
int pyuio_wait(pyuio_interrupt *self, int64_t timeout)
{
    int result = hold_unserved(self);
    if (result < 0)
        return result;
    result = sleep_until_ready(self, 0);
    if (result == PYUIO_NONE)
        result = arm_and_sleep(self, timeout);
    pyuio_release(self);
    return result;
}

// Takes the interrupts since the last read; when there is none, unmasks and waits. `timeout`: nanoseconds, 0 for not at
// all, negative for ever. The count, 1 to 2^32 - 1, PYUIO_NONE, PYUIO_SIGNAL, or an error.
int64_t pyuio_read(pyuio_interrupt *self, int64_t timeout)
{
    int64_t result = hold_unserved(self);
    if (result < 0)
        return result;
    result = take(self);
    if (result == PYUIO_NONE) {
        result = timeout == 0 ? change_mask(self, 0, 1) : arm_and_sleep(self, timeout);
        if (result == PYUIO_READY) {
            result = take(self);
            if (result == PYUIO_NONE) // another thread was quicker: the caller waits on
                result = PYUIO_SIGNAL;
        }
    }
    pyuio_release(self);
    return result;
}
