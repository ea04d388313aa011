// SPDX-License-Identifier: MIT
// The scheduling of a thread by sched_setattr(2), which Python's standard library lacks.
//
// The structure is the first form of struct sched_attr (include/uapi/linux/sched/types.h). Every kernel takes it, and
// it leaves utilization clamps alone. `thread` is the kernel's number of a thread; 0 is the calling one.
//
// The functions return 0 or a negative errno.

#include "scheduling.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

// Reads the scheduling of a thread.
int pyuio_scheduling_of(int thread, pyuio_scheduling *scheduling)
{
    return syscall(SYS_sched_getattr, thread, scheduling, sizeof *scheduling, 0) < 0 ? -errno : 0;
}

// Sets the scheduling of a thread.
int pyuio_schedule(int thread, pyuio_scheduling *scheduling)
{
    scheduling->size = sizeof *scheduling;
    return syscall(SYS_sched_setattr, thread, scheduling, 0) < 0 ? -errno : 0;
}
