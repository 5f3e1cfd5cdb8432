import errno
import subprocess

import pytest
from lsst.ctrl.bps import (
    BpsConfig,
    GenericWorkflow,
    GenericWorkflowExec,
    GenericWorkflowFile,
    GenericWorkflowGroup,
    GenericWorkflowJob,
    GenericWorkflowLazyGroup,
    GenericWorkflowNoopJob,
)

from launchers.slurm.jobs import Request
from launchers.slurm.store import JobStore, read_request
from launchers.slurm.workflow import SlurmWorkflow, folder_fault, translate
from resources.errors import Rejected


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


def configuration(**settings) -> BpsConfig:
    return BpsConfig({"computeSite": "here", **settings})


def output_of(script: str) -> str:
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False).stdout


def only_request(*jobs: GenericWorkflowJob, **settings):
    plan, _ = translate(configuration(**settings), workflow(*jobs))
    (request,) = plan.blocks
    return request


def test_a_command_line_has_its_values_files_variables_and_attempt():
    one = job("a1", "{what} <FILE:graph> <ENV:COLOUR> <WMS:attemptNum><WMS:unheardOf>", cmdvals={"what": "run"})
    one.environment = {"BPS_SLURM_ATTEMPT": "2", "SHADE": "dark red", "COLOUR": "very <ENV:SHADE>"}
    generic = workflow(one)
    generic.add_job_inputs("a1", [GenericWorkflowFile("graph", "/data/x.qg")])

    _, (script,) = translate(configuration(), generic)

    assert output_of(script) == "run /data/x.qg very dark red 2\n"


def test_what_comes_before_and_after_a_command_is_run_whatever_its_end():
    one = job("a1", "main", pre_cmdline="echo before", post_cmdline="echo after")
    one.executable = GenericWorkflowExec("false", "false", False)

    _, (script,) = translate(configuration(), workflow(one))

    assert output_of(script) == "before\nafter\n"


@pytest.mark.parametrize("prologue", ["(exit 7)", "echo first\n(exit 7)", "(exit 7) # fails", "exit 7; echo first"])
def test_a_job_whose_prologue_fails_stops_there_with_its_exit_code(prologue):
    _, (script,) = translate(configuration(), workflow(job("a1", "main", pre_cmdline=prologue)))

    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 7
    assert "main" not in done.stdout


def test_what_a_prologue_sets_the_command_sees():
    _, (script,) = translate(configuration(), workflow(job("a1", "<ENV:COLOUR>", pre_cmdline="export COLOUR=red")))

    assert output_of(script) == "red\n"


def test_what_bps_asks_for_a_job_is_kept():
    request = only_request(
        job(
            "a1",
            request_cpus=2,
            request_memory=4096,
            request_memory_max=8000,
            memory_multiplier=2.0,
            request_disk=100,
            request_walltime="30.5",
            number_of_retries=3,
            retry_unless_exit=[1, 2],
            abort_on_value=9,
            preemptible=False,
            priority="5",
            queue="long",
            accounting_group="lsst",
            mail_to="me@example.org",
            when_to_mail="FAIL",
            concurrency_limit="db_limit, disk:2",
        ),
        memoryLimit=9000,
    )

    assert (request.cpus, request.memory_mb, request.memory_limit_mb, request.memory_multiplier) == (2, 4096, 8000, 2.0)
    assert (request.disk_mb, request.walltime_min, request.retries, request.no_retry_codes) == (100, 31, 3, (1, 2))
    assert request.limits == ("db_limit", "disk:2")
    assert (request.abort_code, request.preemptible, request.urgency) == (9, False, 5)
    assert request.options == ("--account=lsst", "--mail-type=FAIL", "--mail-user=me@example.org", "--partition=long")


