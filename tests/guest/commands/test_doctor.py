# SPDX-License-Identifier: MIT
"""The doctor's findings, compared with the kernel's files, before and after a real change of the machine."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from pyuio_drivers.edu import Edu

import pyuio
from pyuio.claim import binding
from pyuio.doctor import CHECKS, Finding, examine, facts, something_blocks
from pyuio.kernel.drivers import load_driver
from pyuio.kernel.hugepages import hugepages
from pyuio.kernel.preempt_rt import is_realtime
from pyuio.pci.discovery import find
from tests.guest.commands.in_process import command_here
from tests.guest.support import (
    EDU,
    PCI_SERIAL,
    PCI_TESTDEV,
    PROCESSOR,
    PROGRAM_LIMIT,
    Cards,
    attribute,
    current_drivers,
    interrupt_threads,
    raise_and_wait,
    wait_until,
)

NOBODY = 65534
CPU = Path("/sys/devices/system/cpu")
RT = "PREEMPT_RT" in os.uname().version
# Since Linux 6.12 it gives time to ordinary threads, instead of RT throttling.
HAS_FAIR_SERVER = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 12)


def finding(name: str, device: str | None = None) -> Finding:
    """Return the finding of the one check of this name, because all checks take a second under emulation."""
    (check,) = [check for check in CHECKS if check.name == name]
    found = check.run(None if device is None else find(device))
    assert found is not None
    assert found.name == name
    return found


def names(device: str | None = None) -> list[str]:
    return [finding.name for finding in examine(device)]


def shell(command: str) -> None:
    subprocess.run(["sh", "-ec", command], check=True, timeout=PROGRAM_LIMIT)


@contextmanager
def changed(path: str, text: str) -> Iterator[None]:
    """Write a text to a file of the kernel, and the former text after the ``with`` block."""
    file = Path(path)
    before = file.read_text()
    file.write_text(text)
    try:
        yield
    finally:
        # If there are several words, the word in brackets is in force.
        chosen = re.search(r"[\[(](\w+)[\])]", before)
        file.write_text(chosen[1] if chosen else before)


@contextmanager
def bound(*addresses: str) -> Iterator[None]:
    undo = [binding.bind(address) for address in addresses]
    try:
        yield
    finally:
        for each in undo:
            each.undo()


# -- the box --


def test_facts_agree_with_the_kernel() -> None:
    assert is_realtime() == RT
    assert (facts.preemption() == "PREEMPT_RT") == RT
    clock = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    assert finding("clock_source").found.split(";")[0] == clock == facts.clock_source()
    assert f"{os.sysconf('SC_NPROCESSORS_ONLN')} CPU" in finding("cpu_count").found
    if PROCESSOR == "x86_64":  # elsewhere there need be no such table of the firmware's
        vendor = Path("/sys/class/dmi/id/sys_vendor").read_text().strip()
        assert (
            f"({vendor})" in finding("virtual_machine").found or "hypervisor" not in Path("/proc/cpuinfo").read_text()
        )
    if not any(CPU.glob("cpu*/cpufreq/scaling_governor")):
        assert facts.governors() == {}
        assert finding("governor").state == "good"
    if not any(CPU.glob("cpu*/cpuidle/state*")):
        assert finding("idle_states").state == "good"


def test_throttling_of_real_time_threads() -> None:
    if HAS_FAIR_SERVER:
        limits = [str(path) for path in Path("/sys/kernel/debug/sched/fair_server").glob("cpu*/runtime")]
        some, allowed, off = "70000000", "70000 of each 1000000 us", "0"  # nanoseconds
    else:
        limits = ["/proc/sys/kernel/sched_rt_runtime_us"]
        some, allowed, off = "700000", "700000 of each 1000000 us", "-1"
    if HAS_FAIR_SERVER:  # other tests read what has Linux 6.12 refuse it; the doctor, from here on, does not
        for word in ("0", "1"):
            (CPU / "cpu1/online").write_text(word)
        assert finding("rt_group").state == "good"
    with ExitStack() as stack:
        for path in limits:
            stack.enter_context(changed(path, some))
        throttled = finding("rt_throttling")
        assert throttled.state == "advice"
        assert allowed in throttled.found
        if HAS_FAIR_SERVER:
            assert "(if it says busy, switch a CPU off and on first)" in throttled.remedy
        for path in limits:
            stack.enter_context(changed(path, off))
        assert finding("rt_throttling").state == "good"


def test_hugepages_come_with_the_remedy() -> None:
    if any(size.total for size in hugepages()):
        pytest.skip("hugepages are in use")
    pages = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
    before = finding("hugepages")
    assert before.state == "advice"
    try:
        shell(before.remedy.split(", as root")[0])
        assert int((pages / "nr_hugepages").read_text()) == 16
        after = finding("hugepages")
        assert after.state == "good"
        assert f"2048 kB: 16, {(pages / 'free_hugepages').read_text().strip()} free" in after.found
    finally:
        (pages / "nr_hugepages").write_text("0")
    assert finding("hugepages").state == "advice"


def test_transparent_hugepages() -> None:
    path = "/sys/kernel/mm/transparent_hugepage/enabled"
    if not Path(path).exists():
        assert finding("transparent_hugepages").found == "this kernel has none"
        pytest.skip("this kernel has no transparent hugepages")
    for mode, expected in (("always", "advice"), ("madvise", "good"), ("never", "good")):
        with changed(path, mode):
            found = finding("transparent_hugepages")
            assert (found.state, found.found.split(":")[0]) == (expected, mode)


@pytest.mark.long  # the kernel patches its own code on all processors, which stops an old QEMU: docs/findings.md
def test_preemption_follows_a_change_while_the_kernel_runs() -> None:
    debug = Path("/sys/kernel/debug/sched/preempt")
    if not debug.exists():
        assert finding("preemption").state == ("good" if RT else "advice")
        pytest.skip("this kernel cannot change it")
    for model in ("full", "voluntary", "none"):
        with changed(str(debug), model):
            found = finding("preemption")
            assert found.state == "advice"
            assert found.found.startswith(model)


def test_a_slow_clock() -> None:
    source = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    slow = [name for name in ("hpet", "acpi_pm") if name in Path(source.replace("current", "available")).read_text()]
    if not slow:
        pytest.skip("there is no slow clock here")
    assert finding("clock_source").state == "good"
    with changed(source, slow[0]):
        found = finding("clock_source")
        assert found.state == "advice"
        assert found.found.startswith(slow[0])
    assert finding("clock_source").state == "good"


def test_one_cpu() -> None:
    switch = CPU / "cpu1/online"
    if os.sysconf("SC_NPROCESSORS_ONLN") != 2 or not switch.exists():
        pytest.skip("there are not two CPUs, of which one can be switched off")
    assert finding("cpu_count").state == "good"
    with changed(str(switch), "0"):
        assert finding("cpu_count").state == "advice"
        assert not {"isolated_cpus", "tickless_cpus", "rcu_callbacks"} & set(names())


def test_irqbalance_is_seen(tmp_path: Path) -> None:
    assert finding("irqbalance").state == "good"
    program = shutil.copy(shutil.which("sleep") or "", tmp_path / "irqbalance")
    with subprocess.Popen([program, "60"]) as process:
        try:
            found = finding("irqbalance")
            assert found.state == "advice"
            assert f"process {process.pid}" in found.found
        finally:
            process.kill()


# -- UIO --


def test_the_module() -> None:
    if any(driver == "uio_pci_generic" for driver in current_drivers().values()):
        pytest.skip("uio_pci_generic is in use")
    override = Path("/etc/modprobe.d/pyuio-test.conf")
    shell("modprobe uio_pci_generic")
    assert finding("uio_pci_generic").found.startswith("loaded")
    shell("modprobe -r uio_pci_generic")
    try:
        there = finding("uio_pci_generic")
        assert there.state == "good"
        assert there.found.startswith("not loaded")
        override.write_text("install uio_pci_generic /bin/false\n")
        replaced = finding("uio_pci_generic")
        assert replaced.state == "blocks"
        with pytest.raises(pyuio.PyuioError):
            load_driver("uio_pci_generic")
    finally:
        override.unlink(missing_ok=True)
        shell("modprobe uio_pci_generic")


def test_binding_changes_what_is_found(edu: str) -> None:
    before = {finding.name: finding for finding in examine(edu)}
    assert "no kernel driver" in before["bound_driver"].found
    assert before["interrupt_line"].state == "unknown"
    with bound(edu):
        node = next(Path(f"/sys/bus/pci/devices/{edu}/uio").iterdir()).name
        after = {finding.name: finding for finding in examine(edu)}
        assert after["bound_driver"].found.endswith(f"as /dev/{node}")
        assert re.match(rf"interrupt {attribute(edu, 'irq')},", after["interrupt_line"].found)
        assert finding("bound_driver", node) == after["bound_driver"]
        assert ("interrupt_thread" in after) == bool(interrupt_threads(attribute(edu, "irq")))
        assert not [each for each in after.values() if each.state == "blocks"]


def test_a_device_of_another_driver_and_the_remedy(cards: Cards) -> None:
    address = cards(PCI_SERIAL)[0]
    driver = current_drivers()[address]
    if driver is None:
        pytest.skip("no kernel driver has it")
    held = finding("bound_driver", address)
    assert held.state == "advice"
    assert held.found.startswith(f"{driver} has {address}")
    device = Path("/sys/bus/pci/devices", address)
    try:
        shell(held.remedy.split("as root: ")[1])
        assert finding("bound_driver", address).found.startswith("uio_pci_generic has")
    finally:
        (device / "driver_override").write_text("\n")
        (device / "driver/unbind").write_text(address)
        Path("/sys/bus/pci/drivers", driver, "bind").write_text(address)


def test_no_interrupt_pin(cards: Cards) -> None:
    assert finding("interrupt_pin", cards(PCI_TESTDEV)[0]).state == "blocks"
    edu = finding("interrupt_pin", cards(EDU)[0])
    with Path("/sys/bus/pci/devices", cards(EDU)[0], "config").open("rb") as file:
        pin = file.read(64)[0x3D]
    assert edu.found.endswith(f"has INT{' ABCD'[pin]}#")


def test_a_shared_line(cards: Cards) -> None:
    addresses = cards(EDU)
    if len(addresses) < 2:
        pytest.skip("there is only one edu card")
    with bound(addresses[0]):
        assert finding("interrupt_line", addresses[0]).state == "good"
        with bound(addresses[1]):
            assert attribute(addresses[0], "irq") == attribute(addresses[1], "irq")
            shared = finding("interrupt_line", addresses[0])
            assert shared.state == "advice"
            assert shared.found.endswith("shared with uio_pci_generic")
        assert finding("interrupt_line", addresses[0]).state == "good"


def test_an_interrupt_that_is_steered(card: Edu, edu: str) -> None:
    irq = attribute(edu, "irq")
    effective = Path(f"/proc/irq/{irq}/effective_affinity_list")
    if os.sysconf("SC_NPROCESSORS_ONLN") < 2 or not effective.exists():
        pytest.skip("there is one CPU, or the kernel does not tell")
    for cpu in ("1", "0"):
        Path(f"/proc/irq/{irq}/smp_affinity_list").write_text(cpu)

        def moved(cpu: str = cpu) -> bool:
            # Some controllers move an interrupt only when the next one comes.
            card.device.interrupt.unmask()
            raise_and_wait(card)
            card.acknowledge()
            return effective.read_text().strip() == cpu

        wait_until(moved)
        assert f"goes to CPU {cpu}" in finding("interrupt_line", edu).found
    Path(f"/proc/irq/{irq}/smp_affinity_list").write_text(f"0-{os.sysconf('SC_NPROCESSORS_ONLN') - 1}")


def test_the_interrupt_thread(edu: str) -> None:
    with bound(edu):
        if not interrupt_threads(attribute(edu, "irq")):
            pytest.skip("interrupts are no threads here")
        before = finding("interrupt_thread", edu)
        assert before.state == "advice"
        assert before.found.endswith("has priority 50")
        thread = int(re.findall(r"process (\d+)", before.found)[0])
        assert f"irq/{attribute(edu, 'irq')}-" in Path(f"/proc/{thread}/comm").read_text()
        shell(before.remedy.split(",")[0])
        assert os.sched_getparam(thread).sched_priority == 95
        after = finding("interrupt_thread", edu)
        assert after.state == "good"
        assert after.found.endswith("has priority 95")


# -- an ordinary user --


def as_nobody(device: str, memlock: int, priority: int) -> tuple[dict[str, Finding], bool]:
    """Return an ordinary user's findings under these limits, and whether the kernel gives that user priority 89."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(writer, "w") as answer:
            try:
                resource.setrlimit(resource.RLIMIT_MEMLOCK, (memlock, memlock))
                resource.setrlimit(resource.RLIMIT_RTPRIO, (priority, priority))
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                findings = [asdict(each) for each in examine(device)]
                try:
                    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(89))
                    allowed = True
                except PermissionError:
                    allowed = False
                json.dump([findings, allowed], answer)
                answer.flush()
            finally:
                os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        findings, allowed = json.load(file)
    os.waitpid(child, 0)
    return {each["name"]: Finding(**each) for each in findings}, allowed


