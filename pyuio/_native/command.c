// SPDX-License-Identifier: MIT
// The command register of a PCI function (PCI Local Bus Specification 3.0, section 6.2.2), which has two writers: its
// owner in Python, and whoever masks and unmasks the interrupt by its Interrupt Disable bit. The lock keeps them apart, so
// that neither brings back bits that the other has just changed.
//
// Functions that can fail return a negative errno.

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "command.h"

#define COMMAND_OFFSET 4
#define INTERRUPT_DISABLE 0x0400

struct pyuio_command {
    int config; // the configuration space's file, a descriptor of its own; -1 when it was let go
    pthread_mutex_t lock;
    uint16_t enabled; // the register with the interrupt enabled
    // Interrupt Disable as it was last written or read here. Changed with the lock held, but for its being set because
    // the kernel's handler has set the bit, which is true in whatever order.
    _Atomic int masked;
};

static uint16_t from_little_endian(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

// Lock held. 0, or a negative errno.
static int note_command(pyuio_command *self)
{
    uint8_t bytes[2];
    ssize_t done = pread(self->config, bytes, sizeof bytes, COMMAND_OFFSET);
    if (done != (ssize_t)sizeof bytes)
        return done < 0 ? -errno : -ENODEV;
    self->enabled = from_little_endian(bytes) & (uint16_t)~INTERRUPT_DISABLE;
    self->masked = (from_little_endian(bytes) & INTERRUPT_DISABLE) != 0;
    return 0;
}

// The command register of an open configuration space, which stays the caller's. NULL, with errno set: no memory, no
// descriptor left, or a device that is gone.
pyuio_command *pyuio_command_new(int config)
{
    pyuio_command *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    pthread_mutex_init(&self->lock, NULL);
    self->config = fcntl(config, F_DUPFD_CLOEXEC, 0);
    int error = self->config < 0 ? -errno : note_command(self);
    if (error < 0) {
        pyuio_command_free(self);
        errno = -error;
        return NULL;
    }
    return self;
}

// No thread may be in another function of the same register, and no interrupt may mask by it any more.
void pyuio_command_free(pyuio_command *self)
{
    if (self->config >= 0)
        close(self->config);
    pthread_mutex_destroy(&self->lock);
    free(self);
}

// In a forked child, where no other thread is: closes it there.
void pyuio_command_forget(pyuio_command *self)
{
    if (self->config >= 0)
        close(self->config);
    self->config = -1;
    pthread_mutex_init(&self->lock, NULL); // a thread of the parent's may have had it locked
}

// The device is gone, or another driver's by now, or closed: nothing more is read or written, which gives -ENODEV.
void pyuio_command_let_go(pyuio_command *self)
{
    pthread_mutex_lock(&self->lock);
    if (self->config >= 0)
        close(self->config);
    self->config = -1;
    pthread_mutex_unlock(&self->lock);
}

// Lock held. Writes part of the configuration space: 0, or a negative errno.
static int write_config(pyuio_command *self, const uint8_t *data, size_t length, int offset)
{
    if (self->config < 0)
        return -ENODEV;
    return pwrite(self->config, data, length, offset) < 0 ? -errno : 0;
}

// Writes part of the configuration space that holds, or may hold, part of the register.
int pyuio_command_write(pyuio_command *self, int offset, const uint8_t *data, int length)
{
    pthread_mutex_lock(&self->lock);
    int result = write_config(self, data, (size_t)length, offset);
    if (result == 0)
        result = note_command(self);
    pthread_mutex_unlock(&self->lock);
    return result;
}

// Sets and clears bits: one read of 16 bits, one write of 16, or of the low 8 where they suffice, because the kernel's
// handler may set Interrupt Disable in between.
int pyuio_command_change(pyuio_command *self, int set, int clear)
{
    uint8_t bytes[2];
    pthread_mutex_lock(&self->lock);
    ssize_t done = self->config < 0 ? 0 : pread(self->config, bytes, sizeof bytes, COMMAND_OFFSET);
    int result = done == (ssize_t)sizeof bytes ? 0 : done < 0 ? -errno : -ENODEV;
    if (result == 0) {
        int command = (from_little_endian(bytes) & ~clear) | set;
        bytes[0] = (uint8_t)command;
        bytes[1] = (uint8_t)(command >> 8);
        size_t length = (set | clear) > 0xff ? 2 : 1;
        result = write_config(self, bytes, length, COMMAND_OFFSET);
        if (result == 0)
            result = note_command(self);
    }
    pthread_mutex_unlock(&self->lock);
    return result;
}

// Lock held.
static int set_masked(pyuio_command *self, int masked)
{
    // Both bytes: older QEMU (7.2) looks again at a pending interrupt only when the write covers offset 4.
    uint16_t command = masked ? self->enabled | INTERRUPT_DISABLE : self->enabled;
    uint8_t bytes[2] = {(uint8_t)command, (uint8_t)(command >> 8)};
    int result = write_config(self, bytes, sizeof bytes, COMMAND_OFFSET);
    if (result == 0)
        self->masked = masked;
    return result;
}

// Masks or unmasks; with `only_if_masked` not unless it is thought to be masked.
int pyuio_command_mask(pyuio_command *self, int masked, int only_if_masked)
{
    pthread_mutex_lock(&self->lock);
    int result = !only_if_masked || self->masked ? set_masked(self, masked) : 0;
    pthread_mutex_unlock(&self->lock);
    return result;
}

// Unmasks if it is thought to be masked; PYUIO_CLOSED once `ending` is set. Whoever sets that, and masks then, has the
// last word.
int pyuio_command_unmask_unless(pyuio_command *self, const _Atomic int *ending)
{
    pthread_mutex_lock(&self->lock);
    int result = *ending ? PYUIO_CLOSED : self->masked ? set_masked(self, 0) : 0;
    pthread_mutex_unlock(&self->lock);
    return result;
}

// An interrupt was read: the kernel's handler has masked it.
void pyuio_command_note_masked(pyuio_command *self)
{
    atomic_store_explicit(&self->masked, 1, memory_order_release);
}

int pyuio_command_is_masked(pyuio_command *self)
{
    return atomic_load(&self->masked);
}
