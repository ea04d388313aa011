# SPDX-License-Identifier: MIT
"""Runs the tests and ends with one line that counts them all: ``make test``.

``python -m tests.run [PART...] [-- PYTEST OPTIONS]``, where a part is one of

- lint: ruff, mypy, codespell, and import-linter: each folder of pyuio/ imports only from those below it
- docs: the documentation builds without a warning
- unit: tests/unit and tests/model, on this machine
- vm: tests/vm, which boot guests from this machine; without those of `cards` unless there are options
- cards: those of tests/vm whose guests are there for the cards in them
- guest: tests/guest, inside a guest with the devices below; without the commands unless there are options
- commands: tests/guest/commands, inside such a guest
- vfio: those of tests/guest that also run through VFIO, inside a guest with an IOMMU
- igb_uio: those of two drivers, inside a guest, by the kernel driver igb_uio
- long: what make test-long runs, `LONG`

- pythons: the unit tests on every CPython that is here (tests/pythons.py)
- wheels: a wheel for each of them, and the source distribution, in dist/ (tests/wheels.py)
- wheels-arm64: a wheel for Debian's Python on arm64, built and tested under emulation, and in a guest (tests/wheels.py)
- big-endian: the unit tests on s390x, under emulation (tests/emulated.py)
- sanitize: the tests that use the compiled parts, under AddressSanitizer and UBSan (tests/sanitize.py)
- fuzz: the parsers of bytes from outside, with bytes that atheris finds, for FUZZ_SECONDS (tests/fuzz)

Without a part, those of `WHOLE` run, three at any time, and the output of a part is printed when the part is done.
With ARCH=arm64 in the environment, the guests have such a processor, and the parts guest and vm are those of
`ON_ARM64`: make test-arm64. The IOMMU of the part vfio is then ARM's, SMMUv3.
Every part runs, even if others failed; the exit status is 0 only if all passed. What failed is printed once more at the
end, because a service that runs the tests may keep no more than that.
"""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyuio.vm import kernels, native_build, system
from pyuio.vm.architecture import ARCHITECTURES, ARM64
from pyuio.vm.errors import GuestError
from tests import access_trap, emulated, pythons, sanitize, shared_library, wheels
from tests.edu_mask import WIDE
from tests.fuzz import campaign
from tests.guest import (
    compiler,
    container_engines,
    containers,
    igb_uio,
    kernel_module,
    linux_uio,
    network_tools,
    pciutils,
    rt_tests,
    service_handler,
)

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
BUILD = ROOT / "build"
PARTS = (
    "lint",
    "docs",
    "unit",
    "vm",
    "cards",
    "guest",
    "commands",
    "vfio",
    "igb_uio",
    "long",
    "pythons",
    "wheels",
    "wheels-arm64",
    "big-endian",
    "sanitize",
    "fuzz",
)
WHOLE = ("guest", "vm", "unit", "commands", "vfio", "cards", "lint", "docs")  # longest first
SHOWN_LINES = 15  # of a part that failed without a test that did
AT_ONCE = 3  # parts at any time: each keeps a processor busy for two thirds of its time
BOTH = "long or not long"
# The parts of make test-long, with their options; tests that take minutes leave no processor idle, so two at any time.
LONG = (
    ("vm", "-m", "long"),
    ("guest", "-m", "long"),
    ("fuzz",),
    ("pythons",),
    ("vfio", "-m", BOTH),
    ("unit", "-m", BOTH, "--hypothesis-profile=thorough"),
    ("igb_uio", "-m", BOTH),
)
LONG_AT_ONCE = 2
# In the environment of parts that run beside each other: a file that is locked until `rewrite_assertions` is done.
REWRITING = "PYUIO_TESTS_REWRITING"
COMMANDS = "tests/guest/commands"
CARDS = tuple(
    f"tests/vm/test_{name}.py" for name in ("card", "documented_output", "iommu", "nvme", "removal", "serial")
)
# What does not depend on the kernel driver. make test runs the first, make test-long all.
_OVER_VFIO = (
    *("masking", "test_edu.py", "test_program_run.py", "test_vfio.py", "test_dma_vfio.py", "test_iommufd.py"),
    *("test_containers.py", "commands/test_vfio.py"),
)
VFIO = tuple(f"tests/guest/{name}" for name in _OVER_VFIO)
VFIO_LONG = tuple(
    f"tests/guest/test_{name}.py"
    for name in (
        "asyncio",
        "container_engines",
        "crashes",
        "e1000e",
        "fork",
        "many_interrupts",
        "serial16550",
        "service",
        "threads",
        "wait_until",
    )
)
BY_IGB_UIO = ("tests/guest/test_edu.py", "tests/guest/test_serial16550.py")
# The guest's processor: amd64, or arm64 (make test-arm64).
ARCHITECTURE = ARCHITECTURES[os.environ.get("ARCH", "amd64")]
EDU = WIDE if ARCHITECTURE == ARM64 else "edu"
# What make test-arm64 runs of the parts guest and vm; of the part vfio it runs all that is not long.
_ON_ARM64 = (
    *("bars", "config", "dma", "edu", "edu_registers", "fork", "hotplug", "interrupt", "many_interrupts"),
    *("serial16550", "service", "system_calls", "uio_maps"),
)
_VM_ON_ARM64 = ("run", "arm64_code", "arm64_iommu", "platform", "nvme", "removal", "serial")
ON_ARM64 = {
    "guest": (
        "tests/guest/masking",
        *(f"tests/guest/test_{name}.py" for name in _ON_ARM64),
        *("tests/unit/test_access_count.py", "tests/unit/test_register_access.py"),  # under the trap
        "tests/unit/test_bus_error.py",
    ),
    "vm": tuple(f"tests/vm/test_{name}.py" for name in _VM_ON_ARM64),
}
OWN_MODULES = ("several_nodes", "edu_board")  # a file of C in tests/guest each
# Beside two other guests, the part guest takes a quarter less processor time so, and commands a tenth more.
ONE_THREAD = "--one-thread"
GUEST_LIMIT = 3600  # seconds, for the long tests on a busy machine; pytest-timeout ends a test that hangs long before

