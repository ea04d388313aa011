# SPDX-License-Identifier: MIT
"""``peakrdl pyuio card.rdl -o card.py``: a plugin of the command ``peakrdl``, which loads it by its entry point.

This module needs peakrdl-cli: ``pip install peakrdl-cli``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peakrdl.plugins.exporter import ExporterSubcommandPlugin

from pyuio.errors import SystemRdlError
from pyuio.process.printable import printable
from pyuio.systemrdl.__main__ import add_access_options
from pyuio.systemrdl.python_classes import Source

if TYPE_CHECKING:
    from systemrdl.node import AddrmapNode


class Exporter(ExporterSubcommandPlugin):
    """Writes what `pyuio.systemrdl.python_source` returns for the addrmap that PeakRDL compiled or imported."""

    short_desc = "Write a Python module of register maps for pyuio"

    def add_exporter_arguments(self, arg_group: Any) -> None:
        """Add the options that ``python -m pyuio.systemrdl`` has, too."""
        add_access_options(arg_group)

    def do_export(self, top_node: AddrmapNode, options: Any) -> None:
        """Write the module to ``options.output``; if pyuio cannot access something, say what, and write nothing."""
        try:
            source = Source(top_node, "RegisterMap", options.bus_width, options.first)
            source.run(top_node.inst_name)
            Path(options.output).write_text(source.text, encoding="utf-8")
        except (SystemRdlError, OSError) as error:
            top_node.env.msg.fatal(printable(error))