@pytest.mark.parametrize(
    ("attributes", "settings", "line"),
    [
        (
            {"request_walltime": "01:30:00"},
            {},
            "a: requestWalltime '01:30:00' is no number of minutes; give one in digits",
        ),
        ({"request_memory": "4G"}, {}, "a: requestMemory '4G' is no number of MB; give one in digits"),
        ({"number_of_retries": -1}, {}, "a: numberOfRetries -1 is no number of tries; give one in digits"),
        ({}, {"slurmMaxSubmit": "5k"}, "slurmMaxSubmit '5k' is no number of jobs; give one in digits"),
        ({}, {"slurmPollInterval": "nan"}, "slurmPollInterval 'nan' is no number of seconds; give one in digits"),
        (
            {},
            {"slurmDispatcher": {"requestWalltime": "2h"}},
            "slurmDispatcher: requestWalltime '2h' is no number of minutes; give one in digits",
        ),
    ],
)
def test_what_is_no_number_is_refused_in_a_line(attributes, settings, line):
    with pytest.raises(Rejected) as caught:
        SlurmWorkflow.from_generic_workflow(
            configuration(**settings), workflow(job("a1", **attributes)), "/submit", "s"
        )

    assert str(caught.value) == line


def test_a_profile_sets_further_options_for_the_site_and_for_a_label_over_it():
    settings = {
        "site": {"here": {"profile": {"slurm": {"qos": "normal", "constraint": "ssd", "exclusive": True}}}},
        "pipetask": {"a": {"profile": {"slurm": {"qos": "high"}}}},
    }
    plan, _ = translate(configuration(**settings), workflow(job("a1"), job("b1")))

    assert {request.label: request.options for request in plan.blocks} == {
        "a": ("--constraint=ssd", "--exclusive", "--qos=high"),
        "b": ("--constraint=ssd", "--exclusive", "--qos=normal"),
    }


def test_a_profile_cannot_set_what_bps_has_a_setting_for():
    with pytest.raises(Rejected, match=r"site.here.profile.slurm: a profile can't set mem; use BPS's own"):
        translate(configuration(site={"here": {"profile": {"slurm": {"mem": "5G"}}}}), workflow(job("a1")))


def test_what_slurm_has_nothing_for_is_said_so(tmp_path):
    generic = workflow(
        job("a1", accounting_user="me", category="big", attrs={"Nice": 1}),
        job("a2", accounting_user="me"),
        job("b1", accounting_user="me", abort_on_value=9, abort_return_value=0),
        job("c1", attrs={}, accounting_group="lsst"),
    )

    SlurmWorkflow.from_generic_workflow(configuration(), generic, "/submit", "s").write(str(tmp_path))

    told = [line.partition(" ")[2] for line in (tmp_path / "events.log").read_text().splitlines()]
    assert sorted(told) == [
        "a, b: accountingUser means nothing on Slurm",
        "a: attrs means nothing on Slurm",
        "a: category means nothing on Slurm",
        "b: abortReturnValue means nothing on Slurm",
    ]


def test_a_workflow_that_asks_for_nothing_special_is_told_nothing(tmp_path):
    SlurmWorkflow.from_generic_workflow(configuration(), workflow(job("a1")), "/submit", "s").write(str(tmp_path))

    assert not (tmp_path / "events.log").exists()


def test_a_priority_that_is_no_number_is_refused():
    with pytest.raises(Rejected, match="a: the priority 'soon' is no number"):
        translate(configuration(), workflow(job("a1", priority="soon")))


def test_like_jobs_are_one_block_however_long_they_take():
    jobs = [job("a1", request_walltime=10), job("a2", request_walltime=30), job("b1"), job("a3", request_memory=9)]

    plan, _ = translate(configuration(), workflow(*jobs))

    assert [(request.label, request.memory_mb, request.walltime_min) for request in plan.blocks] == [
        ("a", 0, 30),
        ("b", 0, None),
        ("a", 9, None),
    ]
    assert {each.name: (each.block, each.place) for each in plan.jobs} == {
        "a1": (0, 0),
        "a2": (0, 1),
        "b1": (1, 0),
        "a3": (2, 0),
    }


def test_the_final_job_is_last_and_marked_so():
    generic = workflow(job("a2"), job("a1"), edges=[("a1", "a2")])
    generic.add_final(job("finalJob"))

    plan, _ = translate(configuration(), generic)

    assert [each.name for each in plan.jobs] == ["a1", "a2", "finalJob"]
    assert plan.jobs[1].parents == (0,)
    assert [each.is_final for each in plan.jobs] == [False, False, True]


