"""Submissions of the sites whose batch systems can't run here, prepared by those systems' own plugins.

Only what asks a service is replaced, by stand-ins with the real ones' signatures.
"""

import binascii
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock, create_autospec

import pytest
import yaml
from lsst.ctrl.bps import BaseWmsService
from lsst.ctrl.bps.drivers import prepare_driver

TOY = Path(__file__).parents[1] / "launchers"
sys.path.insert(0, str(TOY))

from condor_arguments import arguments  # noqa: E402
from toy_repository import make_repository, make_request  # noqa: E402

from launchers import bps, watch  # noqa: E402
from launchers.bps import Handle  # noqa: E402
from launchers.graph import build_graph  # noqa: E402
from launchers.sites import merged, site_bps, url_on_workers  # noqa: E402
from launchers.submission import StepRequest  # noqa: E402
from resources.errors import Rejected, Retriable  # noqa: E402
from resources.site import Site, SoftwareSettings, read_site  # noqa: E402

pytestmark = pytest.mark.integration

SITES = Path(__file__).parents[2] / "deploy" / "sites"
NAME = "toy_step1_97a5a4d1_1"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path) -> None:
    for name in ("DRP_LEDGER", "DRP_KAFKA", "DRP_TLS", "DRP_REPORTS_URL"):
        monkeypatch.setenv(name, "elsewhere")
    monkeypatch.setenv("DRP_STATE", str(tmp_path))
    monkeypatch.setenv("DRP_BUTLER", str(tmp_path / "repo"))
    monkeypatch.setenv("LSST_VERSION", "w_2026_43")
    # The client looks its server's name up when it is imported.
    for name in ("PANDA_URL", "PANDA_URL_SSL", "PANDACACHE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/server/panda")
    monkeypatch.setenv("PANDA_BEHIND_REAL_LB", "true")


@pytest.fixture
def panda(monkeypatch) -> Mock:
    """iDDS's client, which PanDA's own forwards every call to."""
    manager = importlib.import_module("idds.client.clientmanager").ClientManager
    client = create_autospec(manager, instance=True)
    client.ping.return_value = (0, (True, {"Status": "OK"}))
    for module in ("lsst.ctrl.bps.panda.panda_service", "launchers.panda"):
        monkeypatch.setattr(importlib.import_module(module), "get_idds_client", lambda config: client)
    return client


def request_at(site: Site, folder: Path) -> StepRequest:
    make_repository(folder / "repo")
    butler = {"payload": {"butlerConfig": url_on_workers(site.butler.repository, site.wms.urls)}}
    return make_request(str(folder / "repo"), folder / "submission", bps=merged(site_bps(site.wms), butler))


def submit_files(request: StepRequest) -> dict[str, dict[str, str]]:
    """HTCondor's submit files by job, as it reads them."""
    found = {}
    for file in request.submit_path.rglob("*.sub"):
        lines = [line.partition("=") for line in file.read_text().splitlines() if "=" in line]
        found[file.stem] = {key.strip(): value.strip() for key, _, value in lines}
    return found


def shell_commands(request: StepRequest) -> dict[str, str]:
    """What bash is given by job, after HTCondor has taken its quotes and macros away."""
    found = {}
    for file in request.submit_path.rglob("*.sub"):
        option, found[file.stem] = arguments(file.read_text())
        assert option == "-c"
    return found