def test_an_ordinary_user_learns_what_is_missing(edu: str) -> None:
    with bound(edu):
        node = next(Path(f"/sys/bus/pci/devices/{edu}/uio").iterdir()).name
        poor, poor_allowed = as_nobody(edu, 1 << 20, 0)
        rich, rich_allowed = as_nobody(edu, resource.RLIM_INFINITY, 95)
        root = {each.name: each for each in examine(edu)}
    assert (poor["memlock"].state, poor["rtprio"].state) == ("advice", "advice")
    assert "1024 KiB" in poor["memlock"].found
    assert (rich["memlock"].state, rich["rtprio"].state) == ("good", "good")
    assert "up to 95" in rich["rtprio"].found
    assert (poor_allowed, rich_allowed) == (False, True)  # the kernel agrees
    for found in (poor, rich):
        assert found["permissions"].state == found["pagemap"].state == "blocks"
        assert f"/dev/{node}" in found["permissions"].found
        assert something_blocks(list(found.values()))
        # All checks run, and those that need no privilege give the same findings.
        assert list(found) == list(root)
        for name in ("iommu", "bars", "interrupt_pin", "interrupt_line", "clock_source", "irqbalance"):
            assert found[name] == root[name]
        if HAS_FAIR_SERVER:  # in debugfs, which only root may read
            assert found["rt_throttling"].state == "unknown"
            assert "as root" in found["rt_throttling"].remedy
        else:
            assert found["rt_throttling"] == root["rt_throttling"]
    for name in ("permissions", "pagemap", "memlock", "rtprio"):
        assert root[name].state == "good"


def test_the_command(edu: str) -> None:
    done = command_here("doctor", edu, "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert answer["device"] == edu
    assert answer["kernel"] == os.uname().release
    assert not [each for each in answer["findings"] if each["state"] == "blocks"]
