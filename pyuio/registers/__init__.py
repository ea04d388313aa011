# SPDX-License-Identifier: MIT
"""Registers by name: declare them once, as a data sheet lists them, and use them through any region."""

from pyuio.registers.access import Access
from pyuio.registers.bank import bank
from pyuio.registers.fields import Field, FieldArray
from pyuio.registers.memory import Memory
from pyuio.registers.register import Accesses, Register, RegisterInfo
from pyuio.registers.register_map import Array, RegisterMap

__all__ = [
    "Access",
    "Accesses",
    "Array",
    "Field",
    "FieldArray",
    "Memory",
    "Register",
    "RegisterInfo",
    "RegisterMap",
    "bank",
]