def test_ral_fetches_its_configuration_to_the_jobs_scratch_before_anything_else(tmp_path):
    site = read_site(SITES / "ral.yaml")
    request = request_at(site, tmp_path)
    graph = build_graph(request)
    (tmp_path / "bps.yaml").write_text(yaml.safe_dump(bps.bps_configuration(request, graph)))

    prepare_driver(str(tmp_path / "bps.yaml"))

    files = submit_files(request)
    assert len(files) == 8 + 8 + 4 + 1
    name, job = next((name, file) for name, file in files.items() if "_square_" in name)
    assert job["executable"] == "/bin/bash"
    assert job["accounting_group"] == "lsst"
    assert job["max_retries"] == "3"
    assert "4000 * pow(2, NumJobStarts)), 256000" in job["request_memory"]
    assert job["retry_until"] == "member(ExitCode, {1,2})"
    commands = shell_commands(request)
    command = commands[name]
    order = [
        "aws s3 cp --recursive --only-show-errors s3://lsst-config/drp $_CONDOR_SCRATCH_DIR/drp-config || exit 1;",
        "source $_CONDOR_SCRATCH_DIR/drp-config/job-environment.sh || exit 1;",
        "source /cvmfs/sw.lsst.eu/almalinux-x86_64/lsst_distrib/w_2026_43/loadLSST.bash || exit 1;",
        "setup lsst_distrib || exit 1;",
        "export LSST_DB_AUTH=${_CONDOR_SCRATCH_DIR}/drp-config/db-auth.yaml;",
        # The graph has come with the job, and the Butler is where workers see it.
        f"pipetask --long-log --log-level=INFO run-qbb s3://lsst-config/butler/butler.yaml {NAME}.qg --qgraph-node-id",
        "exit $ret;",
    ]
    places = [command.find(part) for part in order]
    assert -1 not in places, command
    assert places == sorted(places)
    assert job["transfer_input_files"].endswith(f"{NAME}.qg")
    final = files["finalJob"]
    assert final["request_cpus"] == "8"
    assert "64000" in final["request_memory"]
    assert f" ./final_job.bash {NAME}.qg s3://lsst-config/butler/butler.yaml; " in commands["finalJob"]
    # The submission's folder is on another machine than the final job.
    script = (request.submit_path / "final_job.bash").read_text()
    assert f" -o s3://lsst-drp/provenance/{NAME}.qg" in script
    assert str(tmp_path) not in script


def at_ral(tmp_path: Path, **changes: object) -> StepRequest:
    site = read_site(SITES / "ral.yaml")
    return request_at(site.model_copy(update={"wms": site.wms.model_copy(update=changes)}), tmp_path)


def test_a_job_at_ral_runs_with_whatever_its_prologue_has_in_it(tmp_path, monkeypatch):
    prologue = ("export PIPE_OPTS='-a  -b'", 'export WHERE="$(echo "$PIPE_OPTS")"')
    request = at_ral(tmp_path, prologue=prologue, software=SoftwareSettings(), environment={"ONE": "word"})
    graph = build_graph(request)
    (tmp_path / "bps.yaml").write_text(yaml.safe_dump(bps.bps_configuration(request, graph)))
    prepare_driver(str(tmp_path / "bps.yaml"))
    command = next(command for name, command in shell_commands(request).items() if "_square_" in name)
    (tmp_path / "pipetask").write_text('#!/bin/bash\necho "has: $WHERE, $ONE"\n')
    (tmp_path / "pipetask").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "\nhas: -a  -b, word\n" in done.stdout


@pytest.mark.parametrize("which", ["ral", "lancaster"])
def test_a_variable_that_would_end_the_commands_of_its_jobs_is_refused_before_anything_is_submitted(
    tmp_path, panda, which
):
    request = request_at(read_site(SITES / f"{which}.yaml"), tmp_path)
    release = {"pipetask": {"square": {"environment": {"PIPE_OPTS": "-a -b"}}}}
    request = make_request(request.butler, request.folder, bps=merged(request.bps, release))

    with pytest.raises(Rejected, match="environment of square: PIPE_OPTS='-a -b' would end the commands"):
        bps.submit(request, build_graph(request))

    assert bps.find(request.folder) is None


def test_ral_hands_the_whole_dag_to_dagman_once(tmp_path, monkeypatch):
    request = request_at(read_site(SITES / "ral.yaml"), tmp_path)
    graph = build_graph(request)
    service = importlib.import_module("lsst.ctrl.bps.htcondor.htcondor_service")
    create = create_autospec(service.htc_create_submit_from_dag)
    ad = {"ClusterId": 77, "ProcId": 0, "bps_run": NAME, "GlobalJobId": "schedd#77.0"}
    submit = create_autospec(service.htc_submit_dag, return_value={"schedd": {"77.0": ad}})
    monkeypatch.setattr(service, "htc_create_submit_from_dag", create)
    monkeypatch.setattr(service, "htc_submit_dag", submit)

    handle = bps.submit(request, graph)

    folder = str(request.submit_path)
    assert handle == Handle("launchers.htcondor.HTCondorService", folder, NAME, folder)
    assert bps.submit(request, graph) == handle
    assert create.call_args.args[0] == f"{NAME}.dag"
    submit.assert_called_once_with(create.return_value)


