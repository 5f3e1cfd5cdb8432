"""The record of one workflow in its submit folder, which outlives every process that writes it.

Which jobs there are never changes, and is one file. All else is a journal, with a line for each change of some jobs or
of what is known of the workflow as a whole, appended to by one process at a time (`JobStore.locked`), so that a shared
file system has nothing to get wrong. Jobs leave a small file each when they end.

Belongs here: the files of a submit folder, and who may write them. Doesn't: deciding anything (`launchers.slurm.plan`).
Standard library and our errors only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from launchers.processes import exclusive
from launchers.slurm.ends import Ending, Mark, Usage
from launchers.slurm.jobs import Element, Job, JobState, Request
from launchers.slurm.plan import Plan
from launchers.slurm.queue import seconds
from resources.errors import SiteFault

_BYTES_PER_MB = 1024.0 * 1024.0
_MARK = re.compile(r"(\d+_\d+)\.(\d+)")
_QUANTA = re.compile(r"Executed (\d+) quanta successfully, (\d+) failed")


class Unreadable(SiteFault):
    """A workflow's record that was spoilt, or that another version of this plugin has written."""


def file_name(job: Job) -> str:
    """Give a job's name as part of a file's, with its label's folder."""
    return f"{_plain(job.label)}/{_plain(job.name)}"


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+=@-]", "_", text)


