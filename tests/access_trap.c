/* SPDX-License-Identifier: MIT */
/*
 * Records every access to one page of memory, by making each of them fault. x86-64 and arm64 Linux only.
 *
 * The page is inaccessible. An access raises SIGSEGV: the handler notes the address, whether it was a write and the
 * instruction, opens the page, and has SIGTRAP come after this one instruction, whose handler closes the page again.
 *
 * x86-64: bit 1 of the page fault's error code says that it was a write (Intel SDM volume 3, 4.7), and the trap flag
 * lets one instruction run. An instruction with a repeat prefix traps after each repetition, so it is recorded once for
 * each. arm64: bit 6 of the exception syndrome says it (Arm ARM, ESR_EL1, WnR), and the next instruction is replaced by
 * a breakpoint meanwhile; none that accesses memory is a branch.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

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

#if defined(__x86_64__)

#define TRAP_FLAG 0x100
#define ERROR_CODE_WRITE 2

static const void *instruction(const ucontext_t *context)
{
    return (const void *)context->uc_mcontext.gregs[REG_RIP];
}

static int is_write(const ucontext_t *context)
{
    return (context->uc_mcontext.gregs[REG_ERR] & ERROR_CODE_WRITE) != 0;
}

static void begin_step(ucontext_t *context)
{
    context->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void end_step(ucontext_t *context)
{
    context->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
}

#elif defined(__aarch64__)

#define ESR_WRITE 0x40
#define BREAKPOINT 0xd4200000u

static uint32_t *replaced, original;

static const void *instruction(const ucontext_t *context)
{
    return (const void *)context->uc_mcontext.pc;
}

static int is_write(const ucontext_t *context)
{
    const unsigned char *at = context->uc_mcontext.__reserved;
    const struct _aarch64_ctx *head;

    /* Linux, arch/arm64/include/uapi/asm/sigcontext.h: records, the last of which has the size 0. */
    while ((head = (const struct _aarch64_ctx *)at)->size) {
        if (head->magic == ESR_MAGIC)
            return (((const struct esr_context *)at)->esr & ESR_WRITE) != 0;
        at += head->size;
    }
    return 0;
}

static void replace(uint32_t code)
{
    void *start = (void *)((uintptr_t)replaced / page_size * page_size);

    mprotect(start, page_size, PROT_READ | PROT_WRITE | PROT_EXEC);
    *replaced = code;
    __builtin___clear_cache((char *)replaced, (char *)(replaced + 1));
    mprotect(start, page_size, PROT_READ | PROT_EXEC);
}

static void begin_step(ucontext_t *context)
{
    replaced = (uint32_t *)(context->uc_mcontext.pc + 4);
    original = *replaced;
    replace(BREAKPOINT);
}

static void end_step(ucontext_t *context)
{
    (void)context;
    replace(original);
}

#endif

static void on_fault(int signal, siginfo_t *info, void *context)
{
    unsigned char *address = info->si_addr;

    (void)signal;
    if (address < page || address >= page + page_size) { /* a real fault: let it happen again, to its own handler */
        sigaction(SIGSEGV, &old_segv, NULL);
        return;
    }
    if (count < MAX_EVENTS) {
        events[count].offset = (uint64_t)(address - page);
        events[count].write = is_write(context);
        memcpy(events[count].instruction, instruction(context), sizeof events[count].instruction);
    }
    count++;
    mprotect(page, page_size, PROT_READ | PROT_WRITE);
    begin_step(context);
}

static void on_step(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    end_step(context);
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