def test_ral_orders_jobs_so_that_one_bad_detector_blocks_its_descendants_alone(tmp_path):
    request = request_at(read_site(SITES / "ral.yaml"), tmp_path)
    graph = build_graph(request)
    (tmp_path / "bps.yaml").write_text(yaml.safe_dump(bps.bps_configuration(request, graph)))

    prepare_driver(str(tmp_path / "bps.yaml"))

    dag = (request.submit_path / f"{NAME}.dag").read_text()
    links = re.findall(r"^PARENT (\S+) CHILD (.+)$", dag, re.MULTILINE)
    assert len(links) == 8 + 8
    for parent, children in links:
        kind, exposure = re.search(r"_(double|square)_(\d+)", parent).groups()
        assert all(
            f"_{ {'double': 'square', 'square': 'sum'}[kind] }_{exposure}" in child for child in children.split()
        )
    assert "FINAL finalJob" in dag


def test_lancasters_works_are_right_for_panda(tmp_path, panda):
    site = read_site(SITES / "lancaster.yaml")
    request = request_at(site, tmp_path)
    graph = build_graph(request)
    (tmp_path / "bps.yaml").write_text(yaml.safe_dump(bps.bps_configuration(request, graph)))

    _, workflow = prepare_driver(str(tmp_path / "bps.yaml"))

    works = {work.task_name: work for work in workflow.idds_client_workflow.template.works.values()}
    assert sorted(works) == [
        f"{NAME}_01_double_01",
        f"{NAME}_02_square_01",
        f"{NAME}_03_sum_01",
        f"{NAME}_04_finalJob_01",
    ]
    square = works[f"{NAME}_02_square_01"]
    assert (square.task_site, square.task_cloud, square.task_queue) == ("LANCS", "EU", "LANCS_Rubin")
    assert (square.task_rss, square.task_rss_retry_step, square.maxAttempt) == (4000, 8000, 3)
    assert len(square.dependency_map) == 8
    assert all(each["dependencies"][0]["task"] == f"{NAME}_01_double_01" for each in square.dependency_map)
    runner = square.executable
    shared = "source /cephfs/grid/lsst/config/job-environment.sh || exit 1;"
    stack = "source /cvmfs/sw.lsst.eu/almalinux-x86_64/lsst_distrib/w_2026_43/loadLSST.bash || exit 1;"
    assert runner.startswith(shared)
    assert runner.index(shared) < runner.index(stack) < runner.index("cmd_line_decoder")
    cache = f"davs://xgate.hec.lancs.ac.uk:1094/cephfs/grid/lsst/panda_cache/{NAME}/"
    assert f" ${{IN/L}} {cache} " in runner
    command = payload(runner)
    assert "export LSST_DB_AUTH=/cephfs/grid/lsst/config/db-auth.yaml;" in command
    # As the plugin's decoder on the worker fills it in.
    decoder = importlib.import_module("lsst.ctrl.bps.panda.edgenode.cmd_line_decoder")
    files = runner.partition(cache)[2].split()[0]
    command = decoder.replace_files_placeholders(command, files)
    assert f" run-qbb {request.butler} {cache}{NAME}.qg --qgraph-node-id {{qgraphNodeId}}" in command
    assert f" -o {cache}{NAME}_provenance.qg" in (request.submit_path / "final_job.bash").read_text()
    final = works[f"{NAME}_04_finalJob_01"]
    assert (final.task_queue, final.task_rss, final.core_count) == ("LANCS_Rubin_Merge", 128000, 10)
    assert workflow.files_to_pre_stage["runQgraphFile"].endswith(f"{NAME}.qg")


def payload(runner: str) -> str:
    found = re.search(r"(?<=cmd_line_decoder )[0-9a-f]+", runner)
    assert found
    return binascii.unhexlify(found[0]).decode()


