import subprocess

import pytest
from lsst.ctrl.bps import (
    GenericWorkflow,
    GenericWorkflowExec,
    GenericWorkflowFile,
    GenericWorkflowGroup,
    GenericWorkflowJob,
    GenericWorkflowNoopJob,
)

from launchers.local.workflow import LocalWorkflow, PreparedJob
from resources.errors import Rejected


class Configuration:
    """As much of a BPS configuration as the workflow asks for."""

    def __init__(self, **values):
        self._values = values

    def search(self, key, opt):
        return key in self._values, self._values.get(key, opt["default"])


def job(name: str, arguments: str = "", **attributes) -> GenericWorkflowJob:
    executable = GenericWorkflowExec("echo", "echo", False)
    return GenericWorkflowJob(name, name.rstrip("0123456789"), executable=executable, arguments=arguments, **attributes)


def workflow(*jobs: GenericWorkflowJob, edges=()) -> GenericWorkflow:
    made = GenericWorkflow("w")
    for each in jobs:
        made.add_job(each)
    for parent, child in edges:
        made.add_job_relationships(parent, child)
    return made


def prepare(generic: GenericWorkflow, **settings) -> dict[str, PreparedJob]:
    made = LocalWorkflow.from_generic_workflow(Configuration(**settings), generic, "/submit", "s")
    return {prepared.job.name: prepared for prepared in made.prepared}


def output_of(prepared: PreparedJob, tmp_path) -> str:
    script = tmp_path / "job.sh"
    script.write_text(prepared.script)
    exit_file = tmp_path / "exit"
    done = subprocess.run(["bash", script, exit_file], input="go\n", capture_output=True, text=True, check=False)
    assert exit_file.read_text() == f"{done.returncode}\n"
    return done.stdout


def exit_code(tmp_path) -> int:
    return int((tmp_path / "exit").read_text())


def test_a_command_line_has_its_values_files_and_variables(tmp_path):
    one = job(
        "a1", "{what} <FILE:graph> <ENV:COLOUR>", cmdvals={"what": "run"}, environment={"COLOUR": "very <ENV:SHADE>"}
    )
    one.environment = {"SHADE": "dark red", "COLOUR": "very <ENV:SHADE>"}
    generic = workflow(one)
    generic.add_job_inputs("a1", [GenericWorkflowFile("graph", "/data/x.qg")])

    assert output_of(prepare(generic)["a1"], tmp_path) == "run /data/x.qg very dark red\n"


def test_what_comes_before_and_after_a_command_is_run_whatever_its_end(tmp_path):
    one = job("a1", "main", pre_cmdline="echo before", post_cmdline="echo after")
    one.executable = GenericWorkflowExec("false", "false", False)

    assert output_of(prepare(workflow(one))["a1"], tmp_path) == "before\nafter\n"


def test_a_job_whose_prologue_fails_stops_there_with_its_exit_code(tmp_path):
    one = job("a1", "main", pre_cmdline="echo before; (exit 7)", post_cmdline="echo after")

    assert output_of(prepare(workflow(one))["a1"], tmp_path) == "before\n"
    assert exit_code(tmp_path) == 7


def test_a_job_does_nothing_before_its_driver_has_noted_it(tmp_path):
    script, exit_file = tmp_path / "job.sh", tmp_path / "exit"
    script.write_text(prepare(workflow(job("a1", "something")))["a1"].script)

    done = subprocess.run(["bash", script, exit_file], input="", capture_output=True, text=True, check=False)

    assert done.stdout == ""
    assert exit_file.read_text() == "not started\n"


def test_what_bps_asks_for_a_job_is_kept():
    one = job(
        "a1",
        request_cpus=2,
        request_memory=4096,
        request_walltime="30",
        number_of_retries=3,
        retry_unless_exit=[1, 2],
        abort_on_value=9,
    )

    kept = prepare(workflow(one))["a1"].job

    assert (kept.cpus, kept.memory_mb, kept.walltime_s, kept.retries) == (2, 4096, 1800.0, 3)
    assert (kept.no_retry_codes, kept.abort_code, kept.label) == (frozenset({1, 2}), 9, "a")


def test_the_final_job_is_last_and_marked_so():
    generic = workflow(job("a1"), job("a2"), edges=[("a1", "a2")])
    generic.add_final(job("finalJob"))

    prepared = prepare(generic)

    assert list(prepared) == ["a1", "a2", "finalJob"]
    assert prepared["a2"].job.parents == ("a1",)
    assert prepared["finalJob"].job.is_final


def test_a_node_that_does_nothing_still_orders_others():
    generic = workflow(job("a1"), job("b1"))
    generic.add_job(GenericWorkflowNoopJob("gate", "gate"), ["a1"], ["b1"])

    prepared = prepare(generic)

    assert not prepared["gate"].job.has_command
    assert prepared["b1"].job.parents == ("gate",)


@pytest.mark.parametrize(("blocking", "link"), [(True, "parents"), (False, "waits_for")])
def test_a_group_is_dissolved_into_its_jobs(blocking, link):
    group = GenericWorkflowGroup("g", "g", blocking=blocking)
    group.add_job(job("b1"))
    group.add_job(job("b2"))
    group.add_job_relationships("b1", "b2")
    generic = workflow(job("a1"), job("c1"))
    generic.add_job(group, ["a1"], ["c1"])

    prepared = prepare(generic)

    assert prepared["b1"].job.parents == ("a1",)
    assert getattr(prepared["c1"].job, link) == ("b2",)


def test_cores_and_memory_come_from_the_configuration():
    made = LocalWorkflow.from_generic_workflow(
        Configuration(localCores="3", localMemory=9000), workflow(job("a1")), "/submit", "s"
    )

    assert (made.facts["cpus"], made.facts["memory_mb"]) == (3, 9000)


def test_a_final_workflow_of_several_jobs_is_refused():
    generic = workflow(job("a1"))
    generic.add_final(workflow(job("f1")))

    with pytest.raises(Rejected, match="several jobs"):
        prepare(generic)


@pytest.mark.parametrize(
    ("attributes", "settings", "line"),
    [
        (
            {"request_walltime": "01:30:00"},
            {},
            "a: requestWalltime '01:30:00' is no number of minutes; give one in digits",
        ),
        ({}, {"localMemory": "4G"}, "localMemory '4G' is no number of MB; give one in digits"),
    ],
)
def test_what_is_no_number_is_refused_in_a_line(attributes, settings, line):
    with pytest.raises(Rejected) as caught:
        prepare(workflow(job("a1", **attributes)), **settings)

    assert str(caught.value) == line
