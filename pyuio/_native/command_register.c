// SPDX-License-Identifier: MIT
// The command register of a PCI function (PCI Local Bus Specification 3.0, section 6.2.2), which masks and unmasks the
// interrupt of a device that uio_pci_generic drives.
//
// The register has two writers: its owner in Python, and the threads that mask and unmask by its Interrupt Disable bit.
// A lock keeps them apart, so that neither brings back bits that the other has just changed.
//
// Functions that can fail return a negative errno.

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "command_register.h"
#include "interrupt.h"

#define COMMAND_OFFSET 4
#define INTERRUPT_DISABLE 0x0400

struct pyuio_command {
    int config;    // the file of the configuration space, a descriptor of its own; -1 once closed
    int64_t start; // where in the file the configuration space starts
    pthread_mutex_t lock;
    uint16_t enabled; // the register's value with the interrupt enabled
    // Interrupt Disable, as this process last wrote or read it. The lock guards it, with one exception: a reader sets
    // it without the lock because the kernel's handler has set the bit, which is true in any order.
    _Atomic int masked;
};

static uint16_t from_little_endian(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

// Reads the register and notes what it holds. The lock is held.
static int note_command(pyuio_command *self)
{
    uint8_t bytes[2];
    ssize_t done = pread(self->config, bytes, sizeof bytes, self->start + COMMAND_OFFSET);
    if (done != (ssize_t)sizeof bytes)
        return done < 0 ? -errno : -ENODEV;
    self->enabled = from_little_endian(bytes) & (uint16_t)~INTERRUPT_DISABLE;
    self->masked = (from_little_endian(bytes) & INTERRUPT_DISABLE) != 0;
    return 0;
}

// Makes the command register of an open configuration space, which starts at `start` in its file; duplicates `config`,
// which stays the caller's. Returns NULL with errno set when no memory or no descriptor is left, or when the device is
// gone.
pyuio_command *pyuio_command_new(int config, int64_t start)
{
    pyuio_command *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    pthread_mutex_init(&self->lock, NULL);
    self->config = fcntl(config, F_DUPFD_CLOEXEC, 0);
    self->start = start;
    int error = self->config < 0 ? -errno : note_command(self);
    if (error < 0) {
        pyuio_command_free(self);
        errno = -error;
        return NULL;
    }
    return self;
}

// Closes and frees. No thread may be in another function of the same register, and no interrupt may mask by it.
void pyuio_command_free(pyuio_command *self)
{
    if (self->config >= 0)
        close(self->config);
    pthread_mutex_destroy(&self->lock);
    free(self);
}

// Closes it. The device may be gone, or another driver's, by now: later reads and writes do nothing and return -ENODEV.
void pyuio_command_close(pyuio_command *self)
{
    pthread_mutex_lock(&self->lock);
    if (self->config >= 0)
        close(self->config);
    self->config = -1;
    pthread_mutex_unlock(&self->lock);
}

// Closes it in a forked child, where no other thread is.
void pyuio_command_forget(pyuio_command *self)
{
    if (self->config >= 0)
        close(self->config);
    self->config = -1;
    pthread_mutex_init(&self->lock, NULL); // a thread of the parent may have had it locked
}

// Writes part of the configuration space. The lock is held.
static int write_config(pyuio_command *self, const uint8_t *data, size_t length, int offset)
{
    if (self->config < 0)
        return -ENODEV;
    return pwrite(self->config, data, length, self->start + offset) < 0 ? -errno : 0;
}

// Writes `length` bytes at `offset` of the configuration space, which are, or may be, part of the register.
int pyuio_command_write(pyuio_command *self, int offset, const uint8_t *data, int length)
{
    pthread_mutex_lock(&self->lock);
    int result = write_config(self, data, (size_t)length, offset);
    if (result == 0)
        result = note_command(self);
    pthread_mutex_unlock(&self->lock);
    return result;
}

// Sets and clears bits: one read of 16 bits and one write. The write has 8 bits where the low byte suffices, because
// the kernel's handler may set Interrupt Disable, in the high byte, between the read and the write.
int pyuio_command_change(pyuio_command *self, int set, int clear)
{
    uint8_t bytes[2];
    pthread_mutex_lock(&self->lock);
    ssize_t done = self->config < 0 ? 0 : pread(self->config, bytes, sizeof bytes, self->start + COMMAND_OFFSET);
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

// Resets the function by writing to `attribute`, its file ``reset`` in sysfs or that of the bridge above it. The kernel
// puts the register back as it was before (pci_dev_save_and_disable, drivers/pci/pci.c). The lock keeps a thread from
// unmasking meanwhile, which the kernel would undo, so that the thread waited for ever.
int pyuio_command_reset(pyuio_command *self, int attribute)
{
    pthread_mutex_lock(&self->lock);
    int result = self->config < 0 ? -ENODEV : write(attribute, "1", 1) < 0 ? -errno : note_command(self);
    pthread_mutex_unlock(&self->lock);
    return result;
}

// Writes the whole register with Interrupt Disable set or cleared. The lock is held.
static int set_masked(pyuio_command *self, int masked)
{
    // Both bytes, because QEMU 7.2 looks again at a pending interrupt only when the write covers offset 4.
    uint16_t command = masked ? self->enabled | INTERRUPT_DISABLE : self->enabled;
    uint8_t bytes[2] = {(uint8_t)command, (uint8_t)(command >> 8)};
    int result = write_config(self, bytes, sizeof bytes, COMMAND_OFFSET);
    if (result == 0)
        self->masked = masked;
    return result;
}

// Masks or unmasks. `only_if_masked`: does nothing unless the interrupt is known to be masked.
int pyuio_command_mask(pyuio_command *self, int masked, int only_if_masked)
{
    pthread_mutex_lock(&self->lock);
    int result = !only_if_masked || self->masked ? set_masked(self, masked) : 0;
    pthread_mutex_unlock(&self->lock);
    return result;
}

// Unmasks if the interrupt is known to be masked; returns PYUIO_CLOSED, and leaves it masked, once `ending` is set. The
// thread that sets `ending` and then masks has the last word: both take the lock.
int pyuio_command_unmask_unless(pyuio_command *self, const _Atomic int *ending)
{
    pthread_mutex_lock(&self->lock);
    int result = *ending ? PYUIO_CLOSED : self->masked ? set_masked(self, 0) : 0;
    pthread_mutex_unlock(&self->lock);
    return result;
}

// Notes that an interrupt was read, which the kernel's handler has masked.
void pyuio_command_note_masked(pyuio_command *self)
{
    atomic_store_explicit(&self->masked, 1, memory_order_release);
}

// Returns whether the interrupt is masked, as far as this process knows.
int pyuio_command_is_masked(pyuio_command *self)
{
    return atomic_load(&self->masked);
}
