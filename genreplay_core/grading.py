"""Grading coursework: each submission in a process of its own, the judgement outside of it.

    genreplay course grade class/*            # or, in Python: grade(folders, Path("graded"))

The tests run here, with this package's copy of them. What they call runs elsewhere: a `Remote`
passes each call of an adapter to a worker process, as JSON through a socket, and gives back
numbers and text. So a submission never shares an interpreter with a test, a report or another
submission; whatever it patches, prints, deletes or forges is its own, and a wrong answer stays one.

The worker gets a copy of the submission, limits (time, memory, processes, the size of what it
writes and prints), and where Linux lets us, walls: no network, a table of processes of its own, and
no right to write anything but that copy. `Walls.said` tells which. They keep a class's grades
apart; they don't hide the solutions, which anybody can make with `genreplay course make`.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import torch

from .course import Assignment, Test, about, assignments, lesson, material, module, questions
from .files import replacing, write_json

MEGABYTE = 2**20
FIRST_ACCOUNT = 60600  # numbers that no distribution gives to anybody
SPACES = ("unshare", "--net", "--ipc", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
NO_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
worker: Any = module(material() / "worker.py")  # the other end of the line


@dataclass(frozen=True)
class Limits:
    """What a submission may use: seconds for a part and for all of it, megabytes of memory beyond
    what PyTorch takes, of each file and of what is printed, and of the whole folder; processes.
    start: seconds until Python and PyTorch are there."""

    part: float = 60
    whole: float = 600
    memory: int = 2048
    output: int = 16
    folder: int = 64
    processes: int = 64
    start: float = 300


class Lost(AssertionError):
    """A submission can't answer any more; the message is what its student reads."""


# ---------------------------------------------------------------- walls


@dataclass(frozen=True)
class Walls:
    """How a worker is shut in. before: what stands before its command; account: whose it is."""

    said: str
    before: tuple[str, ...] = ()
    account: int | None = None

    def command(self, folder: Path, *command: str) -> list[str]:
        return [*(part.replace("{folder}", str(folder)) for part in self.before), *command]


def walls(number: int) -> Walls:
    """The best walls that this machine has, for submission `number`, with an account of its own
    if we are root and another account can run this Python."""
    root, account, drop = os.geteuid() == 0, None, [*NO_RIGHTS]
    if root and all(map(_open_to_all, (sys.prefix, sys.base_prefix, torch.__file__, __file__))):
        account = FIRST_ACCOUNT + number % 400
        drop += [f"--reuid={account}", f"--regid={account}", "--clear-groups"]
    user = () if root else ("--user", "--map-root-user")
    shut = (*SPACES, *user, "sh", str(material() / "shut.sh"), "{folder}", *drop)
    said = "no network, and nothing to write but its copy"
    more = "; but as root, any number of processes" if root and not account else ""
    candidates = [Walls(said + more, shut, account)]
    if account:
        candidates.append(Walls("an account of its own", tuple(drop), account))
    limits = Walls("limits only: grade what you don't trust on Linux, or in a container")
    return next(filter(_stands, candidates), limits)


def _open_to_all(path: str) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in Path(path).resolve().parents)


def _stands(tried: Walls) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        _give(Path(folder), tried.account)
        try:
            command = tried.command(Path(folder), "true")
            return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
        except (OSError, subprocess.SubprocessError):
            return False


def _give(folder: Path, account: int | None) -> None:
    """Let an account have a folder."""
    for path in (folder, *folder.rglob("*")):
        if account is not None:
            os.chown(path, account, account)


# ---------------------------------------------------------------- outside: one submission


