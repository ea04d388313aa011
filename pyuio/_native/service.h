// SPDX-License-Identifier: MIT
// Serving an interrupt without the GIL. What each function does is said in service.c.
#ifndef PYUIO_SERVICE_H
#define PYUIO_SERVICE_H

#include <stddef.h>

#include "waiting.h"

/* cdef */
typedef struct pyuio_service pyuio_service;

typedef struct {
    int64_t time;    /* CLOCK_MONOTONIC, in ns, when the interrupt was read */
    uint32_t count;  /* interrupts since the last event */
    uint32_t late;   /* 1: a poll did not find its value in time */
    uint64_t lost;   /* events that found no room, until now */
    uint64_t values[];
} pyuio_event;

typedef void (*pyuio_handler)(pyuio_event *event, void *context);

enum pyuio_operation_kind {
    PYUIO_READ,        /* values[slot] = register */
    PYUIO_WRITE,       /* register = value */
    PYUIO_WRITE_BACK,  /* register = values[slot] & mask */
    PYUIO_TEST,        /* skip the next `skip` operations unless values[slot] & mask == value */
    PYUIO_POLL,        /* values[slot] = register, until & mask == value, or `limit` ns have passed */
    PYUIO_STAMP,       /* values[slot] = time */
    PYUIO_UNMASK,
    PYUIO_COUNT        /* counters[slot] += count */
};

typedef struct {
    int32_t kind;
    int32_t bits;      /* of the register: 8, 16, 32, 64 */
    int32_t swap;      /* the register's bytes are in the other order */
    int32_t file;      /* of I/O ports; -1 for memory */
    uint64_t address;  /* of the register: in this process, or in the file */
    int32_t slot;
    int32_t skip;
    uint64_t mask;
    uint64_t value;
    int64_t limit;
} pyuio_operation;

pyuio_service *pyuio_service_new(pyuio_interrupt *interrupt, const pyuio_operation *operations, int operation_count,
                                 pyuio_handler handler, void *context, int value_count, int counter_count,
                                 uint32_t capacity);
void pyuio_service_free(pyuio_service *service);
int64_t pyuio_service_run(pyuio_service *service);
void pyuio_service_stop(pyuio_service *service);
int pyuio_service_descriptor(pyuio_service *service);
int64_t pyuio_service_ended(pyuio_service *service);
uint64_t pyuio_service_lost(pyuio_service *service);
uint64_t pyuio_service_counter(pyuio_service *service, int slot);
size_t pyuio_service_take(pyuio_service *service, unsigned char *events, size_t most);
/* cdef */

#endif
