// SPDX-License-Identifier: MIT
// What real time needs and Python's standard library lacks: sched_setattr, mlockall, stack and heap touched beforehand.
//
// Functions that can fail return a negative errno.

#include "realtime.h"

#include <alloca.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096
// Left untouched at the end of a stack: what runs below this function's own frame, signal handlers included.
#define STACK_MARGIN (64 * 1024)
// What glibc starts with (malloc/malloc.c: DEFAULT_TRIM_THRESHOLD, DEFAULT_MMAP_MAX).
#define TRIM_THRESHOLD (128 * 1024)
#define MMAP_MAX 65536

// sched_setattr(2). The first form of struct sched_attr (include/uapi/linux/sched/types.h), which every kernel takes and
// which leaves utilization clamps alone. `thread` 0 is the calling one.
int pyuio_scheduling_of(int thread, pyuio_scheduling *scheduling)
{
    return syscall(SYS_sched_getattr, thread, scheduling, sizeof *scheduling, 0) < 0 ? -errno : 0;
}

int pyuio_schedule(int thread, pyuio_scheduling *scheduling)
{
    scheduling->size = sizeof *scheduling;
    return syscall(SYS_sched_setattr, thread, scheduling, 0) < 0 ? -errno : 0;
}

int pyuio_lock_memory(void)
{
    return mlockall(MCL_CURRENT | MCL_FUTURE) < 0 ? -errno : 0;
}

int pyuio_unlock_memory(void)
{
    return munlockall() < 0 ? -errno : 0;
}

// Only what is mapped there: ENOMEM when that is not all of it.
int pyuio_lock_range(uint64_t start, uint64_t size)
{
    return mlock((void *)(uintptr_t)start, size) < 0 ? -errno : 0;
}

static void touch(volatile char *memory, int64_t size)
{
    // From the top: a stack grows downwards, a page at a time.
    for (int64_t at = size - 1; at >= 0; at -= PAGE)
        memory[at] = 0;
    if (size > 0)
        memory[0] = 0;
}

// Not inlined, so that what alloca takes is given back on return.
static __attribute__((noinline)) void touch_below(int64_t size)
{
    touch(alloca((size_t)size), size);
}

// Touches the next `size` bytes of the calling thread's stack, or all that it has left. Returns how many.
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

// Takes `size` bytes from malloc, touches them, and gives them back.
int pyuio_touch_heap(int64_t size)
{
    char *memory = malloc((size_t)size);
    if (memory == NULL)
        return -ENOMEM;
    touch(memory, size);
    free(memory);
    return 0;
}

// 1: what is freed stays with the process, and large blocks come from the heap, too, instead of from mmap. 0: as glibc
// starts, but for its threshold of mmap, which does not adapt itself any more; what is free goes back to the kernel.
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
