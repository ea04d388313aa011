// SPDX-License-Identifier: MIT
// The program of a native service: operations on registers, and the event that they fill. program.c runs it.
#ifndef PYUIO_PROGRAM_H
#define PYUIO_PROGRAM_H

#include "interrupt.h"

/* cdef */
typedef struct {
    int64_t time;    /* CLOCK_MONOTONIC, in ns, when the interrupt was read */
    uint32_t count;  /* interrupts since the event before */
    uint32_t late;   /* 1: a poll did not see its value in time */
    uint64_t lost;   /* events that found no room in the ring, until now */
    uint64_t values[];
} pyuio_event;

enum pyuio_operation_kind {
    PYUIO_READ,        /* values[slot] = register */
    PYUIO_WRITE,       /* register = value */
    PYUIO_WRITE_BACK,  /* register = values[slot] & mask */
    PYUIO_TEST,        /* skip the next `skip` operations unless (values[slot] & mask) == value */
    PYUIO_POLL,        /* values[slot] = register, until (values[slot] & mask) == value or `limit` ns have passed */
    PYUIO_STAMP,       /* values[slot] = time */
    PYUIO_UNMASK,
    PYUIO_COUNT,       /* counters[slot] += count */
    PYUIO_WHILE,       /* do the next `skip` operations up to `limit` times, as long as (values[slot] & mask) == value */
    PYUIO_WRITE_WORDS, /* this and the next `limit` - 1 are PYUIO_WRITEs of 32 bits, to memory, unswapped: do them all */
    PYUIO_APPEND       /* as PYUIO_READ; and add it to the list of up to `limit` that values[value] counts and precedes */
};

typedef struct {
    int32_t kind;
    int32_t bits;      /* width of the register: 8, 16, 32, 64 */
    int32_t swap;      /* 1: the register's bytes are in the other order than the processor's, in memory or in the file */
    int32_t file;      /* descriptor of a BAR of I/O ports; -1 for memory */
    uint64_t address;  /* of the register: in this process, or its offset in the file */
    int32_t slot;
    int32_t skip;
    uint64_t mask;
    uint64_t value;
    int64_t limit;
} pyuio_operation;

/* `counters` are _Atomic, which cffi's parser does not know. */
int pyuio_program_run(const pyuio_operation *operations, int operation_count, pyuio_interrupt *interrupt,
                      void *counters, pyuio_event *event);
/* cdef */

#endif
