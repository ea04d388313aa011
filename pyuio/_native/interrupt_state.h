// SPDX-License-Identifier: MIT
// The state of an interrupt, which interrupt.c and service_wait.c share. interrupt.c explains it.
#ifndef PYUIO_INTERRUPT_STATE_H
#define PYUIO_INTERRUPT_STATE_H

#include <pthread.h>
#include <sys/types.h>

#include "interrupt.h"
#include "syscall_breaker.h"

enum masking { NO_MASKING, MASK_NOMINALLY, MASK_BY_WRITE, MASK_BY_COMMAND, MASK_BY_VFIO };

struct pyuio_interrupt {
    int source;  // /dev/uioN, or an eventfd to which VFIO delivers the interrupt; non-blocking
    int removal; // the eventfd by which VFIO asks for the device, readable from then on; -1: `source` tells by itself
    int wake;    // eventfd: readable from pyuio_interrupt_close on
    int readable; // readable with an interrupt, and when the device is gone: `source`, or an epoll of it and `removal`
    int is_eventfd; // whether `source` is one, and counts from 0 at each read
    enum masking masking;
    pyuio_command *command; // for MASK_BY_COMMAND
    int device;             // for MASK_BY_VFIO: the function's file, which outlives the interrupt
    pid_t owner;            // the process that made it: a forked child must not touch the device
    pthread_mutex_t state;  // guards what follows; never held while waiting, and taken before a command register's lock
    int users;              // threads between pyuio_interrupt_hold and pyuio_interrupt_release
    int sleepers;           // the users that wait
    int closed;
    int served;     // a service reads it, and nobody else may; the descriptor blocks meanwhile
    _Atomic int service_ending; // that service is to end; set before the interrupt is masked for good
    pyuio_syscall_breaker *breaker; // ends the service's read; NULL until the service's thread runs
    _Atomic int gone;   // the device was removed or unbound; another driver may have it, so nothing masks or unmasks it
    _Atomic int masked; // the command register knows its own
    _Atomic uint32_t total; // the running total at the last read, modulo 2^32
};

int64_t pyuio_interrupt_take_count(pyuio_interrupt *interrupt, int64_t *time);
int64_t pyuio_interrupt_noted(pyuio_interrupt *interrupt, int64_t result);
int pyuio_interrupt_set_masked(pyuio_interrupt *interrupt, int masked, int only_if_masked);

#endif
