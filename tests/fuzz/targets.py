# SPDX-License-Identifier: MIT
"""The targets of fuzzing: every function that parses bytes from outside, each wrapped as a function of bytes.

A target catches only the exceptions that its parser documents. ``tests/fuzz/run.py`` gives it bytes that reach new
branches, for minutes; ``tests/unit/test_fuzz_targets.py`` gives it the seeds and a few hundred other inputs.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyuio_drivers.nvme_structures import Capabilities, Controller, Namespace, Smart

from pyuio import litex, systemrdl
from pyuio.claim import binding_record
from pyuio.claim.binding_record import BindingRecord
from pyuio.claim.disks_in_use import parse_lsblk
from pyuio.claim.network_routes import parse_messages
from pyuio.doctor import driver as doctor_driver
from pyuio.doctor import facts
from pyuio.doctor import memory as doctor_memory
from pyuio.doctor import scheduling as doctor_scheduling
from pyuio.errors import CsrFileError, DeviceRemovedError, KernelFileError, StateFileError, SystemRdlError
from pyuio.inspect.location import parse_location
from pyuio.inspect.state import State, text_of
from pyuio.inspect.state import parse as parse_state
from pyuio.kernel.hugepages import parse_size
from pyuio.kernel.irq import parse_line
from pyuio.kernel.processors import format_list, parse_list
from pyuio.kernel.uio import UioNode
from pyuio.latency.errors import ResultFileError
from pyuio.latency.results import Run, run_of
from pyuio.pci import ConfigImage, parse_address
from pyuio.pci.address import is_id_pair
from pyuio.pci.assigned_interrupt import assigned_interrupt
from pyuio.pci.bars import parse_resources
from pyuio.pci.capability_details import details
from pyuio.pci.config_space import ConfigSpace
from pyuio.pci.link import read_link

DATA = Path(__file__).parent.parent / "unit/data"


@dataclass(frozen=True)
class Target:
    """One target of fuzzing.

    Attributes:
        run: takes any bytes, and raises only if the parser has a defect.
        seeds: returns good inputs to start from.
        longest: the largest number of bytes worth trying.
    """

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    longest: int = 4096


def _text(data: bytes) -> str:
    """Return text as pyuio reads it from a file: bytes that are not UTF-8 are kept as surrogates."""
    return data.decode(errors="surrogateescape")


def recorded(name: str) -> tuple[bytes, str]:
    """Return the configuration space and the text of ``resource`` of a device in `DATA`."""
    dump, resource = (DATA / f"{name}.txt").read_text().split("resource\n")
    size = re.search(r"^size (\d+)$", dump, re.MULTILINE)
    assert size is not None
    image = bytearray(int(size[1]))
    for offset, row in re.findall(r"^([0-9a-f]{3}): (.*)$", dump, re.MULTILINE):
        image[int(offset, 16) : int(offset, 16) + 16] = bytes.fromhex(row)
    return bytes(image), resource


def _recorded_names() -> list[str]:
    return sorted(path.stem for path in DATA.glob("*.txt"))


# -- input of people --


def names(data: bytes) -> None:
    """Parse a name of a device or a place, in each form."""
    text = _text(data)
    address = parse_address(text)
    assert address is None or parse_address(address) == address
    UioNode.parse(text)
    is_id_pair(text)
    with contextlib.suppress(ValueError):
        binding_record.check_driver_name(text)
    with contextlib.suppress(ValueError):
        place = parse_location(text)
        assert parse_location(str(place)) == place


# -- bytes of the device and the kernel --


def configuration_space(data: bytes) -> None:
    """Decode a configuration space: every field, both lists of capabilities, every decoder."""
    size = next((size for size in (64, 256, 4096) if len(data) <= size), 4096)
    _look_at(ConfigImage(data[:size].ljust(size, b"\0")))


def _look_at(config: ConfigImage) -> None:
    for name in dir(ConfigImage):
        if isinstance(getattr(ConfigImage, name), property):
            str(getattr(config, name))
    for capability in (*config.capabilities(), *config.extended_capabilities()):
        json.dumps(details(config, capability))


def resource_file(data: bytes) -> None:
    """Parse the file ``resource``: BARs in range, or the error."""
    with contextlib.suppress(KernelFileError):
        for bar in parse_resources(_text(data)):
            assert bar.size > 0
            assert 0 <= bar.address < 1 << 64


_FILES = (
    "config",
    "resource",
    "irq",
    "msi_irqs/24",
    "max_link_speed",
    "max_link_width",
    "current_link_speed",
    "current_link_width",
)


def device_directory(data: bytes) -> None:
    """Read a function's directory in sysfs, whose files have any contents, or are missing.

    The bytes are the files' contents, one after the other, each after two bytes of length; the length 0xffff means that
    the file is missing.
    """
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        directory = Path(name)
        (directory / "msi_irqs").mkdir()
        for file in _FILES:
            length = int.from_bytes(data[:2].ljust(2, b"\0"), "little")
            content, data = data[2 : 2 + length % 4097], data[2 + length % 4097 :]
            if length != 0xFFFF:
                (directory / file).write_bytes(content)
        with contextlib.suppress(KernelFileError):
            assigned_interrupt(directory, 1)
        read_link(directory)
        with contextlib.suppress(DeviceRemovedError):
            config = ConfigSpace(directory)
            try:
                _look_at(config)
                with contextlib.suppress(KernelFileError):
                    config.bars()
            finally:
                config.close()


def _device_directories() -> list[bytes]:
    found = []
    for name in _recorded_names():
        config, resource = recorded(name)
        rest = (b"11\n", b"msix\n", b"8.0 GT/s PCIe\n", b"4\n", b"2.5 GT/s PCIe\n", b"1\n")
        found.append(b"".join(struct.pack("<H", len(one)) + one for one in (config, resource.encode(), *rest)))
    return found


def lsblk(data: bytes) -> None:
    """Parse the output of lsblk about a disk, or any other text."""
    parse_lsblk(_text(data))


def routes(data: bytes) -> None:
    """Parse the kernel's answer to a request for its routes: routes, or its error."""
    with contextlib.suppress(OSError):
        parse_messages(data)


