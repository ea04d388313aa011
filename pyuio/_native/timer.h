// SPDX-License-Identifier: MIT
// Waking up at a time. timer.c says what each function does.
#ifndef PYUIO_TIMER_H
#define PYUIO_TIMER_H

#include <stdint.h>

/* cdef */
int64_t pyuio_timer_run(int64_t first, int64_t interval, int64_t count, int64_t *latencies, uint8_t *late, int *stop);
int64_t pyuio_timer_wait(int64_t when, int *in_time);
void pyuio_timer_trace(int64_t limit, int64_t from, int tracing_on);
void pyuio_timer_sample(int64_t when, int64_t woken);
uint64_t pyuio_time_stamp_counter(void);
/* cdef */

#endif
