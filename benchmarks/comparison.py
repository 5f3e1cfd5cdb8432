"""The platform's steps beside the same quanta bare.

Belongs here: building the graphs of a release's finished submissions again, for runs of the comparison's own, and
having them executed bare. Doesn't: executing them (`benchmarks.bare`), or the platform's times
(`benchmarks.finished`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bare import BareTime, BareWork, run_bare
from benchmarks.finished import FinishedSubmission
from launchers.graph import GraphSummary, build_graph
from launchers.submission import StepRequest, SubmissionKey
from planning.pipeline import PipelinePlan
from planning.release import Release
from resources.errors import Rejected
from resources.site import Site

_BARE = "bare"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One submission, and the same quanta bare."""

    submission: FinishedSubmission
    bare: BareTime


class BareRelease:
    """Repeats a release's submissions without the platform.

    Parameters
    ----------
    site, release, plan
        Whose submissions. The site's repository is on this machine.
    folder
        For graphs and logs; made anew.
    report
        Is told what can't be repeated.
    """

    def __init__(
        self, site: Site, release: Release, plan: PipelinePlan, folder: Path, report: Callable[[str], None]
    ) -> None:
        self._site = site
        self._release = release
        self._plan = plan
        self._folder = folder
        self._report = report

    def compare(self, submissions: Sequence[FinishedSubmission]) -> list[Comparison]:
        """Execute the quanta of submissions bare, and forget what they make.

        Parameters
        ----------
        submissions
            In an order in which none comes before one that it needs.

        Returns
        -------
        comparisons
            One for each submission that can still be repeated with as many quanta of each task; what has changed since,
            because more has arrived, is left out.

        Raises
        ------
        subprocess.CalledProcessError
            A process died.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        try:
            same = [(each, graph) for each in submissions if (graph := self._build_same(each)) is not None]
            work = BareWork(self._site.butler.repository, tuple(graph.path for _, graph in same))
            times = run_bare(work, self._folder)
            return [Comparison(submission, bare) for (submission, _), bare in zip(same, times, strict=True)]
        finally:
            shutil.rmtree(Path(self._site.butler.repository) / _BARE, ignore_errors=True)

    def _build_same(self, submission: FinishedSubmission) -> GraphSummary | None:
        try:
            graph = self._build(submission)
        except Rejected as error:
            self._report(f"{submission.name}: {error}")
            return None
        if graph.quanta != submission.quanta:
            self._report(f"{submission.name} had {dict(submission.quanta)}, now {dict(graph.quanta)}")
            return None
        return graph

    def _build(self, submission: FinishedSubmission) -> GraphSummary:
        step = self._plan.step(submission.step)
        key = SubmissionKey(_BARE, step.short, (submission.data_query,))
        return build_graph(
            StepRequest(
                key=key,
                butler=self._site.butler.repository,
                pipeline=f"{self._release.pipeline}#{step.label}",
                input_collections=(self._release.chain,),
                output_chain=_BARE,
                data_query=submission.data_query,
                folder=self._folder / key.name,
                config_overrides=self._release.settings(step).config,
            )
        )
