# SPDX-License-Identifier: MIT
"""Cards in Python, on the register maps of their drivers: in the test's own process, and in a guest.

- `card` has `Card`, from which a card derives; `register_file` its registers, `pci_function` its PCI side.
- `host` is what any card is plugged into; `machine` is that of a card in this process, and `backend` opens it.
- `clock` is virtual time. `complaint` is what a card says about its driver. `faults` go wrong with it.
- `replay` is a card made of what a driver did on a real one.
- `explore` runs a driver with each fault at each access.

docs/model.md is the tutorial.
"""

from pyuio.model.backend import open
from pyuio.model.card import Card
from pyuio.model.clock import NothingPlannedError, clock
from pyuio.model.complaint import Complaint
from pyuio.model.explore import explore
from pyuio.model.faults import Faults, TransferError
from pyuio.model.host import MasterAbortError
from pyuio.model.pci_function import BarSpace, Capability
from pyuio.model.replay import Replay, ReplayDifference

__all__ = [
    "BarSpace",
    "Capability",
    "Card",
    "Complaint",
    "Faults",
    "MasterAbortError",
    "NothingPlannedError",
    "Replay",
    "ReplayDifference",
    "TransferError",
    "clock",
    "explore",
    "open",
]
