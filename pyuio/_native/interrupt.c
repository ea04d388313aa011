// SPDX-License-Identifier: MIT
// An interrupt of a device: its state, masking, reading and waiting.
//
// Python calls these functions without the GIL. A read unmasks the interrupt if needed, sleeps, and takes the count,
// all in one call; after the thread wakes it makes one system call, the kernel's read.
//
// An interrupt has a source, which is one of two kinds of file.
//
// - /dev/uioN (drivers/uio/uio.c). A 4-byte read returns the running total of the device's interrupts. It blocks
//   while that total has not changed since the last read of the same descriptor; on a non-blocking descriptor it fails
//   with EAGAIN instead. A 4-byte write of 1 or 0 calls the kernel driver's irqcontrol. drivers/uio/uio_pci_generic.c
//   has no irqcontrol. Its handler masks by the Interrupt Disable bit of the command register (PCI Local Bus
//   Specification 3.0, section 6.2.2), so this file unmasks by the same bit (command_register.c).
// - An eventfd to which VFIO delivers (drivers/vfio/pci/vfio_pci_intrs.c). An 8-byte read returns how many interrupts
//   came since the last read. VFIO's handler masks an INTx interrupt, and an ioctl unmasks it. A message, MSI or MSI-X,
//   is an edge: nothing masks it, so `masked` is only what this process has said, and interrupts are counted meanwhile.
//   An eventfd does not tell that the device is to be given back; another one, `removal`, does.
//
// Masking. The kernel's handler masks the interrupt; this file unmasks it only for a thread that waits, and only when
// the interrupt is known to be masked, which saves a write. When one thread takes an interrupt while others still wait,
// take() unmasks for them.
//
// The count of a UIO interrupt is the difference of two totals, modulo 2^32: pyuio_difference_modulo_2_32().
//
// Closing waits for nobody, so a signal handler may close in a thread that waits. pyuio_interrupt_close marks the
// interrupt closed and makes the eventfd `wake` readable, which ends every poll. Each thread that uses the descriptors
// holds them (pyuio_interrupt_hold), and the last one that releases a closed interrupt closes them. So a descriptor's
// number never becomes another file's while a thread still uses it.
//
// A forked child shares the descriptors' open files with its parent, but must not touch the device: its copy is
// forgotten (pyuio_interrupt_forget).
//
// Functions that can fail return a negative errno, or PYUIO_CLOSED.

#include <errno.h>
#include <linux/vfio.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "command_register.h"
#include "interrupt_state.h"

#define NANOSECONDS 1000000000LL

// Only Python's main thread runs Python's signal handlers. A signal does not end its ppoll when it comes before the
// ppoll begins, or when another thread receives it. So the main thread must look for signals itself, this often.
#define LONGEST_SLEEP (NANOSECONDS / 4)

// ---- Life ----

static pyuio_interrupt *new_interrupt(int source)
{
    pyuio_interrupt *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->wake = eventfd(0, EFD_CLOEXEC);
    if (self->wake < 0) {
        free(self);
        return NULL;
    }
    self->source = self->readable = source;
    self->removal = -1;
    self->owner = getpid();
    pthread_mutex_init(&self->state, NULL);
    return self;
}

// Makes an interrupt of `node`, a non-blocking descriptor of /dev/uioN, which it owns from then on. `total` is the
// kernel's present total. Returns NULL with errno set when no memory or no descriptor is left.
pyuio_interrupt *pyuio_interrupt_new(int node, uint32_t total)
{
    pyuio_interrupt *self = new_interrupt(node);
    if (self != NULL)
        self->total = total;
    return self;
}