def processors(data: bytes) -> None:
    """Parse a list of processors by two parsers, and the name of a hugepage size; or the error."""
    text = _text(data)
    with contextlib.suppress(KernelFileError):
        assert parse_list(format_list(parse_list(text))) == parse_list(text)
    with contextlib.suppress(ValueError):
        facts.parse_cpus(text)
    with contextlib.suppress(KernelFileError):
        parse_size(text)


def kernel_texts(data: bytes) -> None:
    """Parse the kernel's other texts, as pyuio doctor reads them."""
    text = _text(data)
    for parse in (doctor_memory.parse_mapped, doctor_scheduling.parse_release):
        with contextlib.suppress(ValueError):
            parse(text)
    facts.parse_parameters(text)
    facts.parse_config(text)
    facts.parse_cpu_model(text)
    doctor_driver.parse_secure_boot(data)
    parse_line(text, 11)
    doctor_scheduling.parse_group(text, "cpu")
    doctor_scheduling.parse_group_mount(text, "")


def nvme(data: bytes) -> None:
    """Parse the data by which an NVMe disk describes itself; the device always gives 4096 bytes."""
    page = data[:4096].ljust(4096, b"\0")
    capabilities = Capabilities.of(int.from_bytes(page[:8], "little"), int.from_bytes(page[8:12], "little"))
    Controller.parse(page, capabilities.page_size)
    assert Namespace.parse(1, page).size >= 0
    Smart.parse(page)


# -- files --


def binding_file(data: bytes) -> None:
    """Parse the record of a binding, or get a ValueError; an accepted record can be written back."""
    with contextlib.suppress(ValueError):
        record = binding_record.parse(data.decode())
        for name in (record.driver, record.previous or "", record.previous_override):
            name.encode()
            assert "/" not in name


def _binding_files() -> list[bytes]:
    record = BindingRecord("0000:00:04.0", "1234:11e8", "uio_pci_generic", "edu", "", "0b2d5f0e")
    return [json.dumps(each._asdict()).encode() for each in (record, record._replace(previous=None))]


def result_file(data: bytes) -> None:
    """Parse results of pyuio bench, or get the error; results that were read can be written."""
    with contextlib.suppress(ResultFileError):
        json.dumps(run_of(data).as_dict())


def _run() -> bytes:
    run = Run("timer", environment={"kernel": "6.1"}, tuning={"policy": "SCHED_FIFO"}, settings={"interval_us": 1000})
    run.add("C", "idle").record(range(1000, 2000))
    return json.dumps(run.as_dict()).encode()


def histogram(data: bytes) -> None:
    """Parse results with these bytes compressed in the histogram: damage inside of the compression."""
    run = json.loads(_run())
    header = base64.b64decode(run["series"][0]["histogram"])[:4]
    packed = zlib.compress(data)
    run["series"][0]["histogram"] = base64.b64encode(header + struct.pack(">I", len(packed)) + packed).decode()
    result_file(json.dumps(run).encode())


def _histograms() -> list[bytes]:
    return [zlib.decompress(base64.b64decode(json.loads(_run())["series"][0]["histogram"])[8:])]


def system_rdl(data: bytes) -> None:
    """Load a register description, or get the error.

    Input that would run Perl, between ``<%`` and ``%>``, or include files is left out.
    """
    if b"<%" in data or b"include" in data:
        return
    with tempfile.NamedTemporaryFile(dir="/dev/shm", suffix=".rdl") as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(SystemRdlError):
            systemrdl.load(file.name)


def csr_file(data: bytes) -> None:
    """Load LiteX's list of registers, or get the error."""
    suffix = ".json" if data.startswith(b"{") else ".csv"
    with tempfile.NamedTemporaryFile(dir="/dev/shm", suffix=suffix) as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(CsrFileError):
            litex.load(file.name)


