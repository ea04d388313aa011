// SPDX-License-Identifier: MIT
// Waking up at a time, as cyclictest does it: clock_nanosleep until an absolute time of CLOCK_MONOTONIC, and then the
// same clock read again. Called from Python without the GIL. All times are in nanoseconds.

#include <errno.h>
#include <time.h>

#include "timer.h"

#define NANOSECONDS 1000000000LL

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * NANOSECONDS + time.tv_nsec;
}

// Sleeps until a time of CLOCK_MONOTONIC; returns the time at waking, or a negative errno. in_time tells whether the
// caller came before that time, and so did wait for it. A signal that Python has a handler for does not end it.
int64_t pyuio_timer_wait(int64_t when, int *in_time)
{
    struct timespec time = {when / NANOSECONDS, when % NANOSECONDS};
    int error;
    *in_time = now() < when;
    do {
        error = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, 0);
    } while (error == EINTR);
    return error ? -error : now();
}

// Waits for `count` events, the first at `first` and the others each `interval` later, and stores for each how long
// after it the thread was there. A wake-up that comes after several events counts for each of them. Returns how many
// were stored: fewer if `stop` is set meanwhile; or a negative errno. `late` gets, for each, whether nobody waited for it.
int64_t pyuio_timer_run(int64_t first, int64_t interval, int64_t count, int64_t *latencies, uint8_t *late, int *stop)
{
    int64_t next = first, stored = 0;
    while (stored < count && !__atomic_load_n(stop, __ATOMIC_RELAXED)) {
        int in_time;
        int64_t woken = pyuio_timer_wait(next, &in_time);
        if (woken < 0)
            return woken;
        do {
            late[stored] = !in_time;
            latencies[stored++] = woken - next;
            in_time = 0;
            next += interval;
        } while (next <= woken && stored < count);
    }
    return stored;
}
