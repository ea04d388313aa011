// SPDX-License-Identifier: MIT
// Ends another thread's blocking system call, which then fails with EINTR.
//
// A timer sends the thread a signal. The signal's handler does nothing and does not restart the call. A signal that
// comes just before the call begins would be lost, so the timer repeats it until the thread has left its calls.
//
// The signal is the highest real-time signal that has no handler. Its empty handler stays installed for good, because
// the default action would end the process if a late signal met it.
//
// Functions that can fail return a negative errno.

#include "syscall_breaker.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id // glibc before 2.42 has the field, but not its name
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define REPEAT_INTERVAL 2000000 // ns

static void do_nothing(int number)
{
    (void)number;
}

static int is_ours(int number)
{
    struct sigaction action;
    return sigaction(number, NULL, &action) == 0 && action.sa_handler == do_nothing;
}

// Chooses the signal and installs its handler. Returns its number, or -EAGAIN when every real-time signal has a
// handler.
static int breaking_signal(void)
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

// Prepares to end the calling thread's system calls. Returns 0, or an error when no signal or no timer is left.
int pyuio_syscall_breaker_init(pyuio_syscall_breaker *self)
{
    int number = breaking_signal();
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

// Makes the thread's blocking calls fail with EINTR from now on. Any thread and any signal handler may call this.
void pyuio_syscall_breaker_fire(pyuio_syscall_breaker *self)
{
    struct itimerspec often = {.it_interval = {.tv_nsec = REPEAT_INTERVAL}, .it_value = {.tv_nsec = 1}};
    timer_settime(self->timer, 0, &often, NULL);
}

// Deletes the timer; the thread itself calls this.
void pyuio_syscall_breaker_close(pyuio_syscall_breaker *self)
{
    timer_delete(self->timer);
}