class JobStore:
    """The jobs of one workflow on disk.

    Parameters
    ----------
    submit_path
        The workflow's folder, by any of its names.

    Attributes
    ----------
    submit_path
        The one of them without links and dots: Slurm's jobs know their workflow by it.
    """

    def __init__(self, submit_path: Path) -> None:
        self.submit_path = submit_path = submit_path.resolve()
        self._workflow = submit_path / "workflow.json"
        self._journal = submit_path / "journal.jsonl"
        self._environment = submit_path / "environment.json"
        self._cancelled = submit_path / "cancelled"
        self._ended = submit_path / "ended"
        self._known_marks: set[str] = set()
        self._ended_at = 0

    @property
    def exists(self) -> bool:
        """Whether a workflow has been prepared here."""
        return self._workflow.exists()

    @property
    def takes_no_more(self) -> bool:
        """Whether the folder's file system is full or read-only, so that nothing can be written down."""
        system = os.statvfs(self.submit_path)
        return system.f_bavail == 0 or bool(system.f_flag & os.ST_RDONLY)

    @property
    def element_script(self) -> Path:
        """What every element runs."""
        return self.submit_path / "element.sh"

    def log(self, job: Job, attempt: int) -> Path:
        """Where an attempt's output goes."""
        return self.submit_path / "logs" / f"{file_name(job)}.{attempt}.log"

    def create(self, plan: Plan, scripts: Iterable[str], facts: Mapping[str, Any]) -> None:
        """Write a workflow down for the first time.

        Parameters
        ----------
        plan
            Its jobs.
        scripts
            What each does, in the order of the jobs.
        facts
            What is known of the workflow as a whole.
        """
        for folder in ("blocks", "ended"):
            (self.submit_path / folder).mkdir(parents=True, exist_ok=True)
        for label in {_plain(job.label) for job in plan.jobs}:
            (self.submit_path / "jobs" / label).mkdir(parents=True, exist_ok=True)
            (self.submit_path / "logs" / label).mkdir(parents=True, exist_ok=True)
        names: list[list[str]] = [[] for _ in plan.blocks]
        for job, script in zip(plan.jobs, scripts, strict=True):
            name = file_name(job)
            names[job.block].append(name)
            with open(f"{self.submit_path}/jobs/{name}.sh", "w", encoding="utf-8") as file:  # noqa: PTH123 - 10,000
                file.write(script)
        for block, members in enumerate(names):
            (self.submit_path / "blocks" / str(block)).write_text("".join(f"{name}\n" for name in members))
        shutil.copy(Path(__file__).with_name("element.sh"), self.element_script)
        document = {"blocks": [asdict(block) for block in plan.blocks], "jobs": [_asked(job) for job in plan.jobs]}
        self._journal.unlink(missing_ok=True)
        self.forget_cancelling()
        self.note(**facts)
        _write(self._workflow, json.dumps(document))

    def read(self) -> tuple[Plan, dict[str, Any]]:
        """Read the jobs as they are, and what is known of the workflow as a whole.

        Raises
        ------
        Unreadable
            There is something else in its place.
        """
        with self._understanding():
            document = json.loads(self._workflow.read_bytes())
            blocks = [read_request(values) for values in document["blocks"]]
            jobs = [_job(values) for values in document["jobs"]]
            facts: dict[str, Any] = {}
            for entry in self._entries():
                for position, *changed in entry.get("jobs", ()):
                    jobs[position] = _changed(jobs[position], changed)
                facts |= entry.get("facts", {})
            if "node_memory_mb" in facts:
                # No node has more, however much a job may ask for.
                blocks = [_limited(block, most) for block, most in zip(blocks, facts["node_memory_mb"], strict=True)]
            if "licences" in facts:
                blocks = [block.limited_by(facts["licences"]) for block in blocks]
            return Plan(jobs, blocks), facts

    def read_facts(self) -> dict[str, Any]:
        """Read what is known of the workflow as a whole, and nothing of its jobs.

        Raises
        ------
        Unreadable
            There is something else in its place.
        """
        facts: dict[str, Any] = {}
        with self._understanding():
            for entry in self._entries(b'"facts":'):
                facts |= entry["facts"]
            return facts

    @contextlib.contextmanager
    def _understanding(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, ValueError, KeyError, TypeError, IndexError) as error:
            raise Unreadable(
                "the record of this workflow cannot be read",
                str(self.submit_path),
                "restore its files, or end its jobs with scancel and remove the folder",
            ) from error

    def write(self, plan: Plan, positions: Sequence[int] = (), **facts: Any) -> None:
        """Write what has changed of some jobs, and of the workflow as a whole, together."""
        changed = [[position, *_progress(plan.jobs[position])] for position in dict.fromkeys(positions)]
        self._append({"jobs": changed, "facts": facts})

    def note(self, **facts: Any) -> None:
        """Write what has changed of the workflow as a whole."""
        self._append({"facts": facts})

    def _append(self, changes: Mapping[str, Any]) -> None:
        entry = {key: value for key, value in changes.items() if value}
        if not entry:
            return
        entry = {"at": round(time.time(), 3), **entry}
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        with self._journal.open("a+b") as journal:
            if journal.tell():
                journal.seek(-1, os.SEEK_END)
                if journal.read(1) != b"\n":
                    line = b"\n" + line  # what a full disk has cut off must not spoil what comes after
            journal.write(line)

    def _entries(self, key: bytes = b"") -> Iterator[dict[str, Any]]:
        """Give what the journal says, or what its lines with a key do: most are of jobs, and take long to parse."""
        first, *others = self._journal.read_bytes().splitlines()
        yield {"facts": json.loads(first)["facts"]}  # without which the others say too little
        for line in others:
            if key in line:
                # What a full disk has cut off says nothing, and was done again.
                with contextlib.suppress(ValueError):
                    yield json.loads(line)

    def tell(self, line: str, log: Path | None = None) -> None:
        """Add a line to the workflow's log, or to a job's; where there is no room for it, nothing is said."""
        with contextlib.suppress(OSError), (log or self.submit_path / "events.log").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")

    @contextlib.contextmanager
    def locked(self, wait_s: float = 0.0) -> Iterator[bool]:
        """Be the only one who writes; False when somebody else is after ``wait_s``."""
        with exclusive(self.submit_path / "workflow.lock", wait_s=wait_s) as lock:
            yield lock is not None

    def has_new_marks(self) -> bool:
        """Whether jobs have ended since `new_marks` was called last, at the cost of one look at a folder."""
        return self._ended.stat().st_mtime_ns != self._ended_at

    def new_marks(self) -> dict[Element, Mark]:
        """Read what jobs have left behind since the last call."""
        self._ended_at = self._ended.stat().st_mtime_ns
        found = {}
        for entry in os.scandir(self._ended):
            if entry.name in self._known_marks or not (name := _MARK.fullmatch(entry.name)):
                continue
            with open(entry.path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - 10,000 of them
                mark = _mark(file.read())
            self._known_marks.add(entry.name)
            element = Element.parse(name[1])
            # Of several lives of the same element, one that went well counts.
            if element not in found or mark.exit_code == 0:
                found[element] = mark
        return found

    def write_environment(self) -> None:
        """Keep the submitter's environment, for his eyes alone, for what is submitted later on his behalf."""
        self._environment.unlink(missing_ok=True)
        self._environment.touch(mode=0o600)
        self._environment.write_text(json.dumps(dict(os.environ)), encoding="utf-8")

    def read_environment(self) -> dict[str, str] | None:
        """Read the submitter's environment; None when it isn't kept."""
        try:
            return dict(json.loads(self._environment.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def forget_environment(self) -> None:
        """Remove what is no longer needed."""
        self._environment.unlink(missing_ok=True)

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody wants the workflow to end."""
        return self._cancelled.exists()

    def ask_to_cancel(self) -> None:
        """Say that the workflow is to end."""
        self._cancelled.touch()

    def forget_cancelling(self) -> None:
        """Say that the workflow is to go on."""
        self._cancelled.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".new")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _asked(job: Job) -> list[Any]:
    kind = (0 if job.has_command else 1) + (2 if job.is_final else 0)
    return [job.name, job.label, job.block, job.place, list(job.parents), list(job.waits_for), kind]


def _job(values: list[Any]) -> Job:
    name, label, block, place, parents, waits_for, kind = values
    return Job(
        name, label, block, place, tuple(parents), tuple(waits_for), has_command=not kind & 1, is_final=bool(kind & 2)
    )


def read_request(values: Mapping[str, Any]) -> Request:
    """Read what was written of a request."""
    lists = ("no_retry_codes", "options", "limits")
    changed: dict[str, Any] = {key: tuple(values[key]) for key in lists if key in values}
    return Request(**{**values, **changed})


def _limited(block: Request, most_mb: int) -> Request:
    limits = [limit for limit in (block.memory_limit_mb, most_mb) if limit]
    return replace(block, memory_limit_mb=min(limits, default=None))


def _progress(job: Job) -> list[Any]:
    usage = [round(job.usage.cpu_s, 3), round(job.usage.memory_mb, 1), job.usage.node]
    return [
        job.state.name,
        str(job.element) if job.element else "",
        int(job.is_parked),
        job.attempt,
        job.retries,
        job.out_of_memory,
        job.exit_code,
        job.ending.name if job.ending else "",
        usage,
        job.quanta,
        job.quanta_failed,
        [str(element) for element in job.silent],
    ]


def _changed(job: Job, values: list[Any]) -> Job:
    state, element, parked, attempt, retries, out_of_memory, code, ending, usage, quanta, failed, silent = values
    return Job(
        job.name,
        job.label,
        job.block,
        job.place,
        job.parents,
        job.waits_for,
        job.has_command,
        job.is_final,
        JobState[state],
        Element.parse(element) if element else None,
        bool(parked),
        attempt,
        retries,
        out_of_memory,
        code,
        Ending[ending] if ending else None,
        Usage(*usage),
        quanta,
        failed,
        tuple(Element.parse(each) for each in silent),
    )


def _mark(text: str) -> Mark:
    """Read what `element.sh` writes: words, then what the shell's ``times`` says of itself and of its children."""
    words: dict[str, str] = {}
    cpu_s = 0.0
    quanta = failed = 0
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key in {"code", "node", "memory"}:
            words[key] = value
        elif counted := _QUANTA.search(line):
            quanta, failed = int(counted[1]), int(counted[2])
        elif key.endswith("s"):
            cpu_s += seconds(key) + seconds(value)
    memory_mb = int(words.get("memory") or 0) / _BYTES_PER_MB
    return Mark(int(words.get("code") or 1), Usage(cpu_s, memory_mb, words.get("node", "")), quanta, failed)
