// SPDX-License-Identifier: MIT
// The scheduling of a thread. scheduling.c says what each function does.
#ifndef PYUIO_SCHEDULING_H
#define PYUIO_SCHEDULING_H

#include <stdint.h>

/* cdef */
typedef struct {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime;  /* this and the next two: nanoseconds */
    uint64_t deadline;
    uint64_t period;
} pyuio_scheduling;

int pyuio_scheduling_of(int thread, pyuio_scheduling *scheduling);
int pyuio_schedule(int thread, pyuio_scheduling *scheduling);
/* cdef */

#endif
