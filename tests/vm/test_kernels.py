# SPDX-License-Identifier: MIT
"""Kernels in the cache: pyuio never uses one that is half-finished or damaged."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from pyuio.vm import KernelError, apt, cache, kernels, kvm_probe, machine
from pyuio.vm.image import kernel_version


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/pyuio/kernels"


def quiet(text: str) -> None:
    pass


def test_damage_is_noticed_and_repaired(empty_cache: Path, kernel: Path) -> None:
    image = next((kernel / "boot").glob("vmlinuz-*"))
    said: list[str] = []
    first = kernels.prepare(str(image), said.append)
    assert first.version == kernel_version(image)
    assert first.modules == kernel / "lib/modules" / first.version
    assert len(said) == 1
    assert kernels.prepare(str(image), said.append) == first
    assert len(said) == 1  # reused

    whole = first.archive.read_bytes()
    first.archive.write_bytes(whole[: len(whole) // 2])
    assert kernels.prepare(str(image), said.append) == first
    assert len(said) == 2  # prepared anew
    assert first.archive.stat().st_size == len(whole)

    first.archive.write_bytes(bytes(len(whole)))  # the same size, so that only the thorough check finds it
    kernels.prepare(str(image), said.append, refresh=True)
    assert len(said) == 3
    assert first.archive.read_bytes() == whole

    (first.image.parent.parent / cache.MANIFEST).unlink()  # as if killed before the end
    kernels.prepare(str(image), said.append)
    assert len(said) == 4


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Make a real package, but not of a kernel."""
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: linux-image-0-test\nVersion: 1\nArchitecture: amd64\nMaintainer: x <x@example.org>\nDescription: x\n"
    )
    (tree / "boot").mkdir()
    (tree / "boot/vmlinuz-0-test").write_bytes(bytes(range(256)) * 4096)
    subprocess.run(["dpkg-deb", "--build", "-Znone", str(tree), str(tmp_path / "whole.deb")], check=True, timeout=60)
    return tmp_path / "whole.deb"


def test_download_cut_off(empty_cache: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: apt.Archive, wanted: apt.Package, directory: Path) -> Path:
        half = directory / "half.deb"
        half.write_bytes(package.read_bytes()[:500_000])
        return half

    monkeypatch.setattr(apt.Archive, "newest", lambda self, meta: apt.Package("linux-image-0-test", "1", 1_000_000))
    monkeypatch.setattr(apt.Archive, "download", download)
    for _ in range(2):
        with pytest.raises(KernelError, match="dpkg-deb"):
            kernels.prepare("debian", quiet)
        assert {path.name for path in empty_cache.iterdir()} <= {".lock", "apt"}  # apt has an index of packages


def test_package_without_modules(empty_cache: Path, package: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    stage.mkdir()
    with pytest.raises(KernelError, match="no modules"):
        kernels._unpack_package(package, apt.Package("linux-image-0-test", "1", 1), stage)


def test_kernel_without_9p(tmp_path: Path, kernel: Path) -> None:
    image = next((kernel / "boot").glob("vmlinuz-*"))
    version = kernel_version(image)
    modules = tmp_path / "lib/modules" / version
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/drivers/virtio/virtio_pci.ko: \n")
    with pytest.raises(KernelError, match="lacks 9p, 9pnet_virtio, virtio_console, overlay"):
        kernels._assemble(tmp_path, image, version)


def test_compressed_modules_without_zstd(tmp_path: Path, kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = next((kernel / "boot").glob("vmlinuz-*"))
    version = kernel_version(image)
    modules = tmp_path / "lib/modules" / version
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("".join(f"kernel/{name}.ko.zst:\n" for name in kernels.NEEDED))
    monkeypatch.setattr("pyuio.vm.kernels.shutil.which", lambda *_, **__: None)
    with pytest.raises(KernelError, match="compressed by zstd, which is not installed"):
        kernels._assemble(tmp_path, image, version)


def test_stale_package_lists(empty_cache: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def download(self: apt.Archive, wanted: apt.Package, directory: Path) -> Path:
        calls.append("download")
        raise apt.DownloadError("404 Not Found")

    monkeypatch.setattr(apt.Archive, "newest", lambda self, meta: apt.Package("linux-image-0-test", "1", 1_000_000))
    monkeypatch.setattr(apt.Archive, "update", lambda self: calls.append("update"))
    monkeypatch.setattr(apt.Archive, "download", download)
    with pytest.raises(KernelError, match="404"):
        kernels.prepare("debian", quiet)
    assert calls == ["download", "update", "download"]


def test_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(KernelError, match="x86_64 only, and this machine is riscv64"):
        kernels.prepare("debian", quiet)


def test_two_at_once(empty_cache: Path, kernel: Path) -> None:
    image = str(next((kernel / "boot").glob("vmlinuz-*")))
    found: list[kernels.Kernel] = []
    said: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(kernels.prepare(image, said.append))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 2
    assert found[0] == found[1]
    assert sum("preparing" in text for text in said) == 1


def test_probe_is_remembered(empty_cache: Path, kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = next((kernel / "boot").glob("vmlinuz-*"))
    ready = kernels.prepare(str(image), quiet)
    qemu = machine.find_qemu()
    # Run the probe itself with the accelerator that works everywhere, and with too little time.
    assert kvm_probe.runs(qemu, ready, "tcg", 60)
    assert not kvm_probe.runs(qemu, ready, "tcg", 0.3)

    if not kvm_probe.available():
        pytest.skip("no usable /dev/kvm")
    asked: list[str] = []

    def runs(*_: object) -> bool:
        asked.append("probe")
        return False

    monkeypatch.setattr(kvm_probe, "runs", runs)
    said: list[str] = []
    for _ in range(3):
        assert kvm_probe.choose(qemu, ready, said.append).name == "tcg"
    assert asked == ["probe"]
    assert len(said) == 1
    assert said[0].startswith("acceleration: TCG (KVM did not run a guest within ")
