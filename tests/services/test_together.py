"""Services start side by side, each after what it needs, and end the other way round."""

import threading

import pytest

from services import catalogue, together
from services.catalogue import Entry
from services.service import Service, ServiceError


class Pretended(Service):
    """Notes that it was started and ended; meets others where it has to be started together with them."""

    def __init__(self, folder, notes, meeting=None, fault=None):
        super().__init__(folder)
        self.notes, self.meeting, self.fault = notes, meeting, fault

    def start(self):
        if self.meeting:
            self.meeting.wait(timeout=30)
        if self.fault:
            raise self.fault
        self.notes.append(f"{self.folder.name} starts")
        return self

    def stop(self):
        self.notes.append(f"{self.folder.name} ends")

    def command(self):
        return []

    def is_ready(self):
        return True

    @property
    def address(self):
        return ""


@pytest.fixture
def notes():
    return []


@pytest.fixture
def pretend(monkeypatch, notes):
    """Make a catalogue of what each needs, with meetings and faults by name."""

    def make(needs, meetings=None, faults=None):
        entries = [
            Entry(
                name,
                Pretended,
                lambda folder, name=name: Pretended(
                    folder / name, notes, (meetings or {}).get(name), (faults or {}).get(name)
                ),
                needed,
            )
            for name, needed in needs.items()
        ]
        monkeypatch.setattr(catalogue, "ENTRIES", tuple(entries))

    return make


def test_what_is_needed_starts_first_and_ends_last(pretend, notes, tmp_path):
    pretend({"database": (), "daemon": ("database",), "web": ("daemon",)})

    assert [entry.name for entry, _ in together.start(tmp_path, ["web"])] == ["database", "daemon", "web"]
    assert [entry.name for entry, _ in together.stop(tmp_path, ["database"])] == ["web", "daemon", "database"]
    assert notes == [
        "database starts",
        "daemon starts",
        "web starts",
        "web ends",
        "daemon ends",
        "database ends",
    ]


def test_those_that_need_nothing_of_each_other_start_side_by_side(pretend, notes, tmp_path):
    meeting = threading.Barrier(2)  # breaks unless both are there at once
    pretend({"usdf": (), "site": ()}, meetings={"usdf": meeting, "site": meeting})

    assert all(started.exception() is None for _, started in together.start(tmp_path))


def test_who_needs_what_failed_is_not_started_and_the_others_are(pretend, notes, tmp_path):
    pretend({"usdf": (), "site": (), "copier": ("usdf",)}, faults={"usdf": ServiceError("no memory")})

    outcomes = {entry.name: started.exception() for entry, started in together.start(tmp_path)}

    assert str(outcomes["usdf"]) == "no memory"
    assert str(outcomes["copier"]) == "copier waits for usdf, which failed"
    assert outcomes["site"] is None
    assert notes == ["site starts"]
