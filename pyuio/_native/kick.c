// SPDX-License-Identifier: MIT
// Ending another thread's blocking system call: a signal to that thread, with a handler that does nothing and does not
// restart the call, so that it fails with EINTR. One that comes just before the call would be lost; so it comes again and
// again, from a timer of the thread's own, until the thread is out.
//
// The signal is the highest real-time signal that nobody has a handler for. Its handler stays for good: what is still on
// its way may not meet the default action, which ends the process.
//
// Functions that can fail return a negative errno.

#include "kick.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id // glibc before 2.42 has the field, but not its name
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define AGAIN_AFTER 2000000 // ns

static void do_nothing(int number)
{
    (void)number;
}

static int is_ours(int number)
{
    struct sigaction action;
    return sigaction(number, NULL, &action) == 0 && action.sa_handler == do_nothing;
}

// The signal's number, or -EAGAIN: every real-time signal has a handler.
static int kick_signal(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static int chosen;
    struct sigaction action, ours = {.sa_handler = do_nothing};
    pthread_mutex_lock(&lock);
    if (chosen == 0 || !is_ours(chosen)) {
        chosen = 0;
        for (int number = SIGRTMAX; chosen == 0 && number >= SIGRTMIN; number--) {
            if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_DFL &&
                sigaction(number, &ours, NULL) == 0)
                chosen = number;
        }
    }
    int result = chosen ? chosen : -EAGAIN;
    pthread_mutex_unlock(&lock);
    return result;
}

// Prepares to kick the calling thread. 0, or an error: no signal or no timer left.
int pyuio_kick_prepare(pyuio_kick *self)
{
    int number = kick_signal();
    if (number < 0)
        return number;
    struct sigevent event;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = number;
    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    sigemptyset(&self->signals);
    sigaddset(&self->signals, number);
    return timer_create(CLOCK_MONOTONIC, &event, &self->timer) < 0 ? -errno : 0;
}

// From now on the thread's blocking calls fail with EINTR. From any thread, and from a signal's handler.
void pyuio_kick_arm(pyuio_kick *self)
{
    struct itimerspec often = {.it_interval = {.tv_nsec = AGAIN_AFTER}, .it_value = {.tv_nsec = 1}};
    timer_settime(self->timer, 0, &often, NULL);
}

// By the thread itself: no more kicks.
void pyuio_kick_dismiss(pyuio_kick *self)
{
    timer_delete(self->timer);
}