// Makes an interrupt of `eventfd`, a non-blocking one to which VFIO delivers it. `removal` is the eventfd by which VFIO
// asks for the device. It owns both descriptors from then on; returns NULL as pyuio_interrupt_new, and owns none then.
pyuio_interrupt *pyuio_interrupt_new_eventfd(int eventfd, int removal)
{
    pyuio_interrupt *self = new_interrupt(eventfd);
    if (self == NULL)
        return NULL;
    struct epoll_event readable = {.events = EPOLLIN};
    self->readable = epoll_create1(EPOLL_CLOEXEC);
    if (self->readable < 0 || epoll_ctl(self->readable, EPOLL_CTL_ADD, eventfd, &readable) < 0 ||
        epoll_ctl(self->readable, EPOLL_CTL_ADD, removal, &readable) < 0) {
        int error = errno;
        if (self->readable >= 0)
            close(self->readable);
        close(self->wake);
        free(self);
        errno = error;
        return NULL;
    }
    self->is_eventfd = 1;
    self->removal = removal;
    return self;
}

static void close_descriptors(pyuio_interrupt *self)
{
    close(self->source);
    close(self->wake);
    if (self->is_eventfd) {
        close(self->readable);
        close(self->removal);
    }
}

// Keeps the descriptors open until pyuio_interrupt_release. Returns 0 or PYUIO_CLOSED.
int pyuio_interrupt_hold(pyuio_interrupt *self)
{
    pthread_mutex_lock(&self->state);
    int result = self->closed ? PYUIO_CLOSED : 0;
    self->users += !self->closed;
    pthread_mutex_unlock(&self->state);
    return result;
}

// Does what pyuio_interrupt_release does, with `state` locked.
static void release(pyuio_interrupt *self)
{
    if (--self->users == 0 && self->closed)
        close_descriptors(self);
}

// Ends what pyuio_interrupt_hold began; the last user of a closed interrupt closes the descriptors.
void pyuio_interrupt_release(pyuio_interrupt *self)
{
    pthread_mutex_lock(&self->state);
    release(self);
    pthread_mutex_unlock(&self->state);
}

// Masks, and ends every wait, now and later, with PYUIO_CLOSED. Waits for nobody. A second call does nothing.
void pyuio_interrupt_close(pyuio_interrupt *self)
{
    uint64_t one = 1;
    pthread_mutex_lock(&self->state);
    if (!self->closed) {
        self->closed = self->service_ending = 1;
        if (getpid() == self->owner) {
            pyuio_interrupt_set_masked(self, 1, 0); // an error is ignored: a device that is gone needs no masking
            // An eventfd at 0 takes a 1: this cannot fail.
            ssize_t ignored = write(self->wake, &one, sizeof one);
            (void)ignored;
            if (self->breaker != NULL)
                pyuio_syscall_breaker_fire(self->breaker);
        }
        if (self->users == 0)
            close_descriptors(self);
    }
    pthread_mutex_unlock(&self->state);
}

// Closes the interrupt in a forked child, where no other thread is. Does not touch the device, which is the parent's.
void pyuio_interrupt_forget(pyuio_interrupt *self)
{
    if (!self->closed || self->users > 0)
        close_descriptors(self);
    self->closed = self->service_ending = 1;
    self->users = self->sleepers = self->served = 0;
    self->breaker = NULL;
    pthread_mutex_init(&self->state, NULL); // a thread of the parent may have had it locked
}

// Closes and frees. No thread may be in another function of the same interrupt.
void pyuio_interrupt_free(pyuio_interrupt *self)
{
    pyuio_interrupt_close(self);
    pthread_mutex_destroy(&self->state);
    free(self);
}

// ---- Masking ----

// The interrupt masks by irqcontrol from now on.
void pyuio_interrupt_mask_by_write(pyuio_interrupt *self)
{
    self->masking = MASK_BY_WRITE;
}

// The interrupt is an INTx interrupt of a function that VFIO has: it masks by an ioctl on `device`, the function's file,
// from now on. The caller keeps the descriptor open until the interrupt is closed.
void pyuio_interrupt_mask_by_vfio(pyuio_interrupt *self, int device)
{
    self->masking = MASK_BY_VFIO;
    self->device = device;
}

