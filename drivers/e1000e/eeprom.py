# SPDX-License-Identifier: MIT
"""The EEPROM of the Intel 82574L, which has the card's address: data sheet 317694, section 6.1 and 10.2.2.4."""

from __future__ import annotations

from pyuio_drivers.e1000e.errors import EepromError
from pyuio_drivers.e1000e.registers import E1000eRegisters, EepromRead

from pyuio import DeviceTimeoutError

WORDS = 64  # that the checksum covers, of 16 bits each
CHECKSUM = 0xBABA  # the sum of these words, modulo 2^16
CHECKSUM_WORD = 0x3F  # chosen so that the sum is right
READ_TIMEOUT = 0.1  # seconds for a word


def read_word(registers: E1000eRegisters, address: int, name: str) -> int:
    """Return a word of the EEPROM; EepromError: it does not answer. `name` is the card's, for messages."""
    registers.eerd.write(EepromRead.value(start=True, addr=address))
    try:
        return registers.eerd.poll(lambda eerd: eerd.done, READ_TIMEOUT).data
    except DeviceTimeoutError:
        reason = f"word {address:#x} was not read in {READ_TIMEOUT:g} s (EERD.DONE)"
        raise EepromError(f"{name}: its EEPROM: {reason}") from None


def read_checked(registers: E1000eRegisters, name: str) -> list[int]:
    """Return the words that the checksum covers. `name` is the card's, for messages.

    Raises:
        EepromError: the checksum is wrong, or the EEPROM does not answer.
    """
    words = [read_word(registers, address, name) for address in range(WORDS)]
    checksum = sum(words) & 0xFFFF
    if checksum != CHECKSUM:
        reason = f"the sum of its words is {checksum:#06x}, not {CHECKSUM:#06x}"
        advice = "give an address with mac=, which needs no EEPROM, or repair it (ethtool -E)"
        raise EepromError(f"{name}: its EEPROM is damaged: {reason}; {advice}", checksum)
    return words


def mac(words: list[int]) -> bytes:
    """Return the card's address, words 0 to 2 of the EEPROM (section 6.1.1)."""
    return b"".join(word.to_bytes(2, "little") for word in words[:3])
