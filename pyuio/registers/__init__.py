# SPDX-License-Identifier: MIT
"""Registers by name: declared once, as a data sheet lists them, and used through any region."""

from pyuio.registers.fields import Access, Field
from pyuio.registers.register import Accesses, Register, RegisterInfo
from pyuio.registers.register_map import Array, RegisterMap

__all__ = ["Access", "Accesses", "Array", "Field", "Register", "RegisterInfo", "RegisterMap"]
