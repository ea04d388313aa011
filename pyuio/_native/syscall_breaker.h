// SPDX-License-Identifier: MIT
// Ends another thread's blocking system call. syscall_breaker.c says what each function does.
#ifndef PYUIO_SYSCALL_BREAKER_H
#define PYUIO_SYSCALL_BREAKER_H

#include <signal.h>
#include <time.h>

typedef struct {
    timer_t timer;
    sigset_t signals; /* the one signal that the thread must not block */
} pyuio_syscall_breaker;

int pyuio_syscall_breaker_init(pyuio_syscall_breaker *breaker);
void pyuio_syscall_breaker_fire(pyuio_syscall_breaker *breaker);
void pyuio_syscall_breaker_close(pyuio_syscall_breaker *breaker);

#endif
