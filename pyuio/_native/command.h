// SPDX-License-Identifier: MIT
// Masking by the command register, for waiting.c. What each function does is said in command.c.
#ifndef PYUIO_COMMAND_H
#define PYUIO_COMMAND_H

#include "waiting.h"

int pyuio_command_mask(pyuio_command *command, int masked, int only_if_masked);
int pyuio_command_unmask_unless(pyuio_command *command, const _Atomic int *ending);
void pyuio_command_note_masked(pyuio_command *command);
int pyuio_command_is_masked(pyuio_command *command);

#endif
