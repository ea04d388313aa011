// SPDX-License-Identifier: MIT
// The command register of a PCI function. command_register.c says what each function does.
#ifndef PYUIO_COMMAND_REGISTER_H
#define PYUIO_COMMAND_REGISTER_H

#include <stdint.h>

/* cdef */
typedef struct pyuio_command pyuio_command;

pyuio_command *pyuio_command_new(int config, int64_t start);
void pyuio_command_free(pyuio_command *command);
void pyuio_command_close(pyuio_command *command);
void pyuio_command_forget(pyuio_command *command);
int pyuio_command_write(pyuio_command *command, int offset, const uint8_t *data, int length);
int pyuio_command_change(pyuio_command *command, int set, int clear);
int pyuio_command_reset(pyuio_command *command, int attribute);
/* cdef */

// For interrupt.c and service_wait.c.
int pyuio_command_mask(pyuio_command *command, int masked, int only_if_masked);
int pyuio_command_unmask_unless(pyuio_command *command, const _Atomic int *ending);
void pyuio_command_note_masked(pyuio_command *command);
int pyuio_command_is_masked(pyuio_command *command);

#endif
