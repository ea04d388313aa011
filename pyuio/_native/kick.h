// SPDX-License-Identifier: MIT
// Ending another thread's blocking system call. What each function does is said in kick.c.
#ifndef PYUIO_KICK_H
#define PYUIO_KICK_H

#include <signal.h>
#include <time.h>

typedef struct {
    timer_t timer;
    sigset_t signals; /* to be let through in the thread: the kick's alone */
} pyuio_kick;

int pyuio_kick_prepare(pyuio_kick *kick);
void pyuio_kick_arm(pyuio_kick *kick);
void pyuio_kick_dismiss(pyuio_kick *kick);

#endif