_CSR_FILES = [
    b"""{"csr_bases": {"ctrl": 4096}, "csr_registers": {"ctrl_reset": {"addr": 4096, "size": 2, "type": "rw"}},
    "constants": {"config_csr_data_width": 32}, "memories": {"csr": {"base": 4096, "size": 64, "type": "io"}}}""",
    b"csr_register,ctrl_reset,0x1000,2,rw\nconstant,config_csr_data_width,8,,\nmemory_region,csr,0x1000,64,io\n",
]

_CARD = b"""
enum speed_e { SLOW = 2'd0 { desc = "the slow one"; }; FAST = 2'd2; };
reg control_r {
    name = "Control"; desc = "What the unit is to \\"do\\".";
    field { sw = rw; hw = r; encode = speed_e; } speed[5:4];
    field { sw = rw; onwrite = woclr; hw = w; } overflow[8:8];
    field { sw = r; onread = rclr; hw = w; } class[31:24];
};
addrmap card {
    control_r control @ 0x0;
    reg { regwidth = 64; field { sw = rw; hw = r; } value[63:0]; } wide @ 0x10;
    regfile { control_r control; } channel[2][3] @ 0x100 += 0x10;
    external mem { mementries = 16; memwidth = 32; } ram @ 0x400;
};
"""

_LSBLK = b"""{"blockdevices": [{"kname": "sda", "type": "disk", "mountpoints": [null], "children": [
    {"kname": "sda1", "type": "part", "mountpoints": ["/a b", "[SWAP]"]}]}]}"""

_KERNEL_TEXTS = [
    b"           CPU0       CPU1\n 11:         12          0   IO-APIC   11-fasteoi   uio_pci_generic, ata_piix\n",
    b"BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 isolcpus=managed_irq,domain,2-3 preempt=full -- single\n",
    b'CONFIG_PREEMPT_DYNAMIC=y\nCONFIG_LOCALVERSION="-rt"\n# CONFIG_UIO is not set\n',
    b"processor\t: 0\nmodel name\t: AMD EPYC 9654 96-Core Processor\nflags\t\t: fpu hypervisor\n",
    b"6.1.0-56-amd64",
    b"12:cpu,cpuacct:/user.slice\n0::/user.slice/session-1.scope\n",
    b"34 25 0:30 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
    b"Name:\tpython3\nVmSize:\t   12345 kB\nVmLck:\t       0 kB\n",
    b"\x06\0\0\0\x01",
]


def _route_answers() -> list[bytes]:
    def part(kind: int, content: bytes) -> bytes:
        return (struct.pack("=HH", 4 + len(content), kind) + content).ljust(-(-len(content) // 4) * 4 + 4, b"\0")

    route = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 3, 0, 1, 0) + part(1, bytes([192, 168, 1, 0]))
    several = part(9, struct.pack("=HBBi", 8, 0, 0, 3) + struct.pack("=HBBi", 8, 0, 0, 4))
    one = part(4, struct.pack("=i", 2))
    contents = ((24, route + one), (24, route + several), (2, struct.pack("=i", -1)), (3, b""))
    return [
        struct.pack("=IHHII", 16 + len(content), kind, 0, 0, 0) + content.ljust(-(-len(content) // 4) * 4, b"\0")
        for kind, content in contents
    ]


_STATE = State("1234:11e8", {"bar0": {"control": 0x31, "status": 0}}, bytes(range(64)))


def saved_state(data: bytes) -> None:
    """Read the file of a device's state; what was read comes back from what is written of it."""
    with contextlib.suppress(StateFileError):
        found = parse_state(data, "card.yaml")
        assert parse_state(text_of(found).encode(), "again") == found


TARGETS = {
    "names": Target(
        names,
        lambda: [b"0000:00:04.0", b"00:1f.7", b"/dev/uio12", b"1234:11e8", b"bar0+0x24", b"config", b"bar1.a[2].b"],
        longest=128,
    ),
    "configuration_space": Target(configuration_space, lambda: [recorded(name)[0] for name in _recorded_names()]),
    "resource_file": Target(resource_file, lambda: [recorded(name)[1].encode() for name in _recorded_names()], 1024),
    "device_directory": Target(device_directory, _device_directories, 6144),
    "lsblk": Target(lsblk, lambda: [_LSBLK], 1024),
    "routes": Target(routes, _route_answers, 1024),
    "processors": Target(processors, lambda: [b"0-3,8\n", b"(null)", b"hugepages-2048kB"], 128),
    "kernel_texts": Target(kernel_texts, lambda: _KERNEL_TEXTS, 1024),
    "nvme": Target(nvme, lambda: [bytes(4096)]),
    "binding_file": Target(binding_file, _binding_files, 1024),
    "result_file": Target(result_file, lambda: [_run()]),
    "histogram": Target(histogram, _histograms),
    "saved_state": Target(saved_state, lambda: [text_of(_STATE).encode()], 1024),
    "system_rdl": Target(system_rdl, lambda: [_CARD], 2048),
    "csr_file": Target(csr_file, lambda: _CSR_FILES, 1024),
}
"""All targets by name."""
