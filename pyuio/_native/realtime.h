// SPDX-License-Identifier: MIT
// What real time needs of the kernel and the C library. What each function does is said in realtime.c and watch.c.
#ifndef PYUIO_REALTIME_H
#define PYUIO_REALTIME_H

#include <stdint.h>

/* cdef */
typedef struct {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime;  /* nanoseconds, as the two that follow */
    uint64_t deadline;
    uint64_t period;
} pyuio_scheduling;

int pyuio_scheduling_of(int thread, pyuio_scheduling *scheduling);
int pyuio_schedule(int thread, pyuio_scheduling *scheduling);
int pyuio_lock_memory(void);
int pyuio_unlock_memory(void);
int pyuio_lock_range(uint64_t start, uint64_t size);
int64_t pyuio_touch_stack(int64_t size);
int pyuio_touch_heap(int64_t size);
int pyuio_keep_heap(int keep);

typedef struct pyuio_watch pyuio_watch;

pyuio_watch *pyuio_watch_start(int thread, int64_t runtime, int64_t period);
void pyuio_watch_look(pyuio_watch *watch);
int64_t pyuio_watch_times(pyuio_watch *watch);
int64_t pyuio_watch_longest(pyuio_watch *watch);
void pyuio_watch_stop(pyuio_watch *watch);
void pyuio_watch_free(pyuio_watch *watch);
/* cdef */

#endif