// The interrupt is a message, which nothing masks: from now on it only notes what it was told.
void pyuio_interrupt_mask_nominally(pyuio_interrupt *self)
{
    self->masking = MASK_NOMINALLY;
}

// The interrupt masks by this command register from now on; the register must outlive the interrupt.
void pyuio_interrupt_mask_by_command(pyuio_interrupt *self, pyuio_command *command)
{
    self->masking = MASK_BY_COMMAND;
    self->command = command;
}

// Returns 0 or a negative errno.
static int set_masked(pyuio_interrupt *self, int masked)
{
    int32_t on = !masked;
    struct vfio_irq_set request = {
        .argsz = sizeof request,
        .flags = VFIO_IRQ_SET_DATA_NONE | (masked ? VFIO_IRQ_SET_ACTION_MASK : VFIO_IRQ_SET_ACTION_UNMASK),
        .index = VFIO_PCI_INTX_IRQ_INDEX,
        .count = 1,
    };
    switch (self->masking) {
    case MASK_BY_WRITE:
        return write(self->source, &on, sizeof on) < 0 ? -errno : 0;
    case MASK_BY_VFIO:
        return ioctl(self->device, VFIO_DEVICE_SET_IRQS, &request) < 0 ? -errno : 0;
    default:
        return 0;
    }
}

// Masks or unmasks, with `state` locked. `only_if_masked`: does nothing unless the interrupt is known to be masked.
int pyuio_interrupt_set_masked(pyuio_interrupt *self, int masked, int only_if_masked)
{
    if (self->gone)
        return -EIO;
    if (self->masking == MASK_BY_COMMAND)
        return pyuio_command_mask(self->command, masked, only_if_masked);
    if (self->masking == NO_MASKING || (only_if_masked && !self->masked))
        return 0;
    int result = set_masked(self, masked);
    if (result == 0)
        self->masked = masked;
    return result;
}

static int lock_and_set_masked(pyuio_interrupt *self, int masked, int only_if_masked)
{
    pthread_mutex_lock(&self->state);
    int result = self->closed ? PYUIO_CLOSED : pyuio_interrupt_set_masked(self, masked, only_if_masked);
    pthread_mutex_unlock(&self->state);
    return result;
}

// Masks, even if the interrupt is believed to be masked.
int pyuio_interrupt_mask(pyuio_interrupt *self)
{
    return lock_and_set_masked(self, 1, 0);
}

// Unmasks, even if the interrupt is believed to be unmasked.
int pyuio_interrupt_unmask(pyuio_interrupt *self)
{
    return lock_and_set_masked(self, 0, 0);
}

static int unmask_if_masked(pyuio_interrupt *self)
{
    return lock_and_set_masked(self, 0, 1);
}

// Returns whether the interrupt is masked, as far as this process knows. An interrupt that was not read yet has masked
// it, too, which this does not see.
int pyuio_interrupt_is_masked(pyuio_interrupt *self)
{
    return self->masking == MASK_BY_COMMAND ? pyuio_command_is_masked(self->command) : self->masked;
}

// ---- The count ----

// Returns how many interrupts came between two totals of the kernel, which counts in 32 bits and wraps. The subtraction
// of unsigned integers is right across the wrap.
uint32_t pyuio_difference_modulo_2_32(uint32_t later, uint32_t earlier)
{
    return later - earlier;
}

// Returns the running total at the last read, modulo 2^32.
uint32_t pyuio_interrupt_total(pyuio_interrupt *self)
{
    return self->total;
}

