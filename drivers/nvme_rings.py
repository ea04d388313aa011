# SPDX-License-Identifier: MIT
"""Submission and completion queues as rings in memory: the layout of their entries, and their allocation.

"Section" is one of the NVM Express Base Specification 1.4. A submission queue entry (SQE) is a command; a completion
queue entry (CQE) is the controller's answer to one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyuio import DescriptorRing

if TYPE_CHECKING:
    from pyuio_drivers.nvme import Nvme

SQE_SIZE_EXPONENT = 6  # entries of 2^6 bytes, CC.IOSQES
CQE_SIZE_EXPONENT = 4  # CC.IOCQES

# Section 4.2, figure 105: offset in bytes, width in bits.
_COMMON_SQE_FIELDS = {
    "opc": (0, 8),  # opcode
    "flags": (1, 8),  # FUSE and PSDT, which stay 0
    "cid": (2, 16),  # command identifier
    "nsid": (4, 32),  # namespace identifier
    "prp1": (24, 64),  # address of the first page of data, section 4.3
    "prp2": (32, 64),  # address of the second page, or of a list of the pages after the first
}
ADMIN_SQE_FIELDS = {**_COMMON_SQE_FIELDS, **{f"cdw{number}": (4 * number, 32) for number in range(10, 16)}}
IO_SQE_FIELDS = {
    **_COMMON_SQE_FIELDS,
    "slba": (40, 64),  # starting LBA, dwords 10 and 11, sections 6.9 and 6.15
    "cdw12": (48, 32),  # number of logical blocks, less 1
}

# Section 4.6.
CQE_FIELDS = {
    "dw0": (0, 32),  # command specific
    "dw1": (4, 32),
    "sqhd": (8, 16),  # submission queue head pointer
    "sqid": (10, 16),  # submission queue identifier
    "dw3": (12, 32),  # command identifier, phase tag and status
}
DW3_CID = 0xFFFF
DW3_PHASE_TAG = 1 << 16  # the controller inverts it with each pass through the queue
DW3_STATUS_SHIFT = 17
DW3_STATUS_AND_PHASE = 0xFFFF << 16


def allocate_rings(
    disk: Nvme, sq_entries: int, cq_entries: int, sqe_fields: dict[str, tuple[int, int]]
) -> tuple[DescriptorRing, DescriptorRing]:
    """Return memory for a submission queue and its completion queue, each physically contiguous, as rings.

    Raises:
        DmaMemoryError: there is not enough memory.
    """
    dma, page = disk.device.dma, disk.capabilities.page_size
    sq_buffer = dma.alloc(sq_entries << SQE_SIZE_EXPONENT, align=page)
    try:
        cq_buffer = dma.alloc(cq_entries << CQE_SIZE_EXPONENT, align=page)
    except BaseException:
        sq_buffer.close()
        raise
    # The controller reads no SQE before the doorbell is rung, so it does not matter which field is written last.
    submission = DescriptorRing(sq_buffer, entry_size=1 << SQE_SIZE_EXPONENT, fields=sqe_fields, owner="opc")
    completion = DescriptorRing(cq_buffer, entry_size=1 << CQE_SIZE_EXPONENT, fields=CQE_FIELDS, owner="dw3")
    return submission, completion
