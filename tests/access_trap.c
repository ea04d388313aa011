/* SPDX-License-Identifier: MIT */
/*
 * Records every access to one page of memory, by making each of them fault. x86-64 Linux only.
 *
 * The page is inaccessible. An access raises SIGSEGV: the handler notes the address, whether it was a write (bit 1 of
 * the page fault's error code, Intel SDM volume 3, 4.7) and the instruction, opens the page, and sets the trap flag, so
 * that after this one instruction SIGTRAP comes, whose handler closes the page again. An instruction with a repeat
 * prefix traps after each repetition, so it is recorded once for each.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define TRAP_FLAG 0x100
#define ERROR_CODE_WRITE 2
#define MAX_EVENTS 4096

struct event {
    uint64_t offset;      /* of the access in the page */
    uint64_t write;       /* 1 or 0 */
    uint8_t instruction[16];
};

static struct event events[MAX_EVENTS];
static size_t count; /* may be beyond MAX_EVENTS: those are counted but not recorded */
static unsigned char *page;
static size_t page_size;
static struct sigaction old_segv, old_trap;

static void on_fault(int signal, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    unsigned char *address = info->si_addr;

    (void)signal;
    if (address < page || address >= page + page_size) { /* a real fault: let it happen again, to its own handler */
        sigaction(SIGSEGV, &old_segv, NULL);
        return;
    }
    if (count < MAX_EVENTS) {
        events[count].offset = (uint64_t)(address - page);
        events[count].write = (registers[REG_ERR] & ERROR_CODE_WRITE) != 0;
        memcpy(events[count].instruction, (void *)registers[REG_RIP], sizeof events[count].instruction);
    }
    count++;
    mprotect(page, page_size, PROT_READ | PROT_WRITE);
    registers[REG_EFL] |= TRAP_FLAG;
}

static void on_step(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
    mprotect(page, page_size, PROT_NONE);
}

/* Begin to record accesses to the page of `size` bytes at `start`. Returns 0, or -1. */
int trap_arm(void *start, size_t size)
{
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    struct sigaction step = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};

    page = start;
    page_size = size;
    count = 0;
    if (sigaction(SIGSEGV, &fault, &old_segv) || sigaction(SIGTRAP, &step, &old_trap))
        return -1;
    return mprotect(page, page_size, PROT_NONE);
}

/* Stop. Copies at most `max` events and returns how many accesses there were. */
size_t trap_disarm(struct event *to, size_t max)
{
    mprotect(page, page_size, PROT_READ | PROT_WRITE);
    sigaction(SIGSEGV, &old_segv, NULL);
    sigaction(SIGTRAP, &old_trap, NULL);
    memcpy(to, events, (count < max ? count : max) * sizeof *to);
    return count;
}