@dataclass
class Remote:
    """The adapters of a submission, each call answered by its process.

    The process is started when a part begins, and anew after its death.
    left: when the present part must be done; end: when all must be.
    """

    folder: Path
    limits: Limits
    walls: Walls
    printed: IO[bytes]
    left: float = 0.0
    end: float = math.inf
    asked: int = 0
    process: Any = None
    channel: Any = field(default=None, repr=False)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return partial(self.call, name)

    def begin(self) -> None:
        """A new part begins.

        Raises:
            Lost: all time is over, or the process can't be started.
        """
        if time.monotonic() >= self.end:
            raise Lost(f"all of it took longer than {self.limits.whole:g} seconds")
        if self.process is None:
            self.start()
        if os.fstat(self.printed.fileno()).st_size > MEGABYTE:
            self.printed.truncate(0)  # let this part print too
        now = time.monotonic()
        self.end = min(self.end, now + self.limits.whole)
        self.left = min(self.end, now + self.limits.part)

    def call(self, name: str, *arguments: Any) -> Any:
        """What the adapter answers.

        Raises:
            NotImplementedError: it isn't done yet.
            Lost: it can't answer any more, or its answer can't be read.
            AssertionError: the student's code raised something.
        """
        try:
            kind, answer = self.ask(name, arguments)
        except (EOFError, OSError):
            late, how = time.monotonic() >= self.left, self.close(patience=5)
            long = f"{name} took longer than {self.limits.part:g} seconds: a loop without end?"
            raise Lost(long if late else f"your code ended its process in {name} ({how})") from None
        except Exception as error:  # whatever it wrote to us, it isn't an answer
            self.close()
            raise Lost(f"what {name} answered can't be read ({error})") from None
        if kind == "undone":
            raise NotImplementedError
        if kind:
            raise AssertionError(_explained(str(kind), str(answer), self.limits))
        return answer

    def ask(self, name: str, arguments: tuple[Any, ...]) -> tuple[Any, Any]:
        """Send a question, and wait for the answer to it."""
        self.asked += 1
        with self.channel.makefile("rwb") as pipe, _hung_up(self.channel, self.left):
            worker.send(pipe, [self.asked, name, arguments])
            while True:
                number, kind, answer = worker.receive(pipe)
                if number == self.asked:  # else a forked child of the student's code said it
                    return kind, answer

    def start(self) -> None:
        """Start the worker, and wait until it is ready for the student's code."""
        self.channel, theirs = socket.socketpair()
        bounds = self.limits.memory, self.limits.output, self.limits.processes
        given = (worker.__file__, self.folder, theirs.fileno(), *bounds, int(self.limits.whole))
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
        options |= {"env": _environment(self.folder), "start_new_session": True}
        with theirs:
            self.process = subprocess.Popen(
                self.walls.command(self.folder, sys.executable, "-P", *map(str, given)),
                stdout=self.printed,
                pass_fds=[theirs.fileno()],
                **options,
            )
        try:
            with _hung_up(self.channel, time.monotonic() + self.limits.start):
                worker.receive(self.channel.makefile("rb"))
        except (EOFError, OSError, ValueError):
            raise Lost(f"its process couldn't be started ({self.close(patience=5)})") from None

    def close(self, patience: float = 0.2) -> str:
        """End the process and all that it started, after so many seconds; how it ended."""
        if self.process is None:
            return ""
        self.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.walls.account is not None and self.walls.before[0] == "setpriv":
            subprocess.run([*self.walls.before, "kill", "-9", "-1"], capture_output=True)
        status, self.process = self.process.wait(), None
        return signal.Signals(-status).name if status < 0 else f"status {status}"


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of ours that a submission has no use for."""
    kept = {"PATH", "PYTHONPATH", "LANG", "LD_LIBRARY_PATH"} & os.environ.keys()
    places = dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"), str(folder))
    ours = {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return {name: os.environ[name] for name in kept} | places | ours


@contextlib.contextmanager
def _hung_up(channel: socket.socket, at: float) -> Iterator[None]:
    """From that time on, the other end seems to be gone, whatever it does."""
    timer = threading.Timer(max(at - time.monotonic(), 0), channel.shutdown, [socket.SHUT_RDWR])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _explained(kind: str, said: str, limits: Limits) -> str:
    """An exception of the student's code, with what it means where that isn't plain."""
    memory = f"asks for more memory than the {limits.memory} MB that are allowed"
    allowed = {
        **{"MemoryError": memory, "allocate memory": memory},
        "Errno 27": f"prints or writes more than the {limits.output} MB that are allowed",
        "Errno 11": f"starts more processes than the {limits.processes} that are allowed",
        "Errno 30": "writes where it may not: outside of its own folder",
    }
    known = [told for sign, told in allowed.items() if sign in f"{kind}: {said}"]
    if kind == "AssertionError" and said:
        return said
    return f"your code {known[0] if known else f'stops with {kind}: {said}'}"


# ---------------------------------------------------------------- a class

Report = dict[str, Any]
Marks = dict[str, float]  # part -> points, given by a person


def grade(
    submissions: Sequence[Path],
    out: Path,
    *,
    only: Collection[str] = (),
    workers: int | None = None,
    marks: Path | None = None,
    limits: Limits = Limits(),
    tell: Callable[[str], None] = lambda line: None,
) -> list[Report]:
    """Grade submissions side by side. `out` gets `gradebook.csv`, in nbgrader's columns, and for
    each submission a folder with `report.json`, `report.txt` and Gradescope's `results.json`.

    Args:
        submissions: folders as `make` wrote them, worked in. A folder's name is its student.
        only: names of assignments; all if empty. workers: one on each core if None.
        marks: a CSV file of what was marked by hand: student, and a column for each part.
        tell: called with a line for each that is done.

    Raises:
        ValueError: any of these makes no sense, or the system can't hold a process back.
    """
    chosen, names = _chosen(submissions, only, workers), [*map(_student, submissions)]
    by_hand = {} if marks is None else _marks(marks)
    # read before any submission runs
    tests = {part: t for a in chosen for part, t in questions(a, ("tests", "held_out")).items()}
    out.mkdir(parents=True, exist_ok=True)

    def one(number: int) -> Report:
        folder, student = submissions[number], names[number]
        report = graded(folder, chosen, tests, by_hand.get(student, {}), limits, walls(number))
        _write(report, out / student)
        tell(f"{student}: {report['score']:g} of {report['points']} points")
        return report

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        reports = list(pool.map(one, range(len(submissions))))
    _gradebook(reports, out / "gradebook.csv")
    return reports


def _student(folder: Path) -> str:
    return folder.resolve().name


def _chosen(
    submissions: Sequence[Path], only: Collection[str], workers: int | None
) -> list[Assignment]:
    """The assignments to grade, if all that was asked for makes sense."""
    known = {assignment.name: assignment for assignment in assignments()}
    names = [_student(folder) for folder in submissions]
    if os.name != "posix":
        raise ValueError("grading needs Linux or macOS: nothing here would hold a process back")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    for folder in submissions:
        if not folder.is_dir():
            raise ValueError(f"{folder} is no folder: name the folders that were handed in")
        if names.count(name := _student(folder)) > 1:
            raise ValueError(f"two submissions are called {name}: a folder's name is its student")
    for name in set(only) - known.keys():
        raise ValueError(f"no assignment is called '{name}': choose of {', '.join(known)}")
    return [known[name] for name in only] or list(known.values())


def _marks(path: Path) -> dict[str, Marks]:
    """Student -> part -> points."""
    parts = {p.name: p.points for a in assignments() for p in a.parts if p.by_hand}
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        found = {r["student"]: {part: float(r[part]) for part in parts if r[part]} for r in rows}
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path}: expected the columns student, {', '.join(parts)}") from None
    for marks in found.values():
        if not all(0 <= points <= parts[part] for part, points in marks.items()):
            raise ValueError(f"{path}: marks beyond the points of a part, {parts}: {marks}")
    return found


def graded(
    folder: Path,
    chosen: Sequence[Assignment],
    tests: dict[str, list[Test]],
    marks: Marks,
    limits: Limits,
    shut: Walls,
) -> Report:
    """The report of one submission: its points, and for each part what was said."""
    begun, parts = time.monotonic(), []
    scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with scratch as place, tempfile.TemporaryFile("a+b") as printed:
        Path(place).chmod(0o711)
        copy = Path(place).resolve() / "copy"
        problem = _copied(folder, copy, limits.folder * MEGABYTE)
        _give(copy, shut.account)
        remote = Remote(copy, limits, shut, printed)
        for assignment, part in ((a, p) for a in chosen for p in a.parts):
            if part.by_hand:
                said = [] if part.name in marks else ["to be marked with the rubric"]
            else:
                said = [problem] if problem else _lessons(tests[part.name], remote)
            score = marks.get(part.name, 0.0) if part.by_hand else 0 if said else part.points
            found = {"assignment": assignment.name, "score": score, "said": said}
            parts.append({**asdict(part), **found})
        remote.close()
    sums = {key: sum(part[key] for part in parts) for key in ("score", "points")}
    about = {"seconds": round(time.monotonic() - begun, 1), "walls": shut.said}
    return {"student": _student(folder), **sums, **about, "parts": parts}


def _lessons(tests: Sequence[Test], remote: Remote) -> list[str]:
    """What the tests of a part teach, each thing once, behind the idea of the test that said it
    first; nothing if it is right."""
    found: dict[str, str] = {}
    for test in (Remote.begin, *tests):
        told = lesson(test, remote)
        if told is not None:
            idea = "" if test is Remote.begin else f"{about(test)}: "
            found.setdefault(told, _plain(idea + told))
        if remote.process is None:  # it is lost
            break
    return list(found.values())


def _plain(text: str) -> str:
    """Text as it may stand in a report: short, on one line, nothing but what can be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:600]).split())


