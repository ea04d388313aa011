// SPDX-License-Identifier: MIT
// RT throttling of a thread, noticed. throttling.c says what each function does.
#ifndef PYUIO_THROTTLING_H
#define PYUIO_THROTTLING_H

#include <stdint.h>

/* cdef */
typedef struct pyuio_throttling pyuio_throttling;

pyuio_throttling *pyuio_throttling_start(int thread, int64_t runtime, int64_t period);
void pyuio_throttling_look(pyuio_throttling *watch);
int64_t pyuio_throttling_times(pyuio_throttling *watch);
int64_t pyuio_throttling_longest(pyuio_throttling *watch);
void pyuio_throttling_stop(pyuio_throttling *watch);
void pyuio_throttling_free(pyuio_throttling *watch);
/* cdef */

#endif
