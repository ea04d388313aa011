// SPDX-License-Identifier: MIT
// Waking up at a time, as cyclictest does: clock_nanosleep until an absolute time of CLOCK_MONOTONIC, then a read of
// the same clock. Python calls these functions without the GIL. All times are in nanoseconds.

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "timer.h"

#define NANOSECONDS 1000000000LL

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * NANOSECONDS + time.tv_nsec;
}

static __thread struct {
    int64_t limit, from;
    int tracing_on;
} trace = {.tracing_on = -1};

// Has this thread write 0 to a descriptor of the file tracing_on when it wakes more than `limit` after an event that was
// due at `from` or later. -1: never.
void pyuio_timer_trace(int64_t limit, int64_t from, int tracing_on)
{
    trace.limit = limit;
    trace.from = from;
    trace.tracing_on = tracing_on;
}

// Stops the tracing if a thread that woke at `woken` was too late for the first event that it had waited for, or for one
// of those after it.
void pyuio_timer_sample(int64_t when, int64_t woken)
{
    int64_t due = when < trace.from ? trace.from : when;

    if (trace.tracing_on >= 0 && woken - due > trace.limit) {
        ssize_t written = write(trace.tracing_on, "0", 1);

        (void)written; // nothing to be done if the kernel refuses
    }
}

// Sleeps until a time of CLOCK_MONOTONIC. Returns the time at waking, or a negative errno. `in_time` gets whether the
// caller came before that time, and so waited for it. A signal that has a handler does not end the sleep.
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

// Waits for `count` events, the first at `first`, each next one `interval` later. Stores in `latencies`, for each
// event, how long after it the thread woke. A wake-up that comes after several events counts for each of them. `late`
// gets, for each event, whether no thread waited for it. Returns how many were stored, which are fewer once `stop` is
// set; or a negative errno.
int64_t pyuio_timer_run(int64_t first, int64_t interval, int64_t count, int64_t *latencies, uint8_t *late, int *stop)
{
    int64_t next = first, stored = 0;
    while (stored < count && !__atomic_load_n(stop, __ATOMIC_RELAXED)) {
        int in_time;
        int64_t woken = pyuio_timer_wait(next, &in_time);
        if (woken < 0)
            return woken;
        pyuio_timer_sample(next, woken);
        do {
            late[stored] = !in_time;
            latencies[stored++] = woken - next;
            in_time = 0;
            next += interval;
        } while (next <= woken && stored < count);
    }
    return stored;
}

// Returns the processor's time stamp counter (x86: RDTSC); 0 where there is none.
uint64_t pyuio_time_stamp_counter(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return 0;
#endif
}
