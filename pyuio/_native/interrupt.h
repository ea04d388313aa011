// SPDX-License-Identifier: MIT
// What waiting.c and serving.c share: an interrupt's state, and what both do to it. Said in waiting.c.
#ifndef PYUIO_INTERRUPT_H
#define PYUIO_INTERRUPT_H

#include <pthread.h>
#include <sys/types.h>

#include "kick.h"
#include "waiting.h"

enum masking { NO_MASKING, MASK_BY_WRITE, MASK_BY_COMMAND };

struct pyuio_interrupt {
    int device; // /dev/uioN, non-blocking
    int wake;   // eventfd: readable from pyuio_close on
    enum masking masking;
    pyuio_command *command; // where it masks by that
    pid_t owner;            // the process that made it: a forked one must not touch the device
    pthread_mutex_t state;  // guards what follows; never held while waiting, and taken before a command's lock
    int users;              // threads between pyuio_hold and pyuio_release
    int sleepers;           // those of them that wait
    int closed;
    int served;     // a service reads it, and nobody else may; the descriptor blocks meanwhile
    _Atomic int ending; // that service is to end; set before the interrupt is masked for good
    pyuio_kick *kick; // ends the service's read; NULL until its thread runs
    _Atomic int gone;       // the device is: it may be another driver's by now, and is neither masked nor unmasked
    _Atomic int masked;     // where it masks otherwise
    _Atomic uint32_t total; // the kernel's running total at the last read
};

void pyuio_note_total(pyuio_interrupt *interrupt, uint32_t total);
void pyuio_note_if_gone(pyuio_interrupt *interrupt, int64_t result);
int pyuio_write_mask(pyuio_interrupt *interrupt, int masked, int only_if_masked);

// serving.c, for the service's own thread
void pyuio_serve_enter(pyuio_interrupt *interrupt, pyuio_kick *kick);
int64_t pyuio_serve_next(pyuio_interrupt *interrupt, int64_t *time);

#endif