def test_no_file_scheme_is_left_before_another_one(tmp_path, panda):
    site = read_site(SITES / "lancaster.yaml")
    request = request_at(site, tmp_path)
    hidden = {"payload": {"butlerConfig": "file://davs://xgate:1094/repo"}, "environment": {"X": "file://s3://b/x"}}
    request = make_request(request.butler, request.folder, bps=merged(request.bps, hidden))
    graph = build_graph(request)
    (tmp_path / "bps.yaml").write_text(yaml.safe_dump(bps.bps_configuration(request, graph)))

    _, workflow = prepare_driver(str(tmp_path / "bps.yaml"))

    for work in workflow.idds_client_workflow.template.works.values():
        command = payload(work.executable)
        assert "file://" not in work.executable + command
    assert "davs://xgate:1094/repo" in command


def test_a_request_that_panda_has_taken_is_found_by_its_name_and_not_made_again(tmp_path, panda, monkeypatch):
    request = request_at(read_site(SITES / "lancaster.yaml"), tmp_path)
    graph = build_graph(request)
    service = importlib.import_module("lsst.ctrl.bps.panda.panda_service")
    copied = create_autospec(service.copy_files_for_distribution)
    monkeypatch.setattr(service, "copy_files_for_distribution", copied)
    panda.submit.side_effect = ConnectionResetError("after the request was taken")
    with pytest.raises(Retriable, match="did not take it"):
        bps.submit(request, graph)
    assert copied.call_count == 1
    assert panda.submit.call_count == 1

    panda.get_request_id_by_name.return_value = (0, (True, {NAME: 4711}))
    panda.get_requests.return_value = (0, (True, [record()]))
    handle = bps.submit(request, graph)

    assert handle == Handle("launchers.panda.PandaService", "4711", NAME, str(request.submit_path))
    assert panda.submit.call_count == 1
    panda.get_request_id_by_name.assert_called_with(name=NAME)


def test_a_request_that_panda_has_not_taken_is_made_again(tmp_path, panda, monkeypatch):
    request = request_at(read_site(SITES / "lancaster.yaml"), tmp_path)
    graph = build_graph(request)
    service = importlib.import_module("lsst.ctrl.bps.panda.panda_service")
    monkeypatch.setattr(service, "copy_files_for_distribution", create_autospec(service.copy_files_for_distribution))
    panda.submit.side_effect = [ConnectionResetError("before it got there"), (0, (True, 4712))]
    with pytest.raises(Retriable):
        bps.submit(request, graph)
    panda.get_request_id_by_name.return_value = (0, (True, {}))

    assert bps.submit(request, graph).wms_id == "4712"


@pytest.mark.parametrize(
    "answer", [(0, (False, "database is restarted")), (0, (True, "Authentication no permission")), (255, "no route")]
)
def test_a_panda_that_does_not_answer_is_waited_for(panda, answer):
    handle = Handle("launchers.panda.PandaService", "4711", NAME, "/submit")
    done = record() | {"status": {"attributes": {"_name_": "Finished"}}}
    panda.get_requests.side_effect = [answer, (0, (True, [done]))]

    assert watch.watch(handle, poll_s=0.0, silence_s=5.0).state == "SUCCEEDED"


def record() -> dict:
    """A request without tasks yet, as iDDS tells of it."""
    status = {"attributes": {"_name_": "Transforming"}}
    return {"request_id": 4711, "username": "drp", "name": NAME, "status": status, "transform_id": None}


def service_classes() -> list[tuple[str, str]]:
    return [("launchers.htcondor", "HTCondorService"), ("launchers.panda", "PandaService")]


@pytest.mark.parametrize(("module", "name"), service_classes())
@pytest.mark.parametrize("method", ["prepare", "submit", "restart", "report", "cancel", "list_submitted_jobs"])
def test_the_plugins_take_what_the_watcher_gives_them(module, name, method):
    plugin: ModuleType = importlib.import_module(module)
    theirs = inspect.signature(getattr(getattr(plugin, name), method))
    ours = inspect.signature(getattr(BaseWmsService, method))
    assert set(ours.parameters) <= set(theirs.parameters)
