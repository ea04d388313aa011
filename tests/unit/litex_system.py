# SPDX-License-Identifier: MIT
"""test_published_files.py runs this program with LiteX's Python: it makes a small system, and writes its registers.

``litex_system.py DIRECTORY`` writes csr.json, csr.csv and csr.svd by LiteX's own exporters.
"""

# mypy: ignore-errors

from __future__ import annotations

import sys
from pathlib import Path

from litex.build.generic_platform import Pins
from litex.build.sim import SimPlatform
from litex.gen import ClockDomain, Module
from litex.soc.cores.timer import Timer
from litex.soc.integration import export
from litex.soc.integration.soc_core import SoCMini
from litex.soc.interconnect.csr import AutoCSR, CSRField, CSRStatus, CSRStorage


class Clock(Module):
    def __init__(self, signal):
        self.clock_domains.cd_sys = ClockDomain(reset_less=True)
        self.comb += self.cd_sys.clk.eq(signal)


class Dma(Module, AutoCSR):
    def __init__(self):
        self.base = CSRStorage(64)
        self.control = CSRStorage(fields=[CSRField("enable", size=1), CSRField("mode", size=2, offset=4)])
        self.count = CSRStatus(16)


class System(SoCMini):
    def __init__(self):
        platform = SimPlatform("SIM", [("sys_clk", 0, Pins(1))])
        SoCMini.__init__(self, platform, clk_freq=1_000_000)
        self.submodules.crg = Clock(platform.request("sys_clk"))
        self.submodules.timer0 = Timer()
        self.submodules.dma = Dma()


system = System()
system.finalize()
directory = Path(sys.argv[1])
regions = (system.csr_regions, system.constants, system.mem_regions)
(directory / "csr.json").write_text(export.get_csr_json(*regions))
(directory / "csr.csv").write_text(export.get_csr_csv(*regions))
(directory / "csr.svd").write_text(export.get_csr_svd(system))
