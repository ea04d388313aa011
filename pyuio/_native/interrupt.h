// SPDX-License-Identifier: MIT
// An interrupt of a device: its state, masking, reading and waiting. interrupt.c says what each function does.
#ifndef PYUIO_INTERRUPT_H
#define PYUIO_INTERRUPT_H

#include <stdint.h>

#include "command_register.h"

/* cdef */
typedef struct pyuio_interrupt pyuio_interrupt;

enum {
    PYUIO_READY = 1,       /* an interrupt is pending */
    PYUIO_NONE = 0,        /* no interrupt came in time; the interrupt is unmasked */
    PYUIO_SIGNAL = -5000,  /* a signal may have come: let Python run its handlers, then wait again */
    PYUIO_CLOSED = -5001   /* pyuio_interrupt_close was called */
};

pyuio_interrupt *pyuio_interrupt_new(int node, uint32_t total);
pyuio_interrupt *pyuio_interrupt_new_eventfd(int eventfd, int removal);
void pyuio_interrupt_free(pyuio_interrupt *interrupt);
void pyuio_interrupt_close(pyuio_interrupt *interrupt);
void pyuio_interrupt_forget(pyuio_interrupt *interrupt);
void pyuio_interrupt_mask_by_write(pyuio_interrupt *interrupt);
void pyuio_interrupt_mask_by_vfio(pyuio_interrupt *interrupt, int device);
void pyuio_interrupt_mask_nominally(pyuio_interrupt *interrupt);
void pyuio_interrupt_mask_by_command(pyuio_interrupt *interrupt, pyuio_command *command);
void pyuio_interrupt_note_gone(pyuio_interrupt *interrupt);
int pyuio_interrupt_mask(pyuio_interrupt *interrupt);
int pyuio_interrupt_unmask(pyuio_interrupt *interrupt);
int pyuio_interrupt_is_masked(pyuio_interrupt *interrupt);
int pyuio_interrupt_is_pending(pyuio_interrupt *interrupt);
int pyuio_interrupt_hold(pyuio_interrupt *interrupt);
void pyuio_interrupt_release(pyuio_interrupt *interrupt);
void pyuio_interrupt_count_sleeper(pyuio_interrupt *interrupt, int change);
int pyuio_interrupt_descriptor(pyuio_interrupt *interrupt);
int pyuio_interrupt_source(pyuio_interrupt *interrupt);
int pyuio_interrupt_wake_descriptor(pyuio_interrupt *interrupt);
int pyuio_interrupt_arm(pyuio_interrupt *interrupt);
int pyuio_interrupt_wait(pyuio_interrupt *interrupt, int64_t timeout);
int64_t pyuio_interrupt_read(pyuio_interrupt *interrupt, int64_t timeout);
uint32_t pyuio_interrupt_total(pyuio_interrupt *interrupt);
uint32_t pyuio_difference_modulo_2_32(uint32_t later, uint32_t earlier);
/* cdef */

#endif