// Reads the source: returns how many interrupts came since the last read, 1 to 2^32 - 1, or a negative errno. Notes the
// new total, and that the kernel's handler has masked the interrupt. `time`, unless NULL, gets CLOCK_MONOTONIC, in ns,
// as it is right after the read. The caller is the only reader: it has locked `state`, or it is the service.
int64_t pyuio_interrupt_take_count(pyuio_interrupt *self, int64_t *time)
{
    uint64_t came;
    uint32_t total = 0;
    void *into = self->is_eventfd ? (void *)&came : &total;
    ssize_t size = self->is_eventfd ? sizeof came : sizeof total;
    if (read(self->source, into, (size_t)size) != size)
        return -errno;
    if (time != NULL) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        *time = now.tv_sec * NANOSECONDS + now.tv_nsec;
    }
    uint32_t before = self->total;
    if (self->is_eventfd)
        total = before + (uint32_t)(came > UINT32_MAX ? UINT32_MAX : came);
    atomic_store_explicit(&self->total, total, memory_order_release);
    if (self->masking == MASK_BY_COMMAND)
        pyuio_command_note_masked(self->command);
    else
        atomic_store_explicit(&self->masked, self->masking != NO_MASKING, memory_order_release);
    return pyuio_difference_modulo_2_32(total, before);
}

// Returns `result`, the kernel's answer, and notes that the device is gone if it says so: EIO means that the device was
// removed or unbound.
int64_t pyuio_interrupt_noted(pyuio_interrupt *self, int64_t result)
{
    if (result == -EIO)
        self->gone = 1;
    return result;
}

// Notes that the device is gone: what waits, reads or unmasks returns -EIO from now on. No thread masks or unmasks by
// the descriptor `device` any more when this returns.
void pyuio_interrupt_note_gone(pyuio_interrupt *self)
{
    pthread_mutex_lock(&self->state);
    self->gone = 1;
    pthread_mutex_unlock(&self->state);
}

// Takes the interrupts that are pending, with `state` locked: returns the count, PYUIO_NONE, or an error.
static int64_t take(pyuio_interrupt *self)
{
    if (self->served) // a service's descriptor blocks, and so would this read
        return -EBUSY;
    if (self->gone)
        return -EIO;
    int64_t result = pyuio_interrupt_noted(self, pyuio_interrupt_take_count(self, NULL));
    // Threads that still wait were not woken, or found nothing left. Each of them would unmask; this does it for them.
    // If the device still asserts its interrupt by then, it fires once more, for one of them.
    if (result > 0 && self->sleepers > 0)
        pyuio_interrupt_set_masked(self, 0, 1);
    return result == -EAGAIN ? PYUIO_NONE : result;
}

// ---- Waiting ----

// Tells that a caller, which holds the interrupt, begins (1) or ends (-1) a wait of its own.
void pyuio_interrupt_count_sleeper(pyuio_interrupt *self, int change)
{
    pthread_mutex_lock(&self->state);
    self->sleepers += change;
    pthread_mutex_unlock(&self->state);
}

// Sleeps until the source is readable. `timeout` is in nanoseconds from now, or negative for ever. Returns
// PYUIO_READY, PYUIO_NONE, PYUIO_SIGNAL when it is time to look for signals, or an error.
static int sleep_until_ready(pyuio_interrupt *self, int64_t timeout)
{
    int whole = timeout >= 0 && timeout <= LONGEST_SLEEP;
    // poll ignores a descriptor of -1.
    struct pollfd files[3] = {{.fd = self->source, .events = POLLIN},
                              {.fd = self->wake, .events = POLLIN},
                              {.fd = self->removal, .events = POLLIN}};
    struct timespec limit = {.tv_nsec = whole ? timeout : LONGEST_SLEEP};
    int ready = ppoll(files, 3, &limit, NULL);
    if (ready < 0)
        return errno == EINTR ? PYUIO_SIGNAL : -errno;
    if (files[1].revents)
        return PYUIO_CLOSED;
    if (files[0].revents & (POLLERR | POLLHUP) || files[2].revents) // the device was removed or unbound
        return (int)pyuio_interrupt_noted(self, -EIO);
    if (files[0].revents & POLLNVAL)
        return -EBADF;
    if (ready > 0)
        return PYUIO_READY;
    return whole ? PYUIO_NONE : PYUIO_SIGNAL;
}

