# SPDX-License-Identifier: MIT
"""The kernel's files with unexpected content: cut short, absurd, or merely unusual."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import re
import struct
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pyuio.claim import binding, binding_record, networks_in_use, nodes_in_use
from pyuio.claim.network_routes import parse_messages
from pyuio.errors import DeviceRemovedError, KernelFileError
from pyuio.kernel import hugepages, processors, sysfs, uio, vfio
from pyuio.kernel.hugepages import HugepageSize
from pyuio.kernel.scheduling import Thread
from pyuio.kernel.uio import UioMap, UioNode
from pyuio.pci.assigned_interrupt import assigned_interrupt
from pyuio.pci.bars import parse_resources
from pyuio.pci.config_space import ConfigSpace
from pyuio.pci.link import parse_speed, parse_width

IN_ONE_DIRECTORY = settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
CONTENTS = st.binary(max_size=40) | st.sampled_from(
    [
        b"",
        b"\n",
        b"-1\n",
        b"0x\n",
        b"1 2",
        b"\0" * 4,
        b"1" * 5000,
        "٣".encode(),
        b"1_0",
        b"(null)",
        b"\xff",
        b"99999999999999999999",
    ]
)


def test_a_missing_attribute_keeps_nothing_of_its_readers_alive(tmp_path: Path) -> None:
    """Not even until the garbage collector runs: a reader has memory for DMA, for example."""

    class Held:
        pass

    def read() -> weakref.ref[Held]:
        held = Held()
        assert sysfs.read_optional(tmp_path / "missing") is None
        with pytest.raises(FileNotFoundError, match=r"reading .*missing"):
            sysfs.read_text(tmp_path / "missing")
        return weakref.ref(held)

    gc.disable()
    try:
        assert read()() is None
    finally:
        gc.enable()


@IN_ONE_DIRECTORY
@given(CONTENTS, st.sampled_from([10, 16]))
def test_a_number_or_what_is_wrong(tmp_path: Path, content: bytes, base: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    text = content.decode(errors="replace").strip()
    if re.fullmatch("[0-9]{1,20}" if base == 10 else "(0x)?[0-9a-fA-F]{1,16}", text) and int(text, base) < 1 << 64:
        assert sysfs.read_number(path, base) == int(text, base)
    else:
        with pytest.raises(KernelFileError, match=f"^{path} should have a") as caught:
            sysfs.read_number(path, base)
        assert len(str(caught.value)) < 400 + len(str(path))


def test_an_attribute_that_is_gone_is_not_taken_for_a_forbidden_one() -> None:
    """The kernel refuses to create a file in sysfs with EACCES: so it is not asked to."""
    with pytest.raises(FileNotFoundError):
        sysfs.write_text(Path("/sys/kernel/no_such_attribute"), "1")
    with pytest.raises(DeviceRemovedError):
        binding._write("0000:00:00.0", Path("/sys/kernel/no_such_attribute"), "1")


def test_a_number_that_may_be_missing(tmp_path: Path) -> None:
    assert sysfs.read_optional_number(tmp_path / "irq") == 0
    (tmp_path / "irq").write_text("11\n")
    assert sysfs.read_optional_number(tmp_path / "irq") == 11
    (tmp_path / "irq").write_text("\n")
    with pytest.raises(KernelFileError, match="irq should have a number"):
        sysfs.read_optional_number(tmp_path / "irq")


def node(directory: Path, **files: bytes) -> UioNode:
    """A node whose directory has these files."""
    made = UioNode("uio0")
    made.directory = directory
    for name, content in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return made


def test_a_nodes_files_as_they_should_be(tmp_path: Path) -> None:
    maps = {"maps__map3__addr": b"0xfe600000\n", "maps__map3__size": b"0x1000\n", "maps__map3__offset": b"0x0\n"}
    good = node(tmp_path, event=b"4294967295\n", name=b"igb_uio\n", **maps)
    assert (good.event_count, good.driver_name) == (4294967295, "igb_uio")
    assert good.maps == (UioMap(3, "", 0xFE600000, 0x1000, 0),)


@pytest.mark.parametrize("name", ["event", "maps__map0__addr", "maps__map0__size", "maps__map0__offset"])
@IN_ONE_DIRECTORY
@given(CONTENTS)
def test_a_nodes_files_with_anything_in_them(tmp_path: Path, name: str, content: bytes) -> None:
    good = {"event": b"1", "maps__map0__addr": b"0x0", "maps__map0__size": b"0x1", "maps__map0__offset": b"0x0"}
    odd = node(tmp_path, **{**good, name: content})
    with contextlib.suppress(KernelFileError):
        assert odd.event_count >= 0
        assert [one.index for one in odd.maps] == [0]


@IN_ONE_DIRECTORY
@given(CONTENTS)
def test_an_interrupts_number_with_anything_in_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "irq").write_bytes(content)
    with contextlib.suppress(KernelFileError):
        assert assigned_interrupt(tmp_path, 1).kind == "INTx"


def test_an_interrupts_directory_with_something_else_in_it(tmp_path: Path) -> None:
    (tmp_path / "msi_irqs").mkdir()
    (tmp_path / "msi_irqs/nonsense").write_text("msi")
    with pytest.raises(KernelFileError, match="nonsense should have a number"):
        assigned_interrupt(tmp_path, 1)


@pytest.mark.parametrize("text", ["0-", "-3", "3-1", "a", "1 2", "0-4000000000", "1,,2", "٣", "0-3:2/4", "1" * 5000])
def test_lists_of_processors_that_are_none(text: str) -> None:
    with pytest.raises(KernelFileError, match="list of processors"):
        processors.parse_list(text)


@pytest.mark.parametrize(
    "name", ["hugepages-kB", "hugepages-0kB", "hugepages--1kB", "hugepages-2MB", "x", "hugepages-٣kB"]
)
def test_sizes_of_hugepages_that_are_none(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr(hugepages, "_DIRECTORY", tmp_path)
    with pytest.raises(KernelFileError, match="hugepages"):
        hugepages.hugepages()


@IN_ONE_DIRECTORY
@given(CONTENTS, st.sampled_from(["nr_hugepages", "free_hugepages", "resv_hugepages", "surplus_hugepages"]))
def test_counts_of_hugepages_with_anything_in_them(tmp_path: Path, content: bytes, which: str) -> None:
    size = HugepageSize(2 << 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hugepages, "_DIRECTORY", tmp_path)
        directory = tmp_path / "hugepages-2048kB"
        directory.mkdir(exist_ok=True)
        for name in ("nr_hugepages", "free_hugepages", "resv_hugepages", "surplus_hugepages"):
            (directory / name).write_bytes(content if name == which else b"1\n")
        for use in (lambda: size.total, lambda: size.free, size.command):
            with contextlib.suppress(KernelFileError):
                use()


@pytest.mark.parametrize("length", [0, 1, 63])
def test_a_configuration_space_cut_short(tmp_path: Path, length: int) -> None:
    (tmp_path / "config").write_bytes(bytes(length))
    with pytest.raises(DeviceRemovedError, match=f"{length} of 64 bytes"):
        ConfigSpace(tmp_path)


@IN_ONE_DIRECTORY
@given(
    st.lists(
        st.sampled_from(["0x0", "-0x1", "0xffffffffffffffff", "0x1_0", "0x10000000000000000", "", "٣", "0X1f"]),
        max_size=9,
    )
)
def test_a_resource_file_of_odd_numbers(words: list[str]) -> None:
    text = "\n".join(" ".join(words[index : index + 3]) for index in range(0, len(words), 3))
    try:
        bars = parse_resources(text)
    except KernelFileError:
        return
    assert all(0 <= bar.address < 1 << 64 and 0 < bar.size <= 1 << 64 for bar in bars)


@pytest.mark.parametrize("content", [b"", b":", b"1", b"1:2:3", b"x:y", b"1:99999999999999999999", b"-1:-1", b"\xff"])
def test_a_device_number_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "dev").write_bytes(content)
    nodes_in_use._nodes_below(tmp_path)


@pytest.mark.parametrize("text", ["1" * 5000, "٤", "-1", "1_0", ""])
def test_links_that_say_nothing(text: str) -> None:
    assert parse_width(text) is None
    assert parse_speed(f"{text} GT/s") is None


def test_an_interface_with_an_odd_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function = tmp_path / "function"
    (function / "net/eth0").mkdir(parents=True)
    (function / "net/eth0/ifindex").write_text("one\n")
    (tmp_path / "class").mkdir()
    (tmp_path / "class/eth0").symlink_to(function / "net/eth0")
    monkeypatch.setattr(networks_in_use, "_NET", tmp_path / "class")
    with pytest.raises(KernelFileError, match="ifindex"):
        networks_in_use.network_uses(function, 0x020000)


@IN_ONE_DIRECTORY
@given(st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, 4))
@example(-(1 << 31), 4)
def test_any_error_for_an_answer(number: int, length: int) -> None:
    content = struct.pack("=i", number)[:length]
    message = struct.pack("=IHHII", 16 + len(content), 2, 0, 0, 0) + content
    with pytest.raises(OSError, match="asking the kernel for its routes") as caught:
        parse_messages(message)
    assert caught.value.errno in errno.errorcode


def named(name: bytes, use: Callable[[], Any]) -> Any:
    """Return what `use` returns in a thread with this name, as the kernel has it (prctl(2), PR_SET_NAME)."""
    results: list[Any] = []

    def run() -> None:
        assert ctypes.CDLL(None).prctl(15, name, 0, 0, 0) == 0
        results.append(use())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


@pytest.mark.parametrize("name", [b"\xff\xfe", "größergrößergrö".encode()[:15], b") R 1 (", b""])
def test_a_thread_with_an_odd_name(name: bytes) -> None:
    """The kernel cuts names off after 15 bytes, even in the middle of a character."""
    found, native = named(name, lambda: (Thread.current(), threading.get_native_id()))
    assert found.id == native
    assert found.started.isdecimal()


@pytest.mark.parametrize("name", ["\ud800", "a\udcffb", "a/b", "..", "", "a\n", "x" * 65])
def test_names_of_drivers_that_cannot_be(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a kernel driver's name"):
        binding_record.check_driver_name(name)


def test_nodes_are_numbered_in_ascii() -> None:
    assert uio.UioNode.parse("uio٣") is None
    assert os.fspath(UioNode("uio0").path) == "/dev/uio0"


@pytest.mark.parametrize(
    ("drivers", "reason"),
    [
        (["pcieport", None], "vfio-pci has no function of IOMMU group 98765"),
        (["pci-stub"], "vfio-pci has no function of IOMMU group 98765"),
        (["pcieport", "vfio-pci"], "a container is given it by --device /dev/vfio/vfio --device /dev/vfio/98765"),
        (["mlx5_vfio_pci"], "a container is given it by"),
    ],
)
def test_the_file_of_an_iommu_group_that_is_not_there(
    drivers: list[str | None], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vfio, "members", lambda number: [vfio.Member("0000:03:00.0", driver) for driver in drivers])
    with pytest.raises(DeviceRemovedError, match=reason):
        vfio.Group(98765)
