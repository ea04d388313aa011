# SPDX-License-Identifier: MIT
"""The doctor's judgements: the state for each case, and no traceback for unexpected input."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyuio.doctor import (
    CHECKS,
    device,
    driver,
    examine,
    interrupts,
    iommu_faults,
    memory,
    processors,
    scheduling,
    something_blocks,
)
from pyuio.doctor.finding import Answer, Check, Finding, box, counted
from pyuio.errors import DeviceRemovedError, PermissionDeniedError
from pyuio.kernel.hugepages import HugepageSize
from pyuio.kernel.irq import parse_line
from pyuio.kernel.log import Message, parse_record
from pyuio.pci.bars import Bar

HUGE = HugepageSize(2 << 20)
GIGANTIC = HugepageSize(1 << 30)

# Recorded in a guest.
PROC_INTERRUPTS = """\
           CPU0       CPU1       
  0:         77          0   IO-APIC   2-edge      timer
 16:          0          9   IO-APIC  16-fasteoi   uio_pci_generic, uio_pci_generic, ahci[0000:00:1f.2]
 21:          0          0   IO-APIC  21-fasteoi   uio_pci_generic
 22:          0          0   IO-APIC  22-fasteoi
 27:          0       1753   PCI-MSI 475137-edge      virtio1-requests