GUEST_DEVICES = (
    # Four slots apart, so that they share an interrupt line.
    f"{EDU},addr=08",
    "edu,addr=0c,dma_mask=0xffffffffffffffff",
    "pci-testdev",  # no INTx pin, memory and port BARs
    "sdhci-pci",  # two BARs of 256 bytes, which can share a page
    "sdhci-pci",
    "pci-serial",  # port BAR, and a kernel driver that has it from the start
    "qemu-xhci",  # PCI Express, 64-bit BAR
)
# Every kind of BAR but a 64-bit one, MSI-X, extended capabilities. A hub joins the two. A guest with a bridge boots;
# the others start from a saved state, so that the tests run both ways.
HUB = "--qemu=-netdev hubport,id=port0,hubid=0 -netdev hubport,id=port1,hubid=0"
NETWORK_CARDS = ("e1000e,netdev=port0", "e1000e,netdev=port1")
BEHIND_A_BRIDGE = (
    NETWORK_CARDS[0],
    "pcie-root-port,id=slot1,chassis=1,x-speed=5",  # a faster link does not come back after a reset of the bus
    f"{NETWORK_CARDS[1]},bus=slot1",
    # With one virtual function, when the kernel is told so.
    "pcie-root-port,id=slot2,chassis=2",
    "nvme-subsys,id=subsystem",
    "nvme,bus=slot2,serial=physical,subsys=subsystem,sriov_max_vfs=1,sriov_vq_flexible=2,sriov_vi_flexible=1",
    "pcie-root-port,id=slot3,chassis=3,x-speed=5",
    "tpci200,bus=slot3,addr=0.0,multifunction=on",  # two functions that share a bus
    "tpci200,bus=slot3,addr=0.1",
)


# The options of a guest with an IOMMU, by the name that the variable IOMMU gives.
IOMMUS = {
    "intel": (
        *("--append=intel_iommu=on", "--machine=q35,kernel-irqchip=split"),
        "--qemu=-device intel-iommu,intremap=on,caching-mode=on",
    ),
    "smmuv3": ("--machine=virt,gic-version=3,iommu=smmuv3",),  # of arm64
    # It does not remap interrupts. Its driver must be built in: Debian's is a module, which comes too late.
    "virtio": (
        "--append=vfio_iommu_type1.allow_unsafe_interrupts=1 iommufd.allow_unsafe_interrupts=1",
        "--qemu=-device virtio-iommu-pci",
    ),
}
WITH_IOMMU = IOMMUS[os.environ.get("IOMMU", "smmuv3" if ARCHITECTURE == ARM64 else "intel")]
EMPTY_DISK = "--qemu=-blockdev driver=null-co,node-name=zeros,size=67108864,read-zeroes=on"
VFIO_DEVICES = (
    f"{EDU},addr=08",
    "edu,addr=0c,dma_mask=0xffffffffffffffff",
    "pci-serial",
    "pci-testdev",
    *NETWORK_CARDS,
    "nvme,serial=one,drive=zeros",
)