// Unmasks and sleeps, counted as a sleeper. The count comes first: from then on take() in another thread unmasks, too.
static int unmask_and_sleep(pyuio_interrupt *self, int64_t timeout)
{
    pyuio_interrupt_count_sleeper(self, 1);
    int result = unmask_if_masked(self);
    if (result == 0)
        result = sleep_until_ready(self, timeout);
    pyuio_interrupt_count_sleeper(self, -1);
    return result;
}

// Returns whether an interrupt can be read: PYUIO_READY, PYUIO_NONE, or an error. Changes nothing.
int pyuio_interrupt_is_pending(pyuio_interrupt *self)
{
    int result = pyuio_interrupt_hold(self);
    if (result < 0)
        return result;
    result = sleep_until_ready(self, 0);
    pyuio_interrupt_release(self);
    return result;
}

// Returns a descriptor that becomes readable with an interrupt, and when the device is gone.
int pyuio_interrupt_descriptor(pyuio_interrupt *self)
{
    return self->readable;
}

// Returns the descriptor from which interrupts are read.
int pyuio_interrupt_source(pyuio_interrupt *self)
{
    return self->source;
}

// Returns a descriptor that becomes readable when the interrupt is closed, for a caller that does its own waiting and
// holds the interrupt meanwhile.
int pyuio_interrupt_wake_descriptor(pyuio_interrupt *self)
{
    return self->wake;
}

// Does what pyuio_interrupt_hold does, for callers that wait or take; returns -EBUSY while a service does that.
static int hold_unserved(pyuio_interrupt *self)
{
    int result = pyuio_interrupt_hold(self);
    if (result == 0 && self->served) {
        pyuio_interrupt_release(self);
        result = -EBUSY;
    }
    return result;
}

// Unmasks unless an interrupt is pending already: returns PYUIO_READY, PYUIO_NONE, or an error.
int pyuio_interrupt_arm(pyuio_interrupt *self)
{
    int result = hold_unserved(self);
    if (result < 0)
        return result;
    pyuio_interrupt_release(self);
    result = pyuio_interrupt_is_pending(self);
    return result == PYUIO_NONE ? unmask_if_masked(self) : result;
}

// Waits, unmasked, until an interrupt is pending, and leaves it pending. `timeout` is in nanoseconds, or negative for
// ever. Returns PYUIO_READY, PYUIO_NONE, PYUIO_SIGNAL, or an error.
int pyuio_interrupt_wait(pyuio_interrupt *self, int64_t timeout)
{
    int result = hold_unserved(self);
    if (result < 0)
        return result;
    result = sleep_until_ready(self, 0);
    if (result == PYUIO_NONE)
        result = unmask_and_sleep(self, timeout);
    pyuio_interrupt_release(self);
    return result;
}

// Takes the interrupts that came since the last read. If there are none, unmasks and waits. `timeout` is in
// nanoseconds: 0 does not wait, a negative one waits for ever. Returns the count, 1 to 2^32 - 1; PYUIO_NONE;
// PYUIO_SIGNAL; or an error. After the thread wakes it locks once: it is on its way to the caller.
int64_t pyuio_interrupt_read(pyuio_interrupt *self, int64_t timeout)
{
    pthread_mutex_lock(&self->state);
    int64_t result = self->closed ? PYUIO_CLOSED : take(self);
    int waits = result == PYUIO_NONE && timeout != 0;
    self->users += waits;
    self->sleepers += waits; // before the unmasking: from then on take() in another thread unmasks, too
    if (result == PYUIO_NONE)
        result = pyuio_interrupt_set_masked(self, 0, 1);
    if (waits) {
        pthread_mutex_unlock(&self->state);
        if (result == 0)
            result = sleep_until_ready(self, timeout);
        pthread_mutex_lock(&self->state);
        self->sleepers--;
        if (result == PYUIO_READY) {
            result = take(self);
            if (result == PYUIO_NONE) // another thread took it: the caller waits again
                result = PYUIO_SIGNAL;
        }
        release(self);
    }
    pthread_mutex_unlock(&self->state);
    return result;
}