def test_a_node_that_does_nothing_still_orders_others():
    generic = workflow(job("a1"), job("b1"))
    generic.add_job(GenericWorkflowNoopJob("gate", "gate"), ["a1"], ["b1"])

    plan, _ = translate(configuration(), generic)

    by_name = {each.name: each for each in plan.jobs}
    assert not by_name["gate"].has_command
    assert plan.jobs[by_name["b1"].parents[0]].name == "gate"


@pytest.mark.parametrize(("blocking", "link"), [(True, "parents"), (False, "waits_for")])
def test_a_group_is_dissolved_into_its_jobs(blocking, link):
    group = GenericWorkflowGroup("g", "g", blocking=blocking)
    group.add_job(job("b1"))
    group.add_job(job("b2"))
    group.add_job_relationships("b1", "b2")
    generic = workflow(job("a1"), job("c1"))
    generic.add_job(group, ["a1"], ["c1"])

    plan, _ = translate(configuration(), generic)

    by_name = {each.name: each for each in plan.jobs}
    assert [plan.jobs[n].name for n in by_name["b1"].parents] == ["a1"]
    assert [plan.jobs[n].name for n in getattr(by_name["c1"], link)] == ["b2"]


def test_jobs_that_are_not_known_yet_are_refused():
    generic = workflow()
    generic.add_job(GenericWorkflowLazyGroup("later", "later", executable=GenericWorkflowExec("bps", "bps", False)))

    with pytest.raises(Rejected, match="lazy group later"):
        translate(configuration(), generic)


def test_the_dispatcher_goes_where_the_jobs_go_unless_it_is_told_otherwise():
    generic = workflow(job("a1", queue="long", accounting_group="lsst"))

    def asked(**settings) -> Request:
        made = SlurmWorkflow.from_generic_workflow(configuration(**settings), generic, "/submit", "s")
        return read_request(made.facts["dispatcher"])

    name = "slurmDispatcher"
    assert asked() == Request(name, memory_mb=512, options=("--account=lsst", "--partition=long"))
    own = {"queue": "service", "requestMemory": 2000, "requestWalltime": 100}
    assert asked(slurmDispatcher=own) == Request(
        name, memory_mb=2000, walltime_min=100, options=("--account=lsst", "--partition=service")
    )
    site = {"here": {"profile": {"slurm": {"qos": "drp", "exclusive": True}}}}
    own = {"profile": {"slurm": {"reservation": "service", "exclusive": False}}}
    asked_for = ("--account=lsst", "--partition=long", "--qos=drp", "--reservation=service")
    assert asked(site=site, slurmDispatcher=own).options == asked_for
    with pytest.raises(Rejected, match="slurmDispatcher: 4 minutes are too few"):
        asked(slurmDispatcher={"requestWalltime": 4})
    with pytest.raises(Rejected, match="a profile can't set mem"):
        asked(slurmDispatcher={"profile": {"slurm": {"mem": 1}}})
    with pytest.raises(Rejected, match="slurmDispatcher: unknown settings nonsense"):
        asked(slurmDispatcher={"nonsense": 1})


def test_what_was_written_is_read_back(tmp_path):
    generic = workflow(job("a1"), job("b/1", request_memory=5), edges=[("a1", "b/1")])
    generic.run_attrs = {"bps_operator": "me", "bps_runsite": "here"}
    made = SlurmWorkflow.from_generic_workflow(configuration(slurmPollInterval=3), generic, str(tmp_path), "s")

    made.write(str(tmp_path))

    plan, facts = JobStore(tmp_path).read()
    assert plan.jobs == made.plan.jobs
    assert list(plan.blocks) == list(made.plan.blocks)
    assert facts == made.facts
    assert (facts["operator"], facts["poll_s"]) == ("me", 3.0)
    assert (tmp_path / "jobs" / "b_" / "b_1.sh").read_text() == made.scripts[1]


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.ENOSPC, "/s/jobs/x: there is no space left for the submission; make room there, or set submitPath"),
        (
            errno.EACCES,
            "/s/jobs/x: the submission cannot be written: Permission denied; see the folder's mode, or set submitPath",
        ),
    ],
)
def test_a_folder_that_takes_nothing_is_said_so_in_one_line(tmp_path, number, line):
    import os

    assert str(folder_fault(OSError(number, os.strerror(number), "/s/jobs/x"), tmp_path)) == line