NMI:          0          0   Non-maskable interrupts
ERR:          0
"""  # noqa: W291


def state(answer: Answer | None) -> str | None:
    if answer is None:
        return None
    assert answer.found
    assert bool(answer.remedy) == (answer.state in ("advice", "blocks")) or answer.state == "unknown"
    return answer.state


# -- the driver --


def test_module_that_may_not_be_loaded() -> None:
    assert driver.find_bar_to_loading("quiet", "0") is None
    assert driver.find_bar_to_loading("module_blacklist=kvm,ahci", "0") is None
    for line, disabled in (
        ("quiet", "1"),
        ("nomodule", "0"),
        ("module_blacklist=kvm,uio-pci-generic", "0"),
        ("module_blacklist=uio", "0"),
        ("quiet", ""),
    ):
        assert driver.find_bar_to_loading(line, disabled)


def test_modprobe() -> None:
    there = "insmod /lib/modules/6.1.0/kernel/drivers/uio/uio.ko \ninsmod /lib/modules/6.1.0/uio_pci_generic.ko \n"
    assert state(driver.judge_modprobe(0, there)) == "good"
    assert state(driver.judge_modprobe(0, "")) == "good"  # built in
    gone = driver.judge_modprobe(1, "modprobe: FATAL: Module uio_pci_generic not found in directory /lib/modules/6.1\n")
    assert state(gone) == "blocks"
    assert "not found in directory" in gone.found
    assert state(driver.judge_modprobe(1, "")) == "blocks"
    replaced = driver.judge_modprobe(0, "install /bin/false \n")
    assert state(replaced) == "blocks"
    assert "/bin/false" in replaced.found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[none] integrity confidentiality", "good"),
        ("none [integrity] confidentiality", "blocks"),
        ("none integrity [confidentiality]", "blocks"),
        ("none integrity", "unknown"),
        ("", "unknown"),
    ],
)
def test_lockdown(text: str, expected: str) -> None:
    for secure in (True, False, None):
        answer = driver.judge_lockdown(text, secure)
        assert state(answer) == expected
        assert ("Secure Boot is on" in answer.found) == (secure is True and expected != "unknown")
        by_vfio = driver.judge_lockdown(text, secure, None)
        assert state(by_vfio) == ("good" if expected == "blocks" else expected)
        assert ("VFIO is the way" in by_vfio.found) == (expected == "blocks")


def test_ways() -> None:
    assert state(driver.judge_ways(None, None)) == "good"
    assert state(driver.judge_ways(None, "no IOMMU is in use")) == "good"
    locked = driver.judge_ways(
        "the kernel is locked down, and forbids it", None, "vfio-pci (the kernel is locked down)"
    )
    assert state(locked) == "good"
    assert "bind=True takes vfio-pci" in locked.found
    neither = driver.judge_ways("the kernel is locked down, and forbids it", "no IOMMU has the device")
    assert state(neither) == "blocks"
    assert "intel_iommu=on" in neither.remedy


def test_secure_boot() -> None:
    assert driver.parse_secure_boot(b"\x06\0\0\0\1") is True
    assert driver.parse_secure_boot(b"\x06\0\0\0\0") is False
    for odd in (b"", b"\x06\0\0\0", b"\x06\0\0\0\2", b"\x06\0\0\0\1\1"):
        assert driver.parse_secure_boot(odd) is None


def test_iommu_of_a_device() -> None:
    assert state(driver.judge_group("0000:00:01.0", "identity", ["0000:00:01.1"])) == "good"
    for kind in ("DMA", "DMA-FQ", "blocked", "unmanaged", "auto", ""):
        answer = driver.judge_group("0000:00:01.0", kind, [])
        assert state(answer) == "blocks"
        assert "iommu=pt" in answer.remedy
        assert state(driver.judge_group("0000:00:01.0", kind, [], None, by_uio=False)) == "good"
        by_uio = driver.judge_group("0000:00:01.0", kind, [], None)
        assert state(by_uio) == "blocks"
        assert "pyuio bind 0000:00:01.0 --driver vfio-pci" in by_uio.remedy


def test_iommu_without_a_device() -> None:
    assert state(driver.judge_groups({})) == "good"
    assert state(driver.judge_groups({"0": "identity", "1": "identity"})) == "good"
    answer = driver.judge_groups({"0": "identity", "1": "DMA-FQ", "2": "DMA-FQ"})
    assert state(answer) == "advice"
    assert "2 DMA-FQ, 1 identity" in answer.found
    assert state(driver.judge_groups({"1": "DMA"}, None)) == "good"


# -- one device --


def test_bars() -> None:
    there = Bar(0, "memory", 32, False, 0xFEA00000, 0x1000)
    lost = Bar(2, "memory", 64, True, 0, 1 << 34)
    assert state(device.judge_bars("d", ())) == "good"
    assert state(device.judge_bars("d", (there,))) == "good"
    answer = device.judge_bars("d", (there, lost))
    assert state(answer) == "blocks"
    assert "BAR 2" in answer.found
    assert "BAR 0" not in answer.found


@pytest.mark.parametrize(
    ("pin", "irq", "expected"),
    [(0, 0, "blocks"), (0, 11, "blocks"), (1, 0, "blocks"), (1, 11, "good"), (4, 5, "good"), (255, 11, "unknown")],
)
def test_pins(pin: int, irq: int, expected: str) -> None:
    assert state(device.judge_pin("d", pin, irq, enabled=True)) == expected


def test_a_pin_that_the_kernel_has_not_routed_yet() -> None:
    assert state(device.judge_pin("d", 1, 0, enabled=False)) == "unknown"
    assert state(device.judge_pin("d", 0, 0, enabled=False)) == "blocks"
    assert state(device.judge_pin("d", 1, 11, enabled=False)) == "good"


def test_vectors() -> None:
    assert "INTA#, MSI-X 5" in device.judge_vectors("d", 1, {"MSI-X": 5}, visible=True).found
    assert state(device.judge_vectors("d", 0, {"MSI": 1}, visible=True)) == "good"
    assert state(device.judge_vectors("d", 0, {}, visible=True)) == "blocks"
    assert state(device.judge_vectors("d", 0, {}, visible=False)) == "unknown"


def test_power_saving_on_a_link() -> None:
    policy = "[default] performance powersave powersupersave"
    assert state(device.judge_aspm(policy, {"l0s_aspm": "0", "l1_aspm": "0"})) == "good"
    answer = device.judge_aspm(policy, {"l0s_aspm": "0", "l1_aspm": "1"})
    assert state(answer) == "advice"
    assert answer.found.endswith("l1")
    assert state(device.judge_aspm("", {})) == "good"


def test_faults_of_an_iommu() -> None:
    # The first two were recorded in a guest; the others are as the kernel's sources print them.
    intel = "DMAR: [DMA Write NO_PASID] Request device [00:01.0] fault addr 0x5000 [fault reason 0x05] PTE Write access"
    read = "DMAR: [DMA Read NO_PASID] Request device [00:01.0] fault addr 0x6000 [fault reason 0x06] PTE Read access"
    old = "DMAR: [DMA Write] Request device [00:01.0] PASID ffffffff fault addr 7000 [fault reason 05] PTE Write access"
    amd = "vfio-pci 0000:00:01.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000a address=0x8000 flags=0x0020]"
    early = "AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:00:01.0 domain=0x000a address=0x9000 flags=0x0000]"
    others = ["DMAR: DRHD: handling fault status reg 2", intel.replace("00:01.0", "00:11.0"), "", "DMAR: ["]
    log = [Message(float(n), text) for n, text in enumerate([*others, intel, read, old, amd, early])]
    found = iommu_faults.faults_of("0000:00:01.0", log)
    assert [(one.write, one.address) for one in found] == [
        (True, 0x5000),
        (False, 0x6000),
        (True, 0x7000),
        (True, 0x8000),
        (False, 0x9000),
    ]
    assert state(iommu_faults.judge_faults("d", [], 10)) == "good"
    answer = iommu_faults.judge_faults("d", found[:2], 15)
    assert state(answer) == "advice"
    assert "logged that 2 times" in answer.found
    assert answer.found.endswith("the last was 10 s ago, to read 0x6000")
    assert "logged that 1 time," in iommu_faults.judge_faults("d", found[:1], 15).found


def test_faults_of_an_smmu() -> None:
    """An event takes five lines; those of another SMMU, and of other kinds, may stand between them."""

    def event(smmu: str, number: int, stream: int, more: int, address: int) -> list[str]:
        words = (stream << 32 | number, more, address, 0)
        begin = f"arm-smmu-v3 {smmu}: "
        return [f"{begin}event 0x{number:02x} received:", *(f"{begin}\t0x{word:016x}" for word in words)]

    write, read = event("9050000.smmuv3", 0x10, 8, 2 << 32, 0x5000), event("9050000.smmuv3", 0x13, 8, 10 << 32, 0x6000)
    lines = [*write[:3], *event("a.smmuv3", 0x10, 9, 0, 0x7000), *write[3:], *event("9050000.smmuv3", 0x02, 8, 0, 0)]
    log = [Message(float(n), text) for n, text in enumerate([*lines, *read, "arm-smmu-v3 b: \t0x0000000000000000"])]
    wanted = [(True, 0x5000), (False, 0x6000)]
    for stream in (None, 8):
        found = iommu_faults.faults_of("0000:00:01.0", log, stream)
        assert [(one.write, one.address) for one in found] == wanted
    assert iommu_faults.faults_of("0000:00:01.0", log, 0x108) == []
    assert [one.address for one in iommu_faults.faults_of("0000:02:01.0", log, 9)] == [0x7000]


@given(st.text(), st.text())
def test_any_text_in_the_log(device: str, text: str) -> None:
    message = parse_record(text)
    iommu_faults.faults_of(device, [Message(0, text), *([message] if message else [])])
    assert parse_record("6,1234,1559209,-;pci: text, more\n SUBSYSTEM=pci") == Message(1.559209, "pci: text, more")
    assert parse_record(r"6,1,1559209,-;\x09a\x5cx09 \xc3\xa4 \xff") == Message(1.559209, "\ta\\x09 \xe4 \ufffd")


# -- memory --


def test_hugepages() -> None:
    assert state(memory.judge_hugepages({}, True, "")) == "advice"
    assert state(memory.judge_hugepages({HUGE: (4, 1), GIGANTIC: (0, 0)}, False, "")) == "good"
    for free in (0, -1):  # `free` excludes reserved hugepages, so it can be negative
        for root in (True, False):
            answer = memory.judge_hugepages({HUGE: (4, free)}, root, "echo 20 > nr_hugepages")
            assert state(answer) == "advice"
            assert answer.remedy.startswith("echo 20 > nr_hugepages")
            assert ("may not" in answer.found) != root


def test_locked_memory() -> None:
    mapped = 100 << 20
    assert state(memory.judge_locked_memory(0, True, mapped)) == "good"
    assert state(memory.judge_locked_memory(None, False, mapped)) == "good"
    assert state(memory.judge_locked_memory(1 << 30, False, mapped)) == "good"
    answer = memory.judge_locked_memory(8 << 20, False, mapped)
    assert state(answer) == "advice"
    assert "8192 KiB" in answer.found
    assert "memlock unlimited" in answer.remedy
    assert memory.parse_mapped("VmPeak:\t  9 kB\nVmSize:\t   48664 kB\n") == 48664 << 10
    for text in ("", "VmSize:", "VmSize:\t12 MB"):
        with pytest.raises(ValueError, match="VmSize"):
            memory.parse_mapped(text)


def test_transparent_hugepages() -> None:
    assert state(memory.judge_transparent(None)) == "good"
    assert state(memory.judge_transparent("always [madvise] never")) == "good"
    assert state(memory.judge_transparent("always madvise [never]")) == "good"
    assert state(memory.judge_transparent("[always] madvise never")) == "advice"
    assert state(memory.judge_transparent("always")) == "unknown"


# -- scheduling --


def test_preemption() -> None:
    assert state(scheduling.judge_preemption("PREEMPT_RT", "")) == "good"
    for model in ("full", "lazy", "voluntary", "none"):
        answer = scheduling.judge_preemption(model, "")
        assert state(answer) == "advice"
        assert ("preempt=full" in answer.remedy) == (model != "full")
    assert state(scheduling.judge_preemption(None, "#1 SMP")) == "unknown"


def test_priorities() -> None:
    assert state(scheduling.judge_priority(0, True)) == "good"
    assert state(scheduling.judge_priority(99, False)) == "good"
    assert state(scheduling.judge_priority(89, False)) == "good"
    for limit in (88, 1, 0):
        assert state(scheduling.judge_priority(limit, False)) == "advice"


def test_throttling() -> None:
    assert state(scheduling.judge_throttling("-1", "1000000")) == "good"
    assert state(scheduling.judge_throttling("1000000", "1000000")) == "good"
    assert state(scheduling.judge_throttling("950000", "1000000")) == "advice"
    assert state(scheduling.judge_throttling("0", "1000000")) == "advice"
    with pytest.raises(ValueError, match="invalid literal"):
        scheduling.judge_throttling("", "1000000")


def test_fair_servers() -> None:
    assert state(scheduling.judge_fair_servers([])) == "good"
    assert state(scheduling.judge_fair_servers([(0, "0", "1000000000")])) == "good"
    answer = scheduling.judge_fair_servers([(0, "0", "1000000000"), (1, "50000000", "1000000000")])
    assert state(answer) == "advice"
    assert "on 1 CPUs" in answer.found
    assert "50000 of each 1000000 us" in answer.found


def test_releases() -> None:
    assert scheduling.parse_release("6.1.0-56-amd64") == (6, 1)
    assert scheduling.parse_release("6.12") == (6, 12)
    with pytest.raises(ValueError, match="begins with two numbers"):
        scheduling.parse_release("next")


def test_control_groups() -> None:
    version_1 = "9:name=systemd:/\n3:cpuset:/a\n1:cpu,cpuacct:/user/x:y\n0::/unified\nodd\n"
    assert scheduling.parse_group(version_1, "cpu") == "/user/x:y"
    assert scheduling.parse_group(version_1, "") == "/unified"
    assert scheduling.parse_group("2:cpuset:/a\n", "cpu") is None
    mounts = (
        "31 23 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
        "33 23 0:29 / /sys/fs/cgroup/cpuset rw shared:10 - cgroup cgroup rw,cpuset\n"
        "34 23 0:30 / /sys/fs/cgroup/cpu rw shared:10 - cgroup cgroup rw,cpu,cpuacct\ncut short"
    )
    assert scheduling.parse_group_mount(mounts, "cpu") == Path("/sys/fs/cgroup/cpu")
    assert scheduling.parse_group_mount(mounts, "") == Path("/sys/fs/cgroup/unified")
    assert scheduling.parse_group_mount("", "cpu") is None


def test_groups_and_real_time() -> None:
    where = Path("/sys/fs/cgroup/cpu/x/cpu.rt_runtime_us")
    assert state(scheduling.judge_runtime("950000", where)) == "good"
    assert state(scheduling.judge_runtime("-1", where)) == "good"
    assert state(scheduling.judge_runtime("0", where)) == "advice"
    group = Path("/sys/fs/cgroup/user.slice")
    grouped = {"CONFIG_RT_GROUP_SCHED": "y"}
    assert state(scheduling.judge_unified(grouped, {}, group)) == "advice"
    assert state(scheduling.judge_unified(grouped, {"rt_group_sched": "0"}, group)) == "good"
    assert state(scheduling.judge_unified({"CONFIG_UIO": "m"}, {}, group)) == "good"
    assert state(scheduling.judge_unified(None, {}, group)) == "unknown"


# -- processors --


def test_count_clock_and_hypervisor() -> None:
    assert state(processors.judge_count((0,))) == "advice"
    assert state(processors.judge_count((0, 1))) == "good"
    assert state(processors.judge_hypervisor(None)) == "good"
    assert state(processors.judge_hypervisor("QEMU")) == "advice"
    for source in ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"):
        assert state(processors.judge_clock(source, None)) == "good"
    for source in ("hpet", "acpi_pm", "jiffies"):
        answer = processors.judge_clock(source, "tsc hpet acpi_pm")
        assert state(answer) == "advice"
        assert "clocksource=tsc" in answer.remedy
    assert state(processors.judge_clock(None, "tsc")) == "unknown"


def test_threads_of_a_core() -> None:
    assert state(processors.judge_smt(None)) == "good"
    assert state(processors.judge_smt("0")) == "good"
    assert state(processors.judge_smt("1")) == "advice"
    assert state(processors.judge_smt("")) == "unknown"


def test_governors() -> None:
    assert state(processors.judge_governors({})) == "good"
    assert state(processors.judge_governors({0: "performance", 1: "performance"})) == "good"
    answer = processors.judge_governors({0: "performance", 1: "powersave", 2: "schedutil"})
    assert state(answer) == "advice"
    assert "powersave, schedutil on 2 of 3 CPUs" in answer.found


def test_idle_states() -> None:
    poll, c1 = processors.IdleState("POLL", 0, False), processors.IdleState("C1", 2, False)
    c6, c6_off = processors.IdleState("C6", 133, False), processors.IdleState("C6", 133, True)
    assert state(processors.judge_idle("none", {0: [], 1: []})) == "good"
    assert state(processors.judge_idle(None, {})) == "good"
    assert state(processors.judge_idle("intel_idle", {0: [poll, c1, c6_off]})) == "good"
    answer = processors.judge_idle("intel_idle", {0: [poll, c1, c6_off], 1: [poll, c1, c6]})
    assert state(answer) == "advice"
    assert "C6 takes 133 us" in answer.found
    assert "intel_idle.max_cstate=1" in answer.remedy
    assert "intel_idle" not in processors.judge_idle("acpi_idle", {0: [c6]}).remedy


def test_isolation() -> None:
    four = (0, 1, 2, 3)
    assert processors.judge_isolation((0,), ()) is None
    assert state(processors.judge_isolation(four, (2, 3))) == "good"
    assert state(processors.judge_isolation(four, None)) == "unknown"
    answer = processors.judge_isolation(four, ())
    assert answer is not None
    assert state(answer) == "advice"
    assert "isolcpus=managed_irq,domain,3" in answer.remedy


def test_ticks() -> None:
    four = (0, 1, 2, 3)
    assert processors.judge_ticks((0,), (), ()) is None
    assert state(processors.judge_ticks(four, (2, 3), None)) == "advice"
    assert state(processors.judge_ticks(four, (2, 3), (2, 3))) == "good"
    for tickless in ((), (3,)):
        answer = processors.judge_ticks(four, (2, 3), tickless)
        assert answer is not None
        assert state(answer) == "advice"
        assert "nohz_full=2-3" in answer.remedy


def test_callbacks() -> None:
    four = (0, 1, 2, 3)
    assert processors.judge_callbacks((0,), (), (), "") is None
    assert state(processors.judge_callbacks(four, (3,), (), "rcu_nocbs=3")) == "good"
    assert state(processors.judge_callbacks(four, (3,), (), "rcu_nocbs")) == "good"
    assert state(processors.judge_callbacks(four, (3,), (3,), "")) == "good"
    assert state(processors.judge_callbacks(four, (2, 3), (3,), "")) == "advice"
    assert state(processors.judge_callbacks(four, (), None, "quiet -- rcu_nocbs=3")) == "advice"


# -- interrupts --


def test_lines() -> None:
    assert parse_line(PROC_INTERRUPTS, 0) == (77, ["timer"])
    assert parse_line(PROC_INTERRUPTS, 16) == (9, ["uio_pci_generic", "uio_pci_generic", "ahci[0000:00:1f.2]"])
    assert parse_line(PROC_INTERRUPTS, 22) == (0, [])
    assert parse_line(PROC_INTERRUPTS, 27) == (1753, ["virtio1-requests"])
    assert parse_line(PROC_INTERRUPTS, 17) is None
    assert parse_line("", 0) is None
    arm = "           CPU0       CPU1\n"
    arm += " 20:          1          2     GICv3  35 Level     uio_pci_generic, uio_pci_generic\n"
    arm += " 21:          1          0   ITS-MSI 262144 Edge      PCIe PME, aerdrv\n"
    arm += " 22:          0          0     GICv3  36 Level\n"
    arm += " 23:          4          0     GICv3  37 Level    -demux     one\n"
    assert parse_line(arm, 20) == (3, ["uio_pci_generic", "uio_pci_generic"])
    assert parse_line(arm, 21) == (1, ["PCIe PME", "aerdrv"])
    assert parse_line(arm, 22) == (0, [])
    assert parse_line(arm, 23) == (4, ["one"])
    for length in range(len(PROC_INTERRUPTS)):
        parse_line(PROC_INTERRUPTS[:length], 16)


def test_shared_lines() -> None:
    assert state(interrupts.judge_line(16, ["uio_pci_generic"], "uio_pci_generic", frozenset({1}))) == "good"
    answer = interrupts.judge_line(
        16, ["uio_pci_generic", "uio_pci_generic", "ahci"], "uio_pci_generic", frozenset({1})
    )
    assert state(answer) == "advice"
    assert answer.found == "interrupt 16, which goes to CPU 1, shared with uio_pci_generic, ahci"
    assert state(interrupts.judge_line(16, ["ahci"], "uio_pci_generic", frozenset())) == "advice"


def test_interrupts_on_isolated_cpus() -> None:
    found, four = {1: frozenset({0}), 16: frozenset({0, 3}), 24: frozenset({3})}, (0, 1, 2, 3)
    assert "CPU 0: 2, CPU 3: 2" in interrupts.judge_affinities(found, four, ()).found
    assert state(interrupts.judge_affinities(found, four, ())) == "good"
    assert state(interrupts.judge_affinities(found, four, (1, 2))) == "good"
    answer = interrupts.judge_affinities(found, four, (2, 3))
    assert state(answer) == "advice"
    assert answer.found.endswith("16, 24")
    assert "irqaffinity=0-1 isolcpus=managed_irq,domain,2-3" in answer.remedy
    assert state(interrupts.judge_affinities({}, four, ())) == "good"


def test_interrupt_threads() -> None:
    assert state(interrupts.judge_thread("irq/21-uio", 170, 50)) == "advice"
    assert state(interrupts.judge_thread("irq/21-uio", 170, 95)) == "good"


# -- all of them --


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    driver.judge_lockdown(text, None)
    driver.judge_modprobe(0, text)
    driver.judge_modprobe(1, text)
    driver.find_bar_to_loading(text, text)
    memory.judge_transparent(text)
    device.judge_aspm(text, {text: text})
    processors.judge_smt(text)
    processors.judge_clock(text, text)
    scheduling.parse_group(text, "cpu")
    scheduling.parse_group_mount(text, "cpu")
    parse_line(text, 1)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/sys/x"),
        PermissionError(errno.EACCES, "Permission denied", "/sys/x"),
        PermissionDeniedError(errno.EACCES, "reading /sys/x: Permission denied"),
        DeviceRemovedError(errno.ENODEV, "reading /sys/x: No such device"),
        OSError(errno.EIO, "Input/output error", "/sys/x"),
        ValueError("/sys/x has an odd form"),
        subprocess.TimeoutExpired(["/sys/x"], 30),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_goes_wrong_is_unknown_with_the_reason(error: Exception) -> None:
    def fail() -> Answer:
        raise error

    finding = Check("name", "subject", "why", box(fail)).run(None)
    assert finding is not None
    assert finding.state == "unknown"
    assert "/sys/x" in finding.found
    assert "Errno" not in finding.found
    assert ("root" in finding.remedy) == (isinstance(error, PermissionError) and os.geteuid() != 0)


def test_a_mistake_of_ours_is_not_hidden() -> None:
    def fail() -> Answer:
        raise TypeError("a mistake")

    with pytest.raises(TypeError):
        Check("name", "subject", "why", box(fail)).run(None)


def test_only_what_blocks_makes_it_fail() -> None:
    def finding(state: str) -> Finding:
        return Finding("name", "subject", state, "found", "why")  # type: ignore[arg-type]

    assert not something_blocks([])
    assert not something_blocks([finding("good"), finding("advice"), finding("unknown")])
    assert something_blocks([finding("good"), finding("blocks")])


def test_long_lists_are_cut() -> None:
    assert counted(["a", "b"]) == "a, b"
    assert counted([str(number) for number in range(10)]) == "0, 1, 2, 3, 4, 5, 6, 7 and 2 more"


def test_this_box() -> None:
    findings = examine()
    assert len({finding.name for finding in findings}) == len(findings)
    for finding in findings:
        assert finding.state in ("good", "advice", "blocks", "unknown")
        assert finding.found
        assert finding.remedy or finding.state in ("good", "unknown"), finding
    with pytest.raises(ValueError, match="does not name a device"):
        examine("/nonsense")
    with pytest.raises(LookupError):
        examine("ffff:1f:1f.7")


def test_every_check_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/doctor.md").read_text().split("## JSON")[0]
    documented = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert documented == [check.name for check in CHECKS]
    for check in CHECKS:
        assert check.why.endswith(".")
        assert check.why.count(". ") == 0, "one sentence"
