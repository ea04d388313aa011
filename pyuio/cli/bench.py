# SPDX-License-Identifier: MIT
"""``pyuio bench``: measure latency, and compare results."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from pyuio_drivers.edu import Edu

from pyuio.cli.arguments import Json, complete_device, usage
from pyuio.cli.output import console, print_json, say
from pyuio.driver import Driver
from pyuio.installed_drivers import driver_for
from pyuio.latency import closed_loop, interrupts, limit, load, open_loop, plan, plot, rate, table, timer
from pyuio.latency.comparison import Comparison
from pyuio.latency.errors import MeasurementError, OutputDirectoryError
from pyuio.latency.in_process import InProcess
from pyuio.latency.output import Output
from pyuio.latency.patch_loop import PatchLoop
from pyuio.latency.progress import Bar
from pyuio.latency.report import Report
from pyuio.latency.results import REFERENCE, Run
from pyuio.latency.trace import Trace
from pyuio.pci.discovery import FoundDevice, find

app = typer.Typer(help="Measure latency, and compare results.", no_args_is_help=True)

ALL_LOADS = ",".join(load.LOADS)
INTERVAL = 1000.0  # us
DURATION = 30.0  # seconds, if neither a duration nor a count is given

Duration = Annotated[float | None, typer.Option(metavar="SECONDS", help=f"How long to measure. Default: {DURATION:g}.")]
Count = Annotated[
    int | None, typer.Option(metavar="N", help="Samples of each way under each load, instead of --duration.")
]
Interval = Annotated[
    float, typer.Option(metavar="MICROSECONDS", help="Time between two events; for interrupts, the average.")
]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Write results here while measuring: JSON, .hlog, .hgrm, PNG.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that are there already.")]
ReportFile = Annotated[
    Path | None, typer.Option("--report", metavar="FILE.html", help="Write one HTML file to pass on.")
]
Max = Annotated[
    str | None, typer.Option("--max", metavar="TIME", help="End with status 1 if a sample is beyond: 100us, 0.5ms.")
]
Traced = Annotated[
    bool,
    typer.Option("--trace", help="With --max: end at the first sample beyond it, and keep what the kernel did then."),
]
Tracer = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="With --trace: also a tracer of the kernel: function, for each function called."),
]
Picture = Annotated[bool, typer.Option(help="Draw the distributions; takes a minute on an emulated processor.")]
Loads = Annotated[
    str, typer.Option(metavar="LIST", help="From idle, python (a busy Python thread), cpu (all CPUs busy).")
]
Priority = Annotated[
    int, typer.Option(metavar="N", help="SCHED_FIFO priority, 1 to 99; 0: ordinary scheduling, needs no privilege.")
]


@app.command("timer")
def measure_timer(
    duration: Duration = None,
    count: Count = None,
    interval: Interval = INTERVAL,
    cpu: Annotated[
        list[int] | None, typer.Option(metavar="N", help="Measure on this CPU; repeatable. Default: the last one.")
    ] = None,
    priority: Priority = timer.DEFAULT_PRIORITY,
    loads: Loads = ALL_LOADS,
    out: Out = None,
    overwrite: Overwrite = False,
    report: ReportFile = None,
    most: Max = None,
    trace: Traced = False,
    tracer: Tracer = None,
    picture: Picture = True,
    as_json: Json = False,
) -> None:
    """Measure how late a thread wakes up from a timer, as cyclictest does. No device is needed.

    Three ways take turns: a loop in C, a call from Python that takes the time in C, and a loop in Python.
    """
    with usage():
        cpus = list(dict.fromkeys(cpu or [timer.default_cpu()]))
        how_much, under = _planned(tuple(timer.WAYS), duration, count, interval, loads, priority, cpus)
        beyond = _limit(most, trace=trace, tracer=tracer)
    options = timer.Options(how_much, under, cpus, priority)
    with contextlib.ExitStack() as stack:
        # Open the output first: if it cannot be written, nothing is measured in vain.
        written = Report(report, overwrite=overwrite) if report else None
        output = stack.enter_context(Output(out, "timer", overwrite=overwrite)) if out else None
        tracing = stack.enter_context(Trace(beyond, cpus, tracer)) if trace and beyond else None
        with stoppable(), Bar(how_much.rounds * len(timer.WAYS) * len(under)) as bar:
            measurement = timer.Measurement(options, output, bar, tracing)
            measurement.run.limit = beyond
            run = measurement.measure()
        finish(run, output, written, picture=picture, as_json=as_json)


Device = Annotated[
    str | None,
    typer.Argument(
        metavar="[DEVICE]",
        help="A device as for pyuio.open, with an installed driver. Default: the only edu card.",
        autocompletion=complete_device,
    ),
]
Cpu = Annotated[int | None, typer.Option(metavar="N", help="CPU that handles the interrupt. Default: the last one.")]
RaisingCpu = Annotated[int | None, typer.Option(metavar="N", help="CPU that raises it. Default: another one.")]

CardClass = Annotated[
    str | None, typer.Option(metavar="MODULE:CLASS", help="A card in Python, in place of DEVICE: processor time alone.")
]
Message = Annotated[bool, typer.Option("--message", help="Have it come as a message, MSI-X or MSI; by vfio-pci.")]


@app.command("latency")
def measure_latency(
    device: Device = None,
    card: CardClass = None,
    duration: Duration = None,
    count: Count = None,
    interval: Interval = INTERVAL,
    cpu: Cpu = None,
    raising_cpu: RaisingCpu = None,
    message: Message = False,
    priority: Priority = timer.DEFAULT_PRIORITY,
    loads: Loads = ALL_LOADS,
    out: Out = None,
    overwrite: Overwrite = False,
    report: ReportFile = None,
    most: Max = None,
    trace: Traced = False,
    tracer: Tracer = None,
    picture: Picture = True,
    as_json: Json = False,
) -> None:
    """Measure the time from a card's interrupt to its handler.

    On QEMU's edu card three ways take turns: a read loop in C, a read loop in Python, a native service. On any other
    card, whose driver must be able to trigger its interrupt, the last two take turns, as they do on a card in Python.
    """
    with usage():
        reading, raising = interrupts.choose_cpus(cpu, raising_cpu)
        open_card = _opener(device, card)
        _planned(open_loop.WAYS, duration, count, interval, loads, priority)  # before a card is opened in vain
        beyond = _limit(most, trace=trace, tracer=tracer)
    with contextlib.ExitStack() as stack:
        written = Report(report, overwrite=overwrite) if report else None
        output = stack.enter_context(Output(out, "latency", overwrite=overwrite)) if out else None
        with usage():
            driver = stack.enter_context(open_card())
        _take_messages(driver, message)
        in_process = driver.device.driver == interrupts.IN_PROCESS
        in_c = isinstance(driver, Edu) and not in_process
        ways = open_loop.WAYS if in_c else closed_loop.WAYS
        how_much, under = _planned(ways, duration, count, interval, loads, priority)
        options = interrupts.Options(how_much, under, reading, raising, priority)
        method: interrupts.Method
        if in_process:
            method = InProcess(driver, options)
        elif in_c and isinstance(driver, Edu):
            method = open_loop.OpenLoop(driver, stack.enter_context(PatchLoop()), options)
        else:
            method = stack.enter_context(closed_loop.ClosedLoop(driver, options))
        tracing = stack.enter_context(Trace(beyond, [reading], tracer)) if trace and beyond else None
        with stoppable(), Bar(how_much.rounds * len(ways) * len(under)) as bar:
            measurement = interrupts.Measurement(method, options, output, bar, tracing)
            measurement.run.limit = beyond
            run = measurement.measure()
        finish(run, output, written, picture=picture, as_json=as_json)


def _opener(device: str | None, card: str | None) -> Callable[[], Driver]:
    """Return what opens the card that was named. ValueError: both were, or there is no such card or driver."""
    if card is None:
        found, driver = _chosen(device)
        return partial(driver.open, found)
    if device is not None:
        raise ValueError("either DEVICE or --card, not both")
    from pyuio import model  # takes long, as does what it loads
    from pyuio.model import serve

    serve.look_in_current_directory()
    try:
        made = serve.load(card)
    except serve.CardTextError as error:
        raise ValueError(f"--card {card}: {error}") from error
    driver = driver_for(f"{made.vendor:04x}:{made.device:04x}", made.class_code, None)
    closed_loop.check(driver)
    return lambda: driver(model.open(made))


@app.command("rate")
def measure_rate(
    device: Device = None,
    count: Annotated[int, typer.Option(metavar="N", min=1, help="Interrupts for each way, or a few more.")] = 20000,
    cpu: Cpu = None,
    message: Message = False,
    priority: Priority = timer.DEFAULT_PRIORITY,
    out: Out = None,
    overwrite: Overwrite = False,
    report: ReportFile = None,
    picture: Picture = True,
    as_json: Json = False,
) -> None:
    """Measure how many interrupts a second one thread can raise, read and acknowledge.

    The ways are those of `latency`; a sample is the time from one interrupt to the next.
    """
    with usage():
        timer.check(timer.INTERVALS[0], [] if cpu is None else [cpu], priority)
        found, driver = _chosen(device)
    rounds = -(-count // rate.TURN)
    with contextlib.ExitStack() as stack:
        written = Report(report, overwrite=overwrite) if report else None
        output = stack.enter_context(Output(out, "rate", overwrite=overwrite)) if out else None
        with usage():
            card = stack.enter_context(driver.open(found))
        _take_messages(card, message)
        in_c = REFERENCE in rate.ways(card)
        program = stack.enter_context(PatchLoop()) if in_c else None
        on = timer.default_cpu() if cpu is None else cpu
        with stoppable(), Bar(rounds * len(rate.ways(card))) as bar:
            run = rate.RateMeasurement(card, program, on, priority, rounds, output, bar).measure()
        finish(run, output, written, picture=picture, as_json=as_json)


def _chosen(device: str | None) -> tuple[FoundDevice | None, type[Driver]]:
    """Return the card and its driver; without a DEVICE, None (the only card that the driver serves) and `Edu`."""
    if device is None:
        return None, Edu
    found = find(device)
    driver = driver_for(found.ids, found.class_code, found.uio_name, found.compatible)
    closed_loop.check(driver)
    return found, driver


def _take_messages(card: Driver, message: bool) -> None:
    """Enable one message interrupt if it is wanted, before anything uses the interrupt."""
    if message and not card.interrupts:
        with usage():
            card.device.vectors(1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)
def registers(context: typer.Context) -> None:
    """Measure the cost of a register access: ``benchmarks/registers.py``, which takes --rounds, --json and --check."""
    try:
        from pyuio_benchmarks import registers as benchmark
    except ImportError as error:
        raise MeasurementError(f"{error}; this benchmark needs numpy: pip install numpy") from error
    sys.argv = ["pyuio bench registers", *context.args]
    raise typer.Exit(benchmark.main())


@app.command()
def compare(
    results: Annotated[list[Path], typer.Argument(metavar="A.json B.json...", help="Result files, of one kind.")],
    most: Max = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.png", help="Draw the distributions side by side.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare any number of results: figures, worst first, ratios to the first, and how the machines differ."""
    with usage():
        if len(results) < 2:
            raise ValueError("comparing needs two results or more")
        beyond = _limit(most)
    comparison = Comparison(results, beyond)
    if as_json:
        print_json(comparison.as_dict())
    else:
        comparison.show(console())
    sys.stdout.flush()
    if picture is not None:
        try:
            plot.draw_comparison(comparison, picture)
        except OSError as error:
            raise OutputDirectoryError(error.errno, f"{picture}: cannot be written: {error.strerror}") from error
        say(f"wrote {picture}")
    if comparison.beyond:
        raise typer.Exit(1)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Have SIGTERM, SIGHUP and SIGINT raise KeyboardInterrupt; SIGINT too, which shells ignore in the background."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finish(run: Run, output: Output | None, report: Report | None, *, picture: bool, as_json: bool) -> None:
    """Save and show a run, and end the program.

    It ends with 1 if the run is void or a sample is beyond the limit, with 130 if Ctrl-C ended the run.
    """
    if output:
        output.save(run)
    if report:
        report.write(run)
    if as_json:
        print_json(run.as_dict())
    else:
        table.show(run, console())
    sys.stdout.flush()  # drawing the picture may take long
    if output:
        files = output.finish(run, picture=picture)
        distributions = sum(path.suffix == ".hgrm" for path in files)
        names = [path.name for path in files if path.suffix != ".hgrm"] + [f"{distributions} distributions (.hgrm)"]
        say(f"wrote {', '.join(names)} in {output.directory}")
        if picture and not plot.available():
            say(f"no picture: {plot.MISSING}")
    if run.interrupted:
        raise typer.Exit(130)
    if run.void:
        say("the run is void, see above")
        raise typer.Exit(1)
    if run.beyond:
        raise typer.Exit(1)


def _limit(most: str | None, *, trace: bool = False, tracer: str | None = None) -> int | None:
    """Return the limit in ns. ValueError: it is no time, a trace has none, or a tracer no trace."""
    if tracer is not None and not (trace and tracer.isidentifier()):
        raise ValueError(f"--tracer {tracer}: it needs --trace, and the name of a tracer of the kernel's, as function")
    if trace and most is None:
        raise ValueError("--trace needs --max, which says what is too late")
    return None if most is None else limit.parse(most)


def _planned(
    ways: Sequence[str],
    duration: float | None,
    count: int | None,
    interval: float,
    loads: str,
    priority: int,
    cpus: Sequence[int] = (),
) -> tuple[plan.Plan, list[type[load.Load]]]:
    """Return how much to measure, and under which loads. ValueError: an option is out of range."""
    if not 0 < interval < 1e9:
        raise ValueError(f"--interval must be above 0 us, not {interval:g}")
    nanoseconds = round(interval * 1000)
    timer.check(nanoseconds, cpus, priority)
    under = load.named(loads)
    if duration is None and count is None:
        duration = DURATION
    return plan.make(nanoseconds, len(ways) * len(under), duration=duration, count=count), under
