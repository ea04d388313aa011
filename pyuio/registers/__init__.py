# SPDX-License-Identifier: MIT
"""Registers by name: declare them once, as a data sheet lists them, and use them through any region."""

from pyuio.registers.fields import Access, Field, FieldArray
from pyuio.registers.register import Accesses, Register, RegisterInfo
from pyuio.registers.register_map import Array, RegisterMap

__all__ = ["Access", "Accesses", "Array", "Field", "FieldArray", "Register", "RegisterInfo", "RegisterMap"]