def _copied(source: Path, target: Path, most: int) -> str:
    """Copy a submission's plain files, and add what isn't the student's; what is wrong, or ""."""
    size = 0
    target.mkdir()
    try:
        for path in source.rglob("*"):
            if stat.S_ISREG(path.lstat().st_mode):  # a link may lead anywhere
                size += path.lstat().st_size + 4096  # many small ones count too
                if size > most:
                    return f"the folder has more than {most // MEGABYTE} MB: leave out the data"
                place = target / path.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
        shutil.copyfile(material() / "pipelines.py", target / "pipelines.py")
        if not (target / "adapters.py").exists():
            shutil.copyfile(material() / "adapters.py", target / "adapters.py")
    except OSError as error:
        return f"the folder can't be read: {error}"
    return ""


# ---------------------------------------------------------------- reports


def _write(report: Report, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    write_json(folder / "report.json", report)
    write_json(folder / "results.json", gradescope(report))
    with replacing(folder / "report.txt") as partial:
        partial.write_text(readable(report), encoding="utf-8")


def readable(report: Report) -> str:
    """A report for people."""
    lines = [f"{report['student']}: {report['score']:g} of {report['points']} points", ""]
    for part in report["parts"]:
        lines.append(f"{part['name']}  {part['score']:g}/{part['points']}  {part['about']}")
        lines += [f"      {told}" for told in part["said"]]
    return "\n".join([*lines, "", f"{report['seconds']} seconds; {report['walls']}", ""])


def gradescope(report: Report) -> dict[str, Any]:
    """A report as Gradescope's autograder wants it (results.json)."""
    tests = []
    for part in report["parts"]:
        name, output = f"{part['name']} {part['about']}", "\n".join(part["said"])
        points = {"score": part["score"], "max_score": part["points"]}
        tests.append({"name": name, **points, "output": output, "visibility": "visible"})
    return {"score": report["score"], "output": report["walls"], "tests": tests}


def _gradebook(reports: Sequence[Report], path: Path) -> None:
    """A row for each student and assignment, with the columns that nbgrader exports."""
    columns = "assignment,duedate,timestamp,student_id,last_name,first_name,email,raw_score,"
    columns += "late_submission_penalty,score,max_score"
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns.split(","), restval="")
        writer.writeheader()
        for report in reports:
            for name, parts in groupby(report["parts"], itemgetter("assignment")):
                points = [(part["score"], part["points"]) for part in parts]
                score, most = map(sum, zip(*points, strict=True))
                row = {"assignment": name, "student_id": report["student"], "max_score": most}
                writer.writerow({**row, "raw_score": score, "score": score})
