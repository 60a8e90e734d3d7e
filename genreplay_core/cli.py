"""The command line. `genreplay run` is a call of `experiment.run`, `genreplay sweep` one of
`sweep.sweep`, `genreplay report` prints and draws what a sweep found."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from tqdm import tqdm

from . import __version__, bench, plots, records, report, study
from .config import GENERATORS, PRECISIONS, REGULARISERS, REPLAYS, SOLVERS, STREAMS, Config
from .data import SCENARIOS
from .datasets import SOURCES
from .experiment import Record, Run, run
from .files import write_json
from .nets import steady
from .study import MEASURES
from .sweep import Job, sweep

COMPARED = ["none", "generative", "conditional"]

EXAMPLES = """\
examples:
  genreplay run
      three learners on scikit-learn's digits: forgetting, and two cures (about half a minute)
  genreplay run --dataset mnist --replay generative --labels hard --seed 2
      the published recipe on split MNIST, class-incremental
  genreplay run --dataset mnist --stream permuted --tasks 10 --scenario domain --replay generative
      ten permutations of MNIST
  genreplay run --dataset mnist+fashion --stream domains --scenario domain --replay conditional
      one data set after another
"""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"genreplay: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 2 after one line on bad input."""
    arguments = _parser().parse_args(argv)
    try:
        with steady():  # from the start, so that torch's threads are born into it
            arguments.command(arguments)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print(f"genreplay: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"genreplay: stopped; {arguments.again(arguments)}", file=sys.stderr)
        return 130
    return 0


def _parser() -> Parser:
    parser = Parser("genreplay", description="Continual learning with generative replay.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _run_command(commands)
    _sweep_command(commands)
    _report_command(commands)
    _bench_command(commands)
    _course_command(commands)
    return parser


def _command(commands: Any, name: str, about: str, more: str = "", **shown: Any) -> Parser:
    """A new command, and what its help says: what it's about, and more."""
    said = f"{about[0].upper()}{about[1:]}.{more}"
    command: Parser = commands.add_parser(name, help=about, description=said, **shown)
    return command


def _run_command(commands: Any) -> None:
    about = "learn a stream of tasks and record what is remembered"
    raw = argparse.RawDescriptionHelpFormatter
    command = _command(commands, "run", about, epilog=_replays() + EXAMPLES, formatter_class=raw)
    command.set_defaults(command=_run, again=lambda a: f"add --resume --out {a.out} to go on")
    _stream_options(command.add_argument_group("the stream"))
    _replay_options(command.add_argument_group("what is rehearsed"))
    _training_options(command.add_argument_group("networks and training"))
    _output_options(command.add_argument_group("output"))


def _sweep_command(commands: Any) -> None:
    about = "run what is missing of studies: every row with every seed, side by side"
    more = " Finished runs are kept in DIR/<study>.json; a sweep that was stopped goes on."
    command = _command(commands, "sweep", about, more)
    command.set_defaults(command=_sweep, again=lambda a: "the same command goes on")
    add: Option = command.add_argument
    add("studies", nargs="+", type=Path, metavar="FILE.toml")
    add("--out", type=Path, default=Path("results"), metavar="DIR", help="default results")
    add("--work", type=Path, default=Path("runs/sweep"), metavar="DIR", help="default runs/sweep")
    add("--only", nargs="+", default=[], metavar="ROW", help="run these rows and no others")
    add("--workers", type=int, metavar="N", help="runs side by side; default one on each core")
    add("--scheduler", metavar="ADDRESS", help="of a Dask cluster, to run there")
    add("--together", action="store_true", help="learn a row's seeds as one batched run")
    add("--device", default="auto", help="auto, cpu, cuda, mps, xpu; default auto")


def _report_command(commands: Any) -> None:
    command = _command(
        commands, "report", "print results as tables, and draw them beside their files"
    )
    command.set_defaults(command=_report, again=lambda a: "nothing is lost")
    command.add_argument("results", nargs="+", type=Path, metavar="FILE.json")
    command.add_argument("--out", type=Path, metavar="DIR", help="folder for the figures")


def _replays() -> str:
    lines = (f"  {name:<20} {arm.about}" for name, arm in REPLAYS.items())
    return "what --replay can be:\n" + "\n".join(lines) + "\n\n"


def _bench_command(commands: Any) -> None:
    more = """ Steps per second of each generator, held against bare matrix products, a textbook's
        loop and Avalanche, in one run. Let the machine do nothing else."""
    command = _command(commands, "bench", "measure how fast a step is, and could be", more)
    command.set_defaults(command=_bench, again=lambda a: "a benchmark begins anew")
    add: Option = command.add_argument
    add("--out", type=Path, default=Path("runs/bench"), metavar="DIR", help="default runs/bench")
    add("--rounds", type=int, default=9, help="measurements of each; default 9")
    add("--steps", type=int, default=96, help="of each measurement; default 96")
    add("--device", default="auto", help="auto, cpu, cuda, mps, xpu; default auto")
    add("--threads", type=int, help="default: as torch has it")
    add("--avalanche", metavar="PYTHON", help="of an environment that has avalanche-lib")
    add("--quick", action="store_true", help="tiny networks: the figures mean nothing")


def _course_command(commands: Any) -> None:
    about = "make the coursework for students, and grade what they hand in"
    command = _command(commands, "course", about)
    actions = command.add_subparsers(required=True, metavar="make|grade")
    make = actions.add_parser("make", help="write the folder for students")
    make.set_defaults(command=_course_make, again=lambda a: "the same command begins anew")
    add: Option = make.add_argument
    add("folder", type=Path, metavar="DIR", help="a new or an empty folder")
    add("--with-solutions", action="store_true", help="leave the solutions in")
    grade = actions.add_parser("grade", help="grade submissions, each in a process of its own")
    grade.set_defaults(command=_course_grade, again=lambda a: "the same command begins anew")
    add = grade.add_argument
    add("submissions", nargs="+", type=Path, metavar="SUBMISSION", help="a student's folder")
    add("--out", type=Path, default=Path("graded"), metavar="DIR", help="default graded")
    add("--workers", type=int, metavar="N", help="side by side; default one on each core")
    add("--only", nargs="+", default=(), metavar="NAME", help="assignments, such as 2-vae")
    add("--marks", type=Path, metavar="FILE.csv", help="what was marked with the rubric")
    add("--seconds", type=float, default=60.0, help="for the tests of a part; default 60")
    add("--memory", type=int, default=2048, metavar="MB", help="beyond PyTorch's; default 2048")


Option = Callable[..., Any]


def _stream_options(group: Any) -> None:
    add: Option = group.add_argument
    add("--dataset", default="digits", metavar="NAME", help=f"{', '.join(SOURCES)}; default digits")
    add("--stream", choices=STREAMS, default="split", help="default split, by class")
    add("--tasks", type=int, default=5, help="number of tasks; default 5")
    add("--scenario", choices=SCENARIOS, default="class", help="default class")
    add("--task-free", action="store_true", help="tell the learner nothing of tasks")
    add("--blur", type=float, default=0.0, help="part of a task that passes into the next, if so")
    add("--snapshot-every", type=int, default=500, metavar="N", help="batches, if so; default 500")
    add("--train-examples", type=int, metavar="N", help="of each class; default all")
    add("--validation", type=float, default=0.0, help="part of the training data to judge by")
    add("--class-order", type=_order, metavar="0,1,...", help="default: random, by the seed")


def _replay_options(group: Any) -> None:
    add: Option = group.add_argument
    add(
        "--replay",
        nargs="+",
        choices=REPLAYS,
        default=COMPARED,
        metavar="NAME",
        help=f"one or more of those below; default {' '.join(COMPARED)}",
    )
    add("--generator", choices=GENERATORS, default="vae", help="default vae")
    add("--labels", choices=("hard", "soft", "code"), help="default: what the strategy uses")
    add("--temperature", type=float, default=4.0, help="of soft labels; default 4")
    add("--importance", type=float, metavar="R", help="weight of the new task; default 1/t")
    add("--generator-importance", type=float, metavar="R", help="the generator's, if it differs")
    add("--replay-ratio", type=float, default=1.0, help="replayed rows per new row; default 1")
    both = argparse.BooleanOptionalAction
    add("--align", action=both, help="replay alignment; default for conditional replay")
    add("--spread", type=float, default=1.0, help="deviation of the dreams' noise; default 1")
    add("--sharpen", type=float, default=1.0, help="contrast of the solver's dreams; default 1")
    add("--best-of", type=int, default=1, help="dreams for each that is used; default 1")
    add("--anew", action="store_true", help="begin each task with untrained networks")
    add("--per-class", type=int, default=100, help="examples kept by 'stored'; default 100")
    add("--regulariser", choices=REGULARISERS, help="protect the solver's weights as well")
    add("--strength", type=float, help="of the regulariser")


def _training_options(group: Any) -> None:
    add: Option = group.add_argument
    add("--solver", choices=SOLVERS, default="mlp", help="default mlp")
    add("--jitter", type=int, default=0, metavar="PIXELS", help="shift the solver's images so far")
    add("--hidden", type=int, help="width of the hidden layers")
    add("--generator-hidden", type=int, help="the same for the generator, if it is to differ")
    add("--latent-dim", type=int, help="size of the generator's latent")
    add("--critic-steps", type=int, help="critic steps per generator step of a WGAN")
    add("--steps", type=int, help="steps a task; default 2000 (digits: 300)")
    add("--epochs", type=float, help="epochs a task, instead of steps")
    add("--generator-steps", type=int, help="the generator's own budget; default: as the solver's")
    add("--batch", type=int, default=128, help="new rows a step; default 128")
    add("--lr", type=float, default=1e-3, help="the solver's learning rate; default 1e-3")
    add("--generator-lr", type=float, help="the generator's learning rate; default: its own")
    add("--reset-optimisers", action="store_true", help="forget their state at each task")
    add("--average", type=float, default=0.0, help="part of the steps whose weights are averaged")
    add("--generator-average", type=float, default=0.0, help="the same for the generator")
    add("--lr-end", type=float, default=1.0, help="part of the learning rate left at a task's end")
    add("--precision", choices=PRECISIONS, default="float32", help="default float32")
    add("--seed", type=int, default=0, help="default 0")


def _output_options(group: Any) -> None:
    add: Option = group.add_argument
    add("--out", type=Path, metavar="DIR", help="default: a new folder in runs/")
    add("--resume", action="store_true", help="go on with the run that --out holds")
    add("--device", default="auto", help="auto, cpu, cuda, mps, xpu; default auto")
    add("--quality", action="store_true", help="judge the dreams after each task")
    add("--privacy", action="store_true", help="attack the scholar at the end")
    add("--curve-every", type=int, default=0, metavar="N", help="accuracy every N steps too")


def _order(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' isn't numbers joined by commas") from None


def _given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in names}


# ---------------------------------------------------------------- run


def _run(arguments: argparse.Namespace) -> None:
    chosen = _given(arguments, *(f.name for f in fields(Config)))
    configs = {name: Config(**{**chosen, "replay": name}) for name in arguments.replay}
    out = arguments.out = arguments.out or _new_folder(arguments)
    records.tidy_run(out)
    if len(configs) > 1 and (out / "checkpoint.pt").exists():
        raise ValueError(f"{out} holds a single run: choose another folder for several")
    folders = {name: out / name if len(configs) > 1 else out for name in configs}
    found = {}
    for name, config in configs.items():
        found[name] = _learn(name, config, folders[name], arguments)
        print(matrix_table(name, found[name]), flush=True)
    if len(found) > 1:
        write_json(out / "result.json", {"runs": found})
        print(summary_table(found))
    matrices = {name: np.array(record["accuracy_matrix"]) for name, record in found.items()}
    plots.save(plots.matrices(matrices), out / "matrices.png")
    print(f"\nresult.json and the pictures are in {out}")


def _new_folder(arguments: argparse.Namespace) -> Path:
    if arguments.resume:
        raise ValueError("--resume needs --out, the folder of the run to go on with")
    stamp = f"{datetime.now():%Y%m%d-%H%M%S}"
    return Path("runs") / f"{arguments.dataset}-{arguments.scenario}-{stamp}"


def _learn(name: str, config: Config, folder: Path, arguments: argparse.Namespace) -> Record:
    """Run one config with a progress bar, and draw its dreams."""
    layout = "{desc} {percentage:3.0f}% |{bar}| {elapsed} gone, {remaining} left"

    def draw(work: Run) -> None:
        if work.state.dreams:
            rows = [(f"after {i + 1}", d.numpy() / 255) for i, d in enumerate(work.state.dreams)]
            plots.save(plots.dreams(rows), folder / "dreams.png")

    # disable=None: no bar where nobody watches, as in a file or a pipe
    with tqdm(total=1.0, bar_format=layout, leave=False, disable=None) as bar:

        def progress(task: int, tasks: int, fraction: float) -> None:
            bar.set_description_str(f"{name}: task {task + 1} of {tasks}", refresh=False)
            bar.n = (task + fraction) / tasks
            bar.refresh()

        given = _given(arguments, "resume", "device")
        return run(config, folder, **given, progress=progress, after_task=draw)


def matrix_table(name: str, record: Record) -> str:
    """The accuracy matrix of a record in percent, as text."""
    tasks, matrix = record["tasks"], record["accuracy_matrix"]
    heads = [str(i + 1) if len(tasks) > 10 else task for i, task in enumerate(tasks)]
    width = max(6, *(len(head) + 1 for head in heads))
    lines = [f"\n{name}: accuracy on each task (percent)"]
    lines.append(f"{'after':<10}" + "".join(f"{head:>{width}}" for head in heads))
    for i, row in enumerate(matrix):
        label = f"task {i}" if i else "untrained"
        lines.append(f"{label:<10}" + "".join(f"{100 * value:>{width}.1f}" for value in row))
    values = (f"{m.replace('_', ' ')} {100 * record[m]:.1f}" for m in MEASURES)
    lines.append(", ".join(values) + f"; {record['seconds']:.0f} s")
    return "\n".join(lines)


def summary_table(records: dict[str, Record]) -> str:
    """The four measures of several records in percent, as text."""
    heads = [m.replace("_", " ") for m in MEASURES]
    lines = ["\n" + f"{'percent':<22}" + "".join(f"{head:>19}" for head in heads)]
    for name, record in records.items():
        values = "".join(f"{100 * record[m]:>19.1f}" for m in MEASURES)
        lines.append(f"{name:<22}{values}")
    return "\n".join(lines)


# ---------------------------------------------------------------- sweep and report


def _sweep(arguments: argparse.Namespace) -> None:
    studies = [study.read(path) for path in arguments.studies]  # all, before any is run

    def say(job: Job, record: Record, done: int, wanted: int) -> None:
        row, seed = job
        found = record.get("failed") or f"{100 * record['average_accuracy']:.2f} %"
        seconds = f"{record['seconds']:.0f} s"
        print(f"{done}/{wanted}  {row.name}, seed {seed}: {found}, {seconds}", flush=True)

    given = _given(arguments, "out", "work", "only", "workers", "scheduler", "device", "together")
    for wanted in studies:
        print(f"{wanted.name}: {wanted.title}", flush=True)
        result = sweep(wanted, **given, finished=say)
        print(report.table(result) + "\n", flush=True)


def _report(arguments: argparse.Namespace) -> None:
    results = {path: study.loaded(path) for path in arguments.results}  # all, before any is shown
    for path, result in results.items():
        print(report.table(result) + "\n")
        if any(row["seeds"] for row in result["rows"]):
            folder = arguments.out or path.parent
            folder.mkdir(parents=True, exist_ok=True)
            plots.save(report.figure(result), folder / f"{path.stem}.png")


# ---------------------------------------------------------------- bench


def _bench(arguments: argparse.Namespace) -> None:
    names = ("out", "rounds", "steps", "device", "threads", "avalanche", "quick")
    found = bench.bench(**_given(arguments, *names), tell=partial(print, flush=True))
    print(bench.table(found))
    print(f"\nbench.json and bench.png are in {arguments.out}")


# ---------------------------------------------------------------- course


def _course_make(arguments: argparse.Namespace) -> None:
    from . import course

    course.make(arguments.folder, arguments.with_solutions)
    print(f"{arguments.folder} is ready: begin with its README.md")


def _course_grade(arguments: argparse.Namespace) -> None:
    from . import grading

    given = _given(arguments, "submissions", "out", "workers", "only", "marks")
    limits = grading.Limits(part=arguments.seconds, memory=arguments.memory)
    grading.grade(**given, limits=limits, tell=partial(print, flush=True))
    print(f"\ngradebook.csv and a folder for each submission are in {arguments.out}")
