// SPDX-License-Identifier: MIT
// Memory locked, and touched beforehand. memory_lock.c says what each function does.
#ifndef PYUIO_MEMORY_LOCK_H
#define PYUIO_MEMORY_LOCK_H

#include <stdint.h>

/* cdef */
int pyuio_lock_memory(void);
int pyuio_unlock_memory(void);
int pyuio_lock_range(uint64_t start, uint64_t size);
int64_t pyuio_touch_stack(int64_t size);
int pyuio_touch_heap(int64_t size);
int pyuio_keep_heap(int keep);
/* cdef */

#endif
