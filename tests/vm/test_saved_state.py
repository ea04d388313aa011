# SPDX-License-Identifier: MIT
"""A guest that starts from a saved state: it is like one that booted, repeats nothing, and no damaged state is used."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyuio.vm import Options, cache, machine, saved_state, time_stamp_counter
from pyuio.vm.saved_state import SavedState

from .conftest import LIMIT, Vm

SMALL = ("--memory", "256M", "--cpus", "1")  # a state of its own, which no other test uses
CARDS = ("--device", "edu", "--device", "edu,dma_mask=0xffffffffffffffff", "--device", "pci-testdev")
LOOK = Path(__file__).with_name("saved_state_guest.py")


@pytest.fixture(scope="module")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has the kernels of the usual one, but no saved states."""
    home = tmp_path_factory.mktemp("cache")
    (home / "pyuio").mkdir()
    (home / "pyuio/kernels").symlink_to(cache.root() / "kernels")
    if (cache.root() / "acceleration.json").exists():
        (home / "pyuio/acceleration.json").write_bytes((cache.root() / "acceleration.json").read_bytes())
    return home


def look(vm: Vm, home: Path, *words: str) -> tuple[dict[str, Any], str]:
    """Return what a program in a guest sees, and what pyuio said."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(home)}
    result = vm.run(*SMALL, *CARDS, "-v", *words, "--", sys.executable, "-I", str(LOOK), env=environment)
    assert result.returncode == 0, result.stderr.decode()
    return json.loads(result.stdout), result.stderr.decode()


def the_state(home: Path) -> Path:
    (manifest,) = (home / "pyuio/saved").glob("*/manifest.json")
    return manifest.parent


def copy(source: str, target: str) -> None:
    """Copy a file of a saved state; that of the memory, which nobody writes to, becomes a link."""
    (os.link if Path(source).name == "memory" else shutil.copy2)(source, target)


@pytest.fixture(scope="module")
def both(cache_home: Path) -> list[tuple[dict[str, Any], str]]:
    """What was seen and said by two guests from one state."""
    return [look(Vm(), cache_home) for _ in range(2)]


def test_the_state_is_saved_once(both: list[tuple[dict[str, Any], str]]) -> None:
    said = [text for _, text in both]
    assert [("saving the state" in text) for text in said] == [True, False]
    assert all("starts from the state" in text for text in said)
    assert not any("so it boots" in text or "Linux version" in text for text in said)


def test_a_program_sees_the_same(both: list[tuple[dict[str, Any], str]]) -> None:
    first, second = (seen["same"] for seen, _ in both)
    assert first == second
    assert first["processors"] == 1
    assert 128 < first["MiB"] < 256


def test_the_clock_is_right(both: list[tuple[dict[str, Any], str]]) -> None:
    for seen, _ in both:
        assert abs(seen["lag"]) < 5, "seconds that the clock of the guest differs from its RTC"


def test_the_clock_is_as_fast_as_the_hosts(both: list[tuple[dict[str, Any], str]]) -> None:
    for seen, _ in both:
        assert 0.9 < seen["rate"] < 1.1, "seconds of the guest's clock in a second of its RTC, which is the host's"


def test_random_numbers_do_not_repeat(both: list[tuple[dict[str, Any], str]]) -> None:
    first, second = (seen["random"] for seen, _ in both)
    for name in first:
        assert first[name] != second[name], name


@pytest.mark.long  # in make test some guests boot, and most do not
def test_a_state_that_does_not_load(
    vm: Vm, cache_home: Path, both: list[tuple[dict[str, Any], str]], tmp_path: Path
) -> None:
    """The guest boots, and a program sees the same there; the state is gone."""
    damaged = tmp_path / "home"
    shutil.copytree(cache_home, damaged, symlinks=True, copy_function=copy)
    claim_another_kernel(the_state(damaged))
    booted, said = look(vm, damaged)
    assert "starts from the state" in said
    assert "so it boots" in said
    assert "Linux version" in said
    assert "saving the state" not in said
    assert booted["same"] == both[0][0]["same"]
    assert abs(booted["lag"]) < 5
    assert 0.9 < booted["rate"] < 1.1
    for name, number in booted["random"].items():
        assert number not in [seen["random"][name] for seen, _ in both], name
    assert not list((damaged / "pyuio/saved").glob("*/manifest.json")), "the state that did not load is still there"


@pytest.mark.parametrize("memory", ["1024", "1024m", "1G", "1g", "1048576K", "1048575k"])
def test_units_of_memory(memory: str) -> None:
    """QEMU takes a plain number for MiB in one place and for bytes in another."""
    assert machine.memory_size(Options(memory=memory)) == "1024M"


def flip_a_bit(state: Path) -> None:
    with (state / "memory").open("r+b") as file:
        place = os.lseek(file.fileno(), 64 << 20, os.SEEK_DATA)
        file.seek(place + 100)
        byte = file.read(1)[0]
        file.seek(place + 100)
        file.write(bytes([byte ^ 4]))


def cut(state: Path) -> None:
    os.truncate(state / "state", (state / "state").stat().st_size // 2)


def claim_another_kernel(state: Path) -> None:
    """Leave files that prove undamaged, and that QEMU cannot load."""
    facts = cache.check(state)
    assert facts is not None
    (state / "state").write_bytes(b"nothing of the kind")
    stage = state.parent / ".stage-test"
    state.rename(stage)
    cache.finish(stage, state, facts)


def move_to_another_machine(state: Path) -> None:
    manifest = json.loads((state / cache.MANIFEST).read_text())
    manifest["facts"]["kHz"] = str(int(manifest["facts"]["kHz"]) * 5)
    (state / cache.MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("harm", [flip_a_bit, cut, move_to_another_machine])
def test_damage_is_seen(cache_home: Path, both: object, tmp_path: Path, harm: Callable[[Path], None]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(the_state(cache_home), copy)
    assert SavedState(copy).intact()
    harm(copy)
    assert not SavedState(copy).intact()


def test_damage_is_seen_where_the_file_system_knows_no_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seek = os.lseek

    def no_holes(fd: int, offset: int, how: int) -> int:
        if how == os.SEEK_DATA:
            raise OSError(errno.EINVAL, "Invalid argument")
        return seek(fd, offset, how)

    stage = tmp_path / "stage"
    stage.mkdir()
    (stage / "memory").write_bytes(bytes(1 << 20) + b"data")
    cache.finish(stage, tmp_path / "final", {"kHz": str(time_stamp_counter.frequency())})
    monkeypatch.setattr(os, "lseek", no_holes)
    state = SavedState(tmp_path / "final")
    assert state.intact()
    (state.directory / "memory").write_bytes(bytes(1 << 20) + b"dada")
    assert not state.intact()


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("nvme,serial=1,drive=d", ["--qemu", "-blockdev driver=null-co,node-name=d"]),
        pytest.param("pcie-root-port,id=p", [], marks=pytest.mark.long),
    ],
)
def test_a_device_that_cannot_be_restored_costs_no_state(
    vm: Vm, cache_home: Path, both: object, device: str, words: list[str]
) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache_home)}
    result = vm.run(*SMALL, "--device", device, *words, "-v", "--timeout=1", "--", "true", env=environment)
    assert result.returncode == 124, result.stderr  # it need not come so far as to run the command
    assert f"boots: {device.split(',')[0]} cannot be plugged".encode() in result.stderr
    assert b"saving the state" not in result.stderr  # it asks the same state as the others which devices it may have
    assert SavedState(the_state(cache_home)).intact()


def test_a_mistake_is_told_once(vm: Vm, cache_home: Path, both: object) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache_home)}
    result = vm.run(*SMALL, "--device", "edu,nonsense=1", "--", "true", env=environment)
    assert result.returncode == 125
    assert result.stderr.count(b"edu.nonsense' not found") == 1, result.stderr
    assert SavedState(the_state(cache_home)).intact()


@pytest.mark.long  # above, one that was damaged is not used, and one that is not there is made
@pytest.mark.parametrize("harm", [flip_a_bit, claim_another_kernel])
def test_a_damaged_state_is_not_used(vm: Vm, cache_home: Path, both: object, harm: Callable[[Path], None]) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache_home)}
    state = the_state(cache_home)
    before = (state / "pluggable").stat().st_mtime_ns
    harm(state)
    for _ in range(2):
        result = vm.run(*SMALL, "--", "echo", "well", env=environment)
        assert (result.returncode, result.stdout) == (0, b"well\n"), result.stderr
    assert b"boots" not in result.stderr
    assert (the_state(cache_home) / "pluggable").stat().st_mtime_ns != before
    assert SavedState(the_state(cache_home)).intact()


@pytest.mark.parametrize(
    ("options", "accelerator", "reason"),
    [
        (Options(), "tcg", ""),
        (Options(), "kvm", "KVM"),
        (Options(boot=True), "tcg", "--boot"),
        (Options(append="isolcpus=1"), "tcg", "kernel parameters"),
        (Options(machine="pc"), "tcg", "q35"),
        (Options(qemu=["-smbios", "type=0"]), "tcg", "-smbios"),
        (Options(qemu=["-drive", "file=x"]), "tcg", "-drive"),
        (Options(qemu=["-drive", "if=none,file=x,id=d", "-device", "nvme,drive=d,serial=1"]), "tcg", ""),
        (Options(qemu=["-object", "memory-backend-ram,id=m,size=1G"]), "tcg", "memory"),
        (Options(qemu=["-name"]), "tcg", ""),  # QEMU says what is missing
    ],
)
def test_what_needs_a_boot(options: Options, accelerator: str, reason: str) -> None:
    found = saved_state.reason_to_boot(options, accelerator)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("edu,dma_mask=0xffffffff", "edu"),
        ('{"driver":"edu","dma_mask":4294967295}', "edu"),
        ('{ "id": "a,b", "driver": "virtio-blk-pci" }', "virtio-blk-pci"),
        ('{"driver":4}', ""),
        ('{"id":"edu"}', ""),
        ('{"driver":"edu"', ""),
        ("", ""),
        (",addr=1", ""),
    ],
)
def test_the_model_in_a_device_text(text: str, name: str) -> None:
    assert machine.device_name(text) == name
    if not name:
        with pytest.raises(ValueError, match="must be a QEMU device text"):
            Options(devices=[text])


def test_bridges_and_what_is_not_on_the_pci_bus_cannot_be_plugged(cache_home: Path, both: object) -> None:
    pluggable = SavedState(the_state(cache_home)).pluggable
    assert {"edu", "e1000e", "ahci", "ich9-ahci", "usb-tablet", "scsi-hd"} <= pluggable
    assert not {"nvme", "usb-uas", "virtio-input-host"} & pluggable
    assert not {"pcie-root-port", "pci-bridge", "isa-debug-exit", "intel-iommu", "pc-dimm", "ide-hd"} & pluggable
    assert not {"virtio-balloon-pci", "virtio-balloon", "virtio-mem-pci", "virtio-iommu-pci", "AMDVI-PCI"} & pluggable


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_cache_that_is_read_only_costs_nothing_but_time(vm: Vm, cache_home: Path, both: object) -> None:
    words = shlex.join(vm.command(*SMALL, "-v", "--", "echo", "here"))
    mount = f"mount --bind {cache_home} {cache_home} && mount -o remount,bind,ro {cache_home}"
    command = ["unshare", "--mount", "sh", "-c", f"{mount} && exec {words}"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache_home)}
    result = subprocess.run(command, capture_output=True, timeout=LIMIT, check=False, env=environment)
    assert (result.returncode, result.stdout) == (0, b"here\n"), result.stderr
    assert b"is read-only, and QEMU opens the memory in it for writing" in result.stderr
    assert b"did not start from its saved state" not in result.stderr


def test_old_states_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["newest", "used", "old"]
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        (tmp_path / name / "memory").write_bytes(bytes([1]) * (1 << 20))
        (tmp_path / name / cache.MANIFEST).write_text("{}")
        os.utime(tmp_path / name, (time.time(), time.time() - 1000 * number))
    for limit, left in ((4 << 20, 3), (5 << 19, 2), (1 << 19, 1)):
        monkeypatch.setattr(saved_state, "SIZE_LIMIT", limit)
        saved_state._limit_size(tmp_path, tmp_path / "newest")
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[:left])
