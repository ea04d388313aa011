// SPDX-License-Identifier: MIT
// Memory that causes no page fault later: locked (mlockall), and stack and heap touched beforehand.
//
// Functions that can fail return a negative errno.

#include "memory_lock.h"

#include <alloca.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE 4096
// These bytes at the end of a stack stay untouched, for what runs below touch_below's own frame, signal handlers
// included.
#define STACK_MARGIN (64 * 1024)
// glibc's values at the start (malloc/malloc.c: DEFAULT_TRIM_THRESHOLD, DEFAULT_MMAP_MAX).
#define TRIM_THRESHOLD (128 * 1024)
#define MMAP_MAX 65536

// Locks all memory of the process, present and future (mlockall).
int pyuio_lock_memory(void)
{
    return mlockall(MCL_CURRENT | MCL_FUTURE) < 0 ? -errno : 0;
}

// Undoes it (munlockall).
int pyuio_unlock_memory(void)
{
    return munlockall() < 0 ? -errno : 0;
}

// Locks what is mapped in a range of addresses. Returns -ENOMEM when part of the range is not mapped.
int pyuio_lock_range(uint64_t start, uint64_t size)
{
    return mlock((void *)(uintptr_t)start, size) < 0 ? -errno : 0;
}

static void touch(volatile char *memory, int64_t size)
{
    // From the top, because a stack grows downwards, a page at a time.
    for (int64_t at = size - 1; at >= 0; at -= PAGE)
        memory[at] = 0;
    if (size > 0)
        memory[0] = 0;
}

// Not inlined, so that the return frees what alloca took.
static __attribute__((noinline)) void touch_below(int64_t size)
{
    touch(alloca((size_t)size), size);
}

// Touches the next `size` bytes of the calling thread's stack, or all that are left of it. Returns how many.
int64_t pyuio_touch_stack(int64_t size)
{
    pthread_attr_t attributes;
    void *lowest;
    size_t whole;
    int result = pthread_getattr_np(pthread_self(), &attributes);
    if (result != 0)
        return -result;
    result = pthread_attr_getstack(&attributes, &lowest, &whole);
    pthread_attr_destroy(&attributes);
    if (result != 0)
        return -result;
    int64_t left = (char *)__builtin_frame_address(0) - (char *)lowest - STACK_MARGIN;
    if (size > left)
        size = left;
    if (size <= 0)
        return 0;
    touch_below(size);
    return size;
}

// Takes `size` bytes from malloc, touches them, and frees them.
int pyuio_touch_heap(int64_t size)
{
    char *memory = malloc((size_t)size);
    if (memory == NULL)
        return -ENOMEM;
    touch(memory, size);
    free(memory);
    return 0;
}

// With 1, freed memory stays with the process, and large blocks come from the heap instead of from mmap. With 0, glibc
// behaves as at its start, except that its threshold for mmap no longer adapts itself; free memory returns to the
// kernel.
int pyuio_keep_heap(int keep)
{
#ifdef __GLIBC__
    if (!mallopt(M_MMAP_MAX, keep ? 0 : MMAP_MAX) || !mallopt(M_TRIM_THRESHOLD, keep ? -1 : TRIM_THRESHOLD))
        return -EINVAL;
    if (!keep)
        malloc_trim(0);
    return 0;
#else
    return keep ? -ENOSYS : 0;
#endif
}
