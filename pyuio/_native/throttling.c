// SPDX-License-Identifier: MIT
// Notices RT throttling: the kernel holds a real-time thread back that has run for too long (kernel/sched/rt.c).
//
// The kernel says so once per boot, in its log, and nowhere else. But it counts, for each thread, in nanoseconds, the
// time that the thread ran and the time that it was ready and did not run: /proc/PID/task/TID/schedstat
// (Documentation/scheduler/sched-stats.rst). The second number grows when the thread runs again, by the whole wait. A
// throttled thread has run for `runtime` within a `period`, and has then waited for the rest of the period. So an
// ordinary thread looks at these numbers once per period. It is able to run, because the kernel throttles for the sake
// of ordinary threads.

#include "throttling.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS 1000000000LL
#define STACK_SIZE (64 * 1024) // locked in memory, as all memory is

struct pyuio_throttling {
    int file;
    int64_t runtime, period;
    pthread_t watcher;
    pthread_mutex_t state; // guards what follows
    pthread_cond_t stop;
    int stopping;
    int64_t ran, waited; // at the last look
    int64_t ran_before;  // how long it ran in the period before that
    int64_t times, longest;
};

static int read_statistics(pyuio_throttling *self, int64_t *ran, int64_t *waited)
{
    char text[96];
    long long first, second;
    ssize_t length = pread(self->file, text, sizeof text - 1, 0);
    if (length <= 0) // the thread has ended
        return 0;
    text[length] = 0;
    if (sscanf(text, "%lld %lld", &first, &second) != 2)
        return 0;
    *ran = first;
    *waited = second;
    return 1;
}

// Looks, with the lock held. `whole`: a period has passed since the last look of that kind.
static void look(pyuio_throttling *self, int whole)
{
    int64_t ran, waited;
    if (!read_statistics(self, &ran, &waited))
        return;
    int64_t now_ran = ran - self->ran, now_waited = waited - self->waited;
    // Throttling comes at any time between two looks, so the run that led to it lies in this stretch and the one
    // before. The limits are a tenth lower, because the kernel's accounting is by ticks.
    if (now_waited >= (self->period - self->runtime) / 10 * 9 && now_ran + self->ran_before >= self->runtime / 10 * 9) {
        self->times++;
        if (now_waited > self->longest)
            self->longest = now_waited;
        whole = 1; // this stretch is not counted again
    }
    if (whole) {
        self->ran_before = now_ran;
        self->ran = ran;
        self->waited = waited;
    }
}

static void *watch(void *argument)
{
    pyuio_throttling *self = argument;
    struct sched_param ordinary = {0};
    sched_setscheduler(0, SCHED_OTHER, &ordinary); // never refused; the creator may be a real-time thread
    pthread_mutex_lock(&self->state);
    while (!self->stopping) {
        struct timespec next;
        clock_gettime(CLOCK_MONOTONIC, &next);
        int64_t nanoseconds = next.tv_nsec + self->period;
        next.tv_sec += nanoseconds / NANOSECONDS;
        next.tv_nsec = nanoseconds % NANOSECONDS;
        int result = 0;
        while (!self->stopping && result == 0)
            result = pthread_cond_timedwait(&self->stop, &self->state, &next);
        if (!self->stopping)
            look(self, 1);
    }
    pthread_mutex_unlock(&self->state);
    return NULL;
}

static int start_watcher(pyuio_throttling *self)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    int result = pthread_attr_init(&attributes);
    if (result != 0)
        return result;
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    // Python's threads handle signals; a signal that came to this thread would not interrupt their waits.
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    result = pthread_create(&self->watcher, &attributes, watch, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return result;
}

// Starts an ordinary thread, with the caller's affinity, that watches a thread of this process. `runtime` and `period`
// are those of RT throttling, in nanoseconds. Returns NULL with errno set when there is no such thread, no memory, or
// when the kernel has no schedstat.
pyuio_throttling *pyuio_throttling_start(int thread, int64_t runtime, int64_t period)
{
    char path[64];
    pthread_condattr_t clock;
    pyuio_throttling *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    snprintf(path, sizeof path, "/proc/self/task/%d/schedstat", thread);
    self->file = open(path, O_RDONLY | O_CLOEXEC);
    self->runtime = runtime;
    self->period = period;
    if (self->file < 0) {
        free(self);
        return NULL;
    }
    pthread_mutex_init(&self->state, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&self->stop, &clock);
    pthread_condattr_destroy(&clock);
    read_statistics(self, &self->ran, &self->waited);
    int result = start_watcher(self);
    if (result != 0) {
        pyuio_throttling_free(self);
        errno = result;
        return NULL;
    }
    return self;
}

// Looks now.
void pyuio_throttling_look(pyuio_throttling *self)
{
    pthread_mutex_lock(&self->state);
    look(self, 0);
    pthread_mutex_unlock(&self->state);
}

// Returns how often the thread was found throttled: at most once in the stretch between two looks.
int64_t pyuio_throttling_times(pyuio_throttling *self)
{
    pthread_mutex_lock(&self->state);
    int64_t result = self->times;
    pthread_mutex_unlock(&self->state);
    return result;
}

// Returns how long, in nanoseconds, the thread was held back in the worst of those stretches.
int64_t pyuio_throttling_longest(pyuio_throttling *self)
{
    pthread_mutex_lock(&self->state);
    int64_t result = self->longest;
    pthread_mutex_unlock(&self->state);
    return result;
}

// Looks for the last time and ends the watching thread. The counts stay.
void pyuio_throttling_stop(pyuio_throttling *self)
{
    pthread_mutex_lock(&self->state);
    int stopped = self->stopping;
    if (!stopped)
        look(self, 0);
    self->stopping = 1;
    pthread_cond_signal(&self->stop);
    pthread_mutex_unlock(&self->state);
    if (!stopped)
        pthread_join(self->watcher, NULL);
}

// Frees a watch after pyuio_throttling_stop, or in a forked child, which has no watching thread.
void pyuio_throttling_free(pyuio_throttling *self)
{
    close(self->file);
    free(self);
}
