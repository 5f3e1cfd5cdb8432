"""`drp services` brings real servers up and down, and says how they are."""

import pytest
from typer.testing import CliRunner

from commands.services import app, services_folder
from resources.errors import SiteFault
from services.catalogue import entries, make_postgresql
from services.service import ServiceError

pytestmark = pytest.mark.integration

ONE, OTHER = "postgresql", "embedded-kafka"


@pytest.fixture
def drp(tmp_path, monkeypatch):
    """Type a subcommand; give what it prints."""
    monkeypatch.setenv("DRP_STATE", str(tmp_path))

    def run(*words):
        result = CliRunner().invoke(app, list(words))
        if result.exception is not None:
            raise result.exception
        return result.stdout

    yield run
    run("down")


def test_services_come_up_are_seen_and_go_down_with_their_data_kept(drp):
    said = drp("up", ONE, OTHER)
    server = make_postgresql(services_folder())
    assert f"{server.address}  {server.access}" in said
    server.create_database("kept")

    lines = {line.split()[0]: line.split() for line in drp("status").splitlines()}
    assert lines[ONE][1:4] == ["runs", server.address, str(server.pid)]
    assert lines[OTHER][1] == "runs"
    assert lines["kafka-site"][1:] == ["down"]

    pid = server.pid
    drp("up", ONE)
    assert server.pid == pid

    assert drp("down", ONE).split() == [ONE, "ended"]
    assert server.pid is None
    drp("up", ONE)
    assert server.connect("kept").closed is False


def test_a_server_that_is_stuck_is_seen(drp, monkeypatch):
    drp("up", OTHER)
    monkeypatch.setattr("services.embedded_kafka.EmbeddedKafka.is_ready", lambda service: False)

    assert "doesn't answer" in drp("status", OTHER)


def test_logs_show_the_last_lines(drp, capfd):
    drp("up", ONE)
    drp("down", ONE)
    drp("logs", ONE, "--lines", "1")

    assert capfd.readouterr().out.splitlines()[-1].endswith("database system is shut down")


def test_a_service_that_was_never_started_has_no_log(drp):
    with pytest.raises(SiteFault, match="postgresql: has no log"):
        drp("logs", ONE)


@pytest.mark.parametrize("command", ["up", "down", "status", "logs"])
def test_an_unknown_name_is_answered_with_the_known_ones(drp, command):
    with pytest.raises(SiteFault, match="no service is called mysql; there are postgresql"):
        drp(command, "mysql")


def test_a_service_that_fails_is_an_error_and_the_others_run(drp, monkeypatch):
    monkeypatch.setattr("services.postgresql.PostgreSQL.packages", ("postgresql",))
    monkeypatch.setattr("services.postgresql._PROGRAMS", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(SiteFault, match=f"^{ONE}: failed, for the reasons above$"):
        drp("up", ONE, OTHER)

    assert "runs" in drp("status", OTHER)


def test_of_several_that_fail_each_says_why(tmp_path, monkeypatch):
    reasons = {entry.name: f"{entry.name} is broken in its own way" for entry in entries([ONE, OTHER])}

    def start(service):
        raise ServiceError(reasons[service.folder.name])

    monkeypatch.setenv("DRP_STATE", str(tmp_path))
    monkeypatch.setattr("services.service.Service.start", start)

    result = CliRunner().invoke(app, ["up", ONE, OTHER])

    assert sorted(result.stdout.splitlines()) == [f"{name:20}failed {reasons[name]}" for name in sorted(reasons)]
    assert {*str(result.exception).partition(": ")[0].split(", ")} == {ONE, OTHER}


def test_ending_what_does_not_run_says_so(drp, tmp_path):
    assert drp("down", ONE) == f"nothing ran in {tmp_path}/services\n"
