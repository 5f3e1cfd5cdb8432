"""Jars come once a machine and version, and a program's command line is small and quick unless it has to endure."""

import pytest

from services.java import kafka
from services.service import ServiceError
from tests.services.stubborn import Stubborn


@pytest.fixture
def service(tmp_path):
    return Stubborn(tmp_path / "service")


@pytest.fixture
def maven(tmp_path, monkeypatch):
    """A machine without jars, whose Maven is a shell script; how often it was called."""
    programs = tmp_path / "programs"
    programs.mkdir()
    calls = tmp_path / "calls"
    monkeypatch.setenv(kafka.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    kafka.jars_folder.cache_clear()

    def install(script):
        program = programs / "mvn"
        program.write_text(f'#!/bin/sh\necho called >> {calls}\nfor word; do folder="${{word#*=}}"; done\n{script}\n')
        program.chmod(0o755)
        return lambda: len(calls.read_text().splitlines())

    yield install
    kafka.jars_folder.cache_clear()


def test_jars_are_fetched_once(maven, service, tmp_path):
    times_called = maven('mkdir -p "$folder"; touch "$folder/kafka.jar"')

    folder = kafka.jars(service)

    assert folder.parent == tmp_path / "cache"
    assert [jar.name for jar in folder.iterdir()] == ["kafka.jar"]
    assert kafka.jars(service) == folder
    assert times_called() == 1


def test_a_failed_fetch_leaves_nothing_and_is_tried_again(maven, service):
    maven('mkdir -p "$folder"; echo no repository; exit 1')
    with pytest.raises(ServiceError, match=r"stubborn: Maven brought no jars for .*pom\.xml: no repository"):
        kafka.jars(service)

    maven('mkdir -p "$folder"')
    assert kafka.jars(service).exists()


def test_a_program_that_has_to_endure_is_compiled_well(maven, service):
    maven('mkdir -p "$folder"')

    quick = kafka.java_command(service, "kafka.Kafka", ["broker.properties"], heap_mb=64)
    enduring = kafka.java_command(service, "kafka.Kafka", ["broker.properties"], heap_mb=64, enduring=True)

    assert {*quick} - {*enduring} == {"-XX:TieredStopAtLevel=1"}
    assert "-Xmx64m" in quick
    assert quick[-2:] == enduring[-2:] == ["kafka.Kafka", "broker.properties"]
