// SPDX-License-Identifier: MIT
// A native service: a thread that serves an interrupt without the GIL. service.c and service_wait.c say what each
// function does.
#ifndef PYUIO_SERVICE_H
#define PYUIO_SERVICE_H

#include <stddef.h>

#include "interrupt.h"
#include "program.h"
#include "syscall_breaker.h"

/* cdef */
typedef struct pyuio_service pyuio_service;

typedef void (*pyuio_handler)(pyuio_event *event, void *context);

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

int pyuio_service_wait_begin(pyuio_interrupt *interrupt);
void pyuio_service_wait_end(pyuio_interrupt *interrupt);
int64_t pyuio_service_wait_next(pyuio_interrupt *interrupt, int64_t *time);
/* cdef */

// For the service's thread.
void pyuio_service_wait_set_breaker(pyuio_interrupt *interrupt, pyuio_syscall_breaker *breaker);
void pyuio_service_wait_stop(pyuio_interrupt *interrupt);

#endif
