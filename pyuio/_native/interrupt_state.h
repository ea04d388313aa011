// SPDX-License-Identifier: MIT
// The state of an interrupt, which interrupt.c and service_wait.c share. interrupt.c explains it.
#ifndef PYUIO_INTERRUPT_STATE_H
#define PYUIO_INTERRUPT_STATE_H

#include <pthread.h>
#include <sys/types.h>

#include "interrupt.h"
#include "syscall_breaker.h"

enum masking { NO_MASKING, MASK_BY_WRITE, MASK_BY_COMMAND };

struct pyuio_interrupt {
    int device; // /dev/uioN, non-blocking
    int wake;   // eventfd: readable from pyuio_interrupt_close on
    enum masking masking;
    pyuio_command *command; // for MASK_BY_COMMAND
    pid_t owner;            // the process that made it: a forked child must not touch the device
    pthread_mutex_t state;  // guards what follows; never held while waiting, and taken before a command register's lock
    int users;              // threads between pyuio_interrupt_hold and pyuio_interrupt_release
    int sleepers;           // the users that wait
    int closed;
    int served;     // a service reads it, and nobody else may; the descriptor blocks meanwhile
    _Atomic int service_ending; // that service is to end; set before the interrupt is masked for good
    pyuio_syscall_breaker *breaker; // ends the service's read; NULL until the service's thread runs
    _Atomic int gone;   // the device was removed or unbound; another driver may have it, so nothing masks or unmasks it
    _Atomic int masked; // for MASK_BY_WRITE; the command register knows its own
    _Atomic uint32_t total; // the kernel's running total at the last read
};

void pyuio_interrupt_note_total(pyuio_interrupt *interrupt, uint32_t total);
void pyuio_interrupt_note_if_gone(pyuio_interrupt *interrupt, int64_t result);
int pyuio_interrupt_set_masked(pyuio_interrupt *interrupt, int masked, int only_if_masked);

#endif
