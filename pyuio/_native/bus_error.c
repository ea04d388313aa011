/* SPDX-License-Identifier: MIT */
/*
 * The handler of SIGBUS: an access that is marked (access_bus.h) goes on after the fault, and says that it has failed.
 *
 * Every other SIGBUS goes to the handler that was there before, or ends the program. One that is installed later, such as
 * that of faulthandler, is before this one again as soon as the next window is made.
 */
#include "removal.h"

#include <signal.h>
#include <ucontext.h>

#if defined(__x86_64__)
#define PROGRAM_COUNTER(context) (context)->uc_mcontext.gregs[REG_RIP]
#elif defined(__aarch64__)
#define PROGRAM_COUNTER(context) (context)->uc_mcontext.pc
#endif

#ifdef PROGRAM_COUNTER

static void on_bus_error(int number, siginfo_t *info, void *argument);

/* SA_NODEFER: raise() below is handled at once. */
static const struct sigaction mine = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
static struct sigaction before;
static volatile sig_atomic_t passed_on; /* to `before`, which may pass it on to this handler */

static void on_bus_error(int number, siginfo_t *info, void *argument)
{
    ucontext_t *context = argument;
    const char *instruction = (const char *)PROGRAM_COUNTER(context);
    int is_fault = info->si_code >= BUS_ADRALN && info->si_code <= BUS_MCEERR_AR; /* at an instruction, not sent */
    struct {
        uint32_t mark;
        int32_t distance;
    } found = {0};

    if (is_fault && info->si_addr != instruction) /* else the instruction itself is out of reach, and what is before it */
        memcpy(&found, instruction - sizeof found, sizeof found);
    if (found.mark == BUS_MARK) {
        PROGRAM_COUNTER(context) += found.distance;
        return;
    }
    /* The fault happens again, to the other handler. */
    sigaction(SIGBUS, passed_on ? &(struct sigaction){.sa_handler = SIG_DFL} : &before, NULL);
    passed_on = 1;
    if (!is_fault) {
        raise(number);
        passed_on = 0; /* it was ignored, or the other handler has returned */
        sigaction(SIGBUS, &mine, NULL);
    }
}

void bus_error_handle(void)
{
    struct sigaction now;

    if (sigaction(SIGBUS, NULL, &now) == 0 && !((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_bus_error)) {
        before = now;
        passed_on = 0;
        sigaction(SIGBUS, &mine, NULL);
    }
}

#else

void bus_error_handle(void)
{
}

#endif
