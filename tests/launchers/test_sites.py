"""A profile's batch system in the words of each plugin."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsst.ctrl.bps import GenericWorkflow, GenericWorkflowExec, GenericWorkflowJob

sys.path.insert(0, str(Path(__file__).parent))

from condor_arguments import arguments

from launchers.sites import HTCONDOR, PANDA, refuse_what_is_cut, site_bps, url_on_workers, without_hidden_file
from resources.errors import Rejected
from resources.site import SoftwareSettings, UrlRule, WmsSettings

STACK = SoftwareSettings(stack="/cvmfs/stack/w_1")
LOCAL = "launchers.local.service.LocalService"
SLURM = "launchers.slurm.service.SlurmService"
CEPH = UrlRule(here="/cephfs", on_workers="davs://gate:1094/cephfs")
SPOOL = UrlRule(here="/cephfs/spool", on_workers="/spool")


def settings(service: str = LOCAL, **changes) -> WmsSettings:
    return WmsSettings.model_validate({"service": service, "compute_site": "HERE"} | changes)


def test_a_site_that_needs_nothing_says_service_and_site_alone() -> None:
    assert site_bps(settings()) == {"wmsServiceClass": LOCAL, "computeSite": "HERE"}


def test_the_profiles_own_bps_settings_win() -> None:
    bps = site_bps(settings(environment={"A": "1", "B": "2"}, bps={"environment": {"B": "3"}, "queue": "q"}))
    assert bps["environment"] == {"A": "1", "B": "3"}
    assert bps["queue"] == "q"


def test_the_workers_variables_end_where_they_should() -> None:
    assert site_bps(settings(environment={"A": "$SCRATCH/x"}))["environment"] == {"A": "${SCRATCH}/x"}


def test_files_to_include_are_named_in_order() -> None:
    assert site_bps(settings(include_configs=("a.yaml", "b.yaml")))["includeConfigs"] == ["a.yaml", "b.yaml"]


def test_our_own_services_set_the_software_up_before_the_command() -> None:
    bps = site_bps(settings(software=STACK, prologue=("source $HOME/x.sh",)))
    assert bps["preCmdline"] == (
        "source ${HOME}/x.sh || exit 1; unset PYTHONPATH || exit 1;"
        " source /cvmfs/stack/w_1/loadLSST.bash || exit 1; setup lsst_distrib || exit 1;"
    )


@pytest.mark.parametrize(
    ("service", "setting", "more"),
    [
        (LOCAL, "preCmdline", {}),
        (SLURM, "preCmdline", {}),
        (HTCONDOR, "setupEnv", {}),
        (PANDA, "runnerCommand", {"bps": {"fileDistributionEndPoint": "/shared/cache/"}}),
    ],
)
@pytest.mark.parametrize("prologue", [("false", "true"), ("true", "true && false"), ("false", "false || true")])
def test_every_batch_systems_job_stops_at_the_first_command_of_its_prologue_that_fails(
    service: str, setting: str, more: dict[str, object], prologue: tuple[str, ...]
) -> None:
    before = site_bps(settings(service, prologue=prologue, **more))[setting]

    done = subprocess.run(["bash", "-c", f"{before}\necho went on"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")


def test_a_container_where_none_can_run_is_refused() -> None:
    with pytest.raises(Rejected, match="can't run jobs in a container"):
        site_bps(settings(software=SoftwareSettings(image="drp.sif")))


def test_htcondor_runs_the_prologue_first_and_gives_up_when_it_fails() -> None:
    bps = site_bps(settings(HTCONDOR, software=STACK, prologue=("fetch",)))
    assert bps["bpsMakeCommand"] is False
    assert bps["setupEnv"].startswith("fetch || exit 1; unset PYTHONPATH || exit 1; source /cvmfs/stack/w_1/")


def test_htcondor_itself_runs_the_container() -> None:
    software = SoftwareSettings(image="/cvmfs/images/drp.sif", binds=("/cephfs", "/cvmfs"))
    condor = site_bps(settings(HTCONDOR, software=software))["site"]["HERE"]["profile"]["condor"]
    assert condor == {"+SingularityImage": '"/cvmfs/images/drp.sif"', "+SingularityBind": '"/cephfs,/cvmfs"'}


@pytest.mark.parametrize(
    ("service", "more"),
    [
        (HTCONDOR, {}),
        (PANDA, {"bps": {"fileDistributionEndPoint": "/shared/cache/"}}),
        (PANDA, {"bps": {"fileDistributionEndPoint": "/shared/cache/"}, "software": {"image": "drp.sif"}}),
    ],
)
@pytest.mark.parametrize("word", ['"two  words"', "'two  words'", "\"$(echo 'two  words')\""])
def test_a_prologue_may_have_quotes_and_commands_in_it(
    service: str, more: dict[str, object], word: str, tmp_path: Path
) -> None:
    bps = site_bps(settings(service, prologue=(f"echo {word}",), **more))
    before = bps.get("setupEnv") or bps["runnerCommand"]
    if service == HTCONDOR:
        executable, before = arguments(f"executable=/bin/bash\narguments=\"-c '{before}'\"\nqueue\n")
        assert executable == "-c"
    for stand_in in ("apptainer", "python3"):  # in what would be the container, and for the payload
        (tmp_path / stand_in).write_text('#!/bin/bash\n[ $1 != exec ] || /bin/bash -c "$5"\n')
        (tmp_path / stand_in).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"

    done = subprocess.run(["bash", "-c", before], env={"PATH": path}, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "two  words\n"), done.stderr


@pytest.mark.parametrize("value", ["-a -b", "", "it's", 'a"b', "http://gate/?a=1&b=2", "a;b", "$(hostname)"])
def test_a_variable_that_would_end_the_commands_of_its_jobs_is_refused(value: str) -> None:
    with pytest.raises(Rejected, match=r"environment of isr: PIPE_OPTS=.* would end the commands of its jobs"):
        refuse_what_is_cut(workflow_with(PIPE_OPTS=value))


@pytest.mark.parametrize("value", ["/a/b.yaml", "<ENV:_CONDOR_SCRATCH_DIR>/db-auth.yaml", "a,b:c=d", "0"])
def test_a_variable_of_one_word_is_taken(value: str) -> None:
    refuse_what_is_cut(workflow_with(LSST_DB_AUTH=value))


def workflow_with(**environment: str) -> GenericWorkflow:
    workflow = GenericWorkflow("w")
    executable = GenericWorkflowExec("pipetask", "pipetask", False)
    workflow.add_job(GenericWorkflowJob("j", "isr", executable=executable, environment=environment))
    return workflow


def test_htcondors_plain_service_which_never_sees_an_end_is_refused() -> None:
    with pytest.raises(Rejected, match=r"write launchers\.htcondor\.HTCondorService instead"):
        site_bps(settings("lsst.ctrl.bps.htcondor.HTCondorService"))


def test_provenance_is_written_where_pandas_jobs_fetch_their_files_from() -> None:
    bps = site_bps(settings(PANDA, bps={"fileDistributionEndPoint": "davs://gate/cache/"}))
    assert bps["provenanceOnWorkers"] == "{fileDistributionEndPoint}{uniqProcName}_provenance.qg"


@pytest.mark.parametrize(
    ("bps", "options"),
    [
        ({}, None),
        ({"bpsUseShared": False}, ""),
        ({"bpsUseShared": False, "provenanceOnWorkers": "s3://drp/{uniqProcName}.qg"}, None),
    ],
)
def test_htcondors_final_job_writes_no_provenance_where_nobody_could_fetch_it(
    bps: dict[str, object], options: str | None
) -> None:
    assert site_bps(settings(HTCONDOR, bps=bps)).get("extraAggregateOptions") == options


def test_pandas_runner_ends_with_the_plugins_decoder() -> None:
    bps = site_bps(settings(PANDA, software=STACK, bps={"fileDistributionEndPoint": "davs://gate/cache/"}))
    assert bps["runnerCommand"].endswith("edgenode.cmd_line_decoder _cmd_line_; exit $?;")
    assert bps["runnerCommand"].startswith("unset PYTHONPATH || exit 1; source /cvmfs/stack/w_1/loadLSST.bash")
    assert bps["enableJobNameMap"] is True


def test_panda_runs_the_payload_in_the_container() -> None:
    software = SoftwareSettings(image="drp.sif", binds=("/cvmfs",), stack="/opt/lsst")
    bps = site_bps(settings(PANDA, software=software, bps={"fileDistributionEndPoint": "/shared/cache/"}))
    assert bps["runnerCommand"].startswith("apptainer exec --bind /cvmfs drp.sif /bin/bash -c 'unset PYTHONPATH")


@pytest.mark.parametrize("where", ["", "cache/", "davs://gate/cache"])
def test_panda_without_a_place_for_files_is_refused(where: str) -> None:
    with pytest.raises(Rejected, match="absolute URL that ends with /"):
        site_bps(settings(PANDA, bps={"fileDistributionEndPoint": where}))


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("/cephfs/repo", "davs://gate:1094/cephfs/repo"),
        ("/cephfs/spool/repo", "/spool/repo"),
        ("/elsewhere/repo", "/elsewhere/repo"),
        ("file://s3://bucket/repo", "s3://bucket/repo"),
        ("file:///elsewhere/repo", "file:///elsewhere/repo"),
    ],
)
def test_jobs_see_urls_as_the_site_names_them(url: str, seen: str) -> None:
    assert url_on_workers(url, [CEPH, SPOOL]) == seen


@given(st.sampled_from(["https", "root", "davs", "s3"]), st.text("abc/:.-", max_size=20))
def test_a_hidden_file_scheme_goes_and_goes_once(scheme: str, rest: str) -> None:
    url = f"{scheme}://{rest}"
    assert without_hidden_file(url) == url
    assert without_hidden_file(f"file://{url}") == url
    assert without_hidden_file(f"run-qbb file://{url} /x") == f"run-qbb {url} /x"