def run_lint() -> bool:
    """Run the linters over the whole tree; return whether all are clean."""
    commands = (
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["codespell"],
        ["lint-imports", "--no-logo", "--no-cache"],
        ["mypy"],
    )
    failed = [command for command in commands if subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT).returncode]
    return not failed


def run_docs() -> bool:
    """Build the documentation in build/site; return whether there was neither error nor warning."""
    # The theme's warning about MkDocs 2 does not matter to those who build this site.
    variables = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [str(BIN / "mkdocs"), "build", "--strict"]
    built = subprocess.run(
        command, cwd=ROOT, env=variables, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    print(built.stdout if built.returncode else f"in {BUILD / 'site/index.html'}")
    return built.returncode == 0


def in_guest(
    command: list[str], kernel: str, output: Path, *options: str, bridge: bool = True, memory: str = "1G"
) -> list[str]:
    """Return the command that runs another one in a guest with all the devices, which can write to `output`."""
    cards = GUEST_DEVICES + (BEHIND_A_BRIDGE if bridge else NETWORK_CARDS)
    devices = [f"--device={card}" for card in cards]
    guest = [
        f"--arch={ARCHITECTURE.name}",
        f"--kernel={kernel}",
        f"--timeout={GUEST_LIMIT}",
        f"--out={output}",
        f"--memory={memory}",
    ]
    if COMMANDS not in command:
        guest.append(ONE_THREAD)
    return [str(BIN / "pyuio"), "vm", "run", *guest, *options, HUB, *devices, "--", *command]


def in_vfio_guest(command: list[str], kernel: str, output: Path) -> list[str]:
    """Return the command that runs another one in a guest with an IOMMU, which can write to `output`."""
    devices = [
        *WITH_IOMMU,
        EMPTY_DISK,
        HUB,
        *(f"--device={card}" for card in VFIO_DEVICES),
    ]
    guest = [
        f"--arch={ARCHITECTURE.name}",
        f"--kernel={kernel}",
        f"--timeout={GUEST_LIMIT}",
        f"--out={output}",
        "--memory=1G",
        ONE_THREAD,
    ]
    return [str(BIN / "pyuio"), "vm", "run", *guest, *devices, "--", *command]


def rewrite_assertions(tree: Path = ROOT) -> None:
    """Let pytest rewrite and cache the assertions of files that guests run: an emulated guest takes 40 s for it."""
    files = ["tests/guest", *map(str, sorted(tree.glob("tests/vm/*_guest.py")))]
    command = [str(BIN / "python"), "-m", "pytest", "--collect-only", "--quiet", *files]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    variables["PYTHONPATH"] = str(tree)
    # Ignore errors here: the guest reports them.
    subprocess.run(command, cwd=tree, env=variables, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def prepare_guest(kernel: str, long: bool) -> None:
    """Build and fetch into `BUILD` what the tests in a guest need, unless it is there already.

    Args:
        kernel: the guest's.
        long: also what only tests marked long need.
    """
    if ARCHITECTURE.foreign:
        tree = system.prepare(ARCHITECTURE, print).tree
        words = native_build.compiler(ARCHITECTURE, tree)
        for name, source in (("access_trap", access_trap.SOURCE), ("service_handler", service_handler.SOURCE)):
            shared_library.compiled(name, source, shared_library.KEPT, ARCHITECTURE.processor, words)
    if kernel in kernels.DEBIAN:
        version = kernels.prepare(kernel, print, architecture=ARCHITECTURE).version
        own = (kernel_module.Module(name, ROOT / f"tests/guest/{name}.c") for name in OWN_MODULES)
        kernel_module.build(version, BUILD / "modules", igb_uio.MODULE, *own)
        if long:
            linux_uio.build(version, BUILD / "modules")
        for tool in (rt_tests, pciutils, *((containers,) if long else ())):
            tool.fetch(tool.kept(ARCHITECTURE.processor), ARCHITECTURE)
        if long and not ARCHITECTURE.foreign:
            network_tools.fetch(BUILD / "network-tools")
            container_engines.fetch(container_engines.KEPT)
    if not ARCHITECTURE.foreign:
        access_trap.build(shared_library.KEPT)
        service_handler.build(shared_library.KEPT)
        compiler.build()


def pytest_command(part: str, options: list[str]) -> tuple[list[str], Path]:
    """Return the command that runs one part's tests, and the file of its results."""
    output = BUILD / part
    output.mkdir(parents=True, exist_ok=True)
    output.chmod(0o700)  # a guest of root writes nowhere else
    results = output / "results.xml"
    results.unlink(missing_ok=True)
    named = [option for option in options if option.split("::")[0].endswith(".py") or Path(ROOT, option).is_dir()]
    places = {
        "unit": ["tests/unit", "tests/model"],
        "commands": [COMMANDS],
        "cards": list(CARDS),
        "vfio": [*VFIO, *(VFIO_LONG if options else ())],
        "igb_uio": list(BY_IGB_UIO),
    }
    if ARCHITECTURE.foreign:
        places |= {name: list(files) for name, files in ON_ARM64.items()}
    where = [] if named else places.get(part, [f"tests/{part}"])
    if not options and not ARCHITECTURE.foreign:
        where += [f"--ignore={path}" for path in {"guest": (COMMANDS,), "vm": CARDS}.get(part, ())]
    command = [str(BIN / "python"), "-m", "pytest", f"--junitxml={results}", "-p", "no:cacheprovider", *where, *options]
    if part in ("guest", "commands", "vfio", "igb_uio"):
        if part == "igb_uio":
            os.environ["UIO_DRIVER"] = "igb_uio"
        kernel = os.environ.get("KERNEL", "debian")
        with (BUILD / "prepare.lock").open("w") as lock:  # the other part may do the same at this moment
            fcntl.flock(lock, fcntl.LOCK_EX)
            prepare_guest(kernel, "long" in " ".join(options).split())
        # To look for plugins in each package that is installed, and to load hypothesis, takes 8 s under emulation.
        command = ["env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", *command, "-p", "pytest_timeout"]
        if part == "vfio":
            command = in_vfio_guest(command, kernel, output)
        else:
            command = in_guest(command, kernel, output, bridge=part == "commands" or bool(options))
    if part != "unit":
        if REWRITING in os.environ:
            with Path(os.environ[REWRITING]).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH)
        else:
            rewrite_assertions()
    return command, results


def run_tests(part: str, options: list[str]) -> tuple[int, int, int]:
    """Run one part's tests; return how many passed, failed and were skipped. A part that aborts counts as a failure."""
    try:
        command, results = pytest_command(part, options)
    except (GuestError, OSError, subprocess.SubprocessError) as error:
        print(f"{part}: cannot be prepared: {error}", file=sys.stderr)
        return 0, 1, 0
    return counted(subprocess.run(command, cwd=ROOT, check=False).returncode, results)


def counted(status: int, results: Path) -> tuple[int, int, int]:
    """Return how many tests passed, failed and were skipped, from pytest's exit status and the file of its results."""
    if not results.exists():
        return 0, 1, 0
    suite = next(ElementTree.parse(results).getroot().iter("testsuite"))
    total, failures, errors, skipped = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
    failed = failures + errors
    # pytest ends with 1 if tests failed; any other status but 0 means a failure outside of a test.
    return total - failed - skipped, failed + (status not in (0, 1) or (status == 1 and failed == 0)), skipped


def run_sanitized(options: list[str]) -> tuple[int, int, int]:
    """Run the tests of the compiled parts under sanitizers; return the counts, with each report as a failure."""
    sums = (0, 0, 0)
    try:
        sanitize.build()
        for part in ("unit", "guest"):
            start = time.monotonic()
            output = BUILD / f"sanitize-{part}"
            command, variables = sanitize.pytest_command(part, options, output)
            if not command:
                continue
            shutil.rmtree(output, ignore_errors=True)
            output.mkdir(mode=0o700, parents=True)
            command = ["env", *(f"{name}={value}" for name, value in variables.items()), *command]
            if part == "guest":
                rewrite_assertions(sanitize.COPY)
                kernel = os.environ.get("KERNEL", "debian")
                command = in_guest(command, kernel, output, sanitize.GUEST_HUGEPAGES, memory=sanitize.GUEST_MEMORY)
            status = subprocess.run(command, cwd=sanitize.COPY, check=False).returncode
            passed, failed, skipped = counted(status, output / "results.xml")
            reports = sanitize.found(output)
            print(*reports, sep="\n", end="\n" * bool(reports))
            print(f"sanitize {part}: {passed} passed, {failed} failed, {len(reports)} reports", end=" ")
            print(f"({time.monotonic() - start:.0f} s, exit status {status})", flush=True)
            sums = (sums[0] + passed, sums[1] + failed + len(reports), sums[2] + skipped)
    except (sanitize.SanitizerError, OSError, subprocess.SubprocessError) as error:
        print(f"sanitize: cannot be prepared: {error}", file=sys.stderr)
        return sums[0], sums[1] + 1, sums[2]
    return sums


# These count as one test each.
AS_ONE_TEST = {"lint": run_lint, "docs": run_docs, "wheels": wheels.run}


def run_part(part: str, options: list[str]) -> tuple[int, int, int]:
    """Run one part, and return how many tests passed, failed and were skipped."""
    start, before = time.monotonic(), processor_time()
    if part in AS_ONE_TEST:
        clean = AS_ONE_TEST[part]()
        done = (int(clean), int(not clean), 0)
    elif part == "pythons":
        done = pythons.run(options, counted)
    elif part == "wheels-arm64":
        done = wheels.run_arm64(options, counted)
    elif part == "big-endian":
        done = emulated.run_big_endian(options, counted)
    elif part == "sanitize":
        done = run_sanitized(options)
    elif part == "fuzz":
        done = campaign.run(BUILD / "fuzz", float(os.environ.get("FUZZ_SECONDS", "600")), options)
    else:
        done = run_tests(part, options)
    took, busy = time.monotonic() - start, processor_time() - before
    counts = f"{done[0]} passed, {done[1]} failed, {done[2]} skipped"
    print(f"{part}: {counts} ({took:.0f} s, {busy:.0f} s of processor time)", flush=True)
    return done


def processor_time() -> float:
    """Return the seconds of processor time that this program and those that it has waited for took, QEMU included."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def run_beside_each_other(parts: Sequence[Sequence[str]], at_once: int) -> bool:
    """Run parts, each with its options, `at_once` at any time, each in its own process; return whether all passed."""
    printing = threading.Lock()
    failures: list[str] = []

    def run(words: Sequence[str]) -> tuple[int, int, int]:
        part, *options = words
        # The first part takes the longest, and so all of them do: the others leave it a processor. With nice 3 they
        # have half its weight, which is enough for that, and leaves them enough beside other work on the machine.
        command = ["nice", "-n", "3"] if words != parts[0] else []
        command += [sys.executable, "-m", "tests.run", part, "--", *options]
        log = BUILD / f"{part}.log"
        with log.open("wb") as file:
            done = subprocess.run(command, cwd=ROOT, check=False, stdout=file, stderr=subprocess.STDOUT)
        text = log.read_text(errors="replace")
        with printing:
            print(f"== {part}\n{text}", flush=True)
        found = re.findall(rf"^{part}: (\d+) passed, (\d+) failed, (\d+) skipped", text, re.MULTILINE)
        passed, failed, skipped = map(int, found[-1]) if found else (0, 0, 0)
        failed = failed or int(done.returncode != 0)
        if failed:
            failures.append(f"== failed in {part}, from {log.relative_to(ROOT)}\n{what_failed(text)}")
        return passed, failed, skipped

    BUILD.mkdir(exist_ok=True)
    os.environ[REWRITING] = str(BUILD / "rewriting.lock")
    with ThreadPoolExecutor(at_once) as executor:
        with Path(os.environ[REWRITING]).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            running = executor.map(run, parts)
            rewrite_assertions()
        counts = list(running)
    print(*failures, sep="\n", end="\n" * bool(failures))
    return summed_up(counts)


def what_failed(output: str) -> str:
    """Return the tests that failed, from a part's output, or its last lines if there is no such list."""
    lines = output.splitlines()
    tests = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return "\n".join(tests or lines[-SHOWN_LINES:])


def summed_up(counts: Sequence[tuple[int, int, int]]) -> bool:
    """Print the sums, and return whether at least one test passed and none failed."""
    passed, failed, skipped = map(sum, zip(*counts, strict=True))
    print(f"total: {passed} passed, {failed} failed, {skipped} skipped")
    return passed > 0 and failed == 0


def main() -> int:
    """Run the parts named on the command line, and return the exit status."""
    # Guests that sudo started would have the rights of the user who called it, who cannot write to root's results.
    for name in ("SUDO_UID", "PKEXEC_UID"):
        os.environ.pop(name, None)
    words = sys.argv[1:]
    options = words[words.index("--") + 1 :] if "--" in words else []
    parts = words[: words.index("--")] if "--" in words else words
    if "long" in parts and len(words) > 1:
        print("tests.run: long is alone, and without options", file=sys.stderr)
        return 2
    if unknown := set(parts) - set(PARTS):
        print(f"tests.run: no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    if not parts:
        return 0 if run_beside_each_other([(part,) for part in WHOLE], AT_ONCE) else 1
    if "long" in parts:
        return 0 if run_beside_each_other(LONG, LONG_AT_ONCE) else 1
    counts = []
    for part in parts:
        if len(parts) > 1:
            print(f"== {part}", flush=True)
        counts.append(run_part(part, options))
    return 0 if summed_up(counts) else 1


if __name__ == "__main__":
    sys.exit(main())
