// SPDX-License-Identifier: MIT
// Waiting for the interrupt of a UIO device. What each function does is said in waiting.c.
#ifndef PYUIO_WAITING_H
#define PYUIO_WAITING_H

#include <stdint.h>

/* cdef */
typedef struct pyuio_interrupt pyuio_interrupt;
typedef struct pyuio_command pyuio_command;

enum {
    PYUIO_READY = 1,       /* an interrupt is pending */
    PYUIO_NONE = 0,        /* none came in time; the interrupt is unmasked */
    PYUIO_SIGNAL = -5000,  /* a signal may have come: let Python run its handlers, then wait on */
    PYUIO_CLOSED = -5001   /* pyuio_close was called */
};

pyuio_interrupt *pyuio_new(int device, uint32_t total);
void pyuio_free(pyuio_interrupt *interrupt);
void pyuio_close(pyuio_interrupt *interrupt);
void pyuio_forget(pyuio_interrupt *interrupt);
void pyuio_mask_by_write(pyuio_interrupt *interrupt);
void pyuio_mask_by_command(pyuio_interrupt *interrupt, pyuio_command *command);
void pyuio_count_sleeper(pyuio_interrupt *interrupt, int change);
int pyuio_mask(pyuio_interrupt *interrupt);
int pyuio_unmask(pyuio_interrupt *interrupt);
int pyuio_is_masked(pyuio_interrupt *interrupt);
int pyuio_is_pending(pyuio_interrupt *interrupt);
int pyuio_hold(pyuio_interrupt *interrupt);
void pyuio_release(pyuio_interrupt *interrupt);
int pyuio_wake_descriptor(pyuio_interrupt *interrupt);
int pyuio_arm(pyuio_interrupt *interrupt);
int pyuio_wait(pyuio_interrupt *interrupt, int64_t timeout);
int64_t pyuio_read(pyuio_interrupt *interrupt, int64_t timeout);
uint32_t pyuio_total(pyuio_interrupt *interrupt);
int pyuio_serve_begin(pyuio_interrupt *interrupt);
void pyuio_serve_stop(pyuio_interrupt *interrupt);
void pyuio_serve_end(pyuio_interrupt *interrupt);

pyuio_command *pyuio_command_new(int config);
void pyuio_command_free(pyuio_command *command);
void pyuio_command_let_go(pyuio_command *command);
void pyuio_command_forget(pyuio_command *command);
int pyuio_command_write(pyuio_command *command, int offset, const uint8_t *data, int length);
int pyuio_command_change(pyuio_command *command, int set, int clear);
/* cdef */

#endif
