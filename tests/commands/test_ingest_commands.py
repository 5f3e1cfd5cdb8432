"""`drp ingest` as an operator meets it at night: what it says, what it asks for, what it leaves alone."""

from __future__ import annotations

import io
import json
import re
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lsst.daf.butler import Butler
from rich.console import Console

from arrivals import metrics
from arrivals.ledger import Ledger
from arrivals.message import parse_message
from arrivals.records import Partition, Reception, Settlement
from arrivals.states import State
from commands import arrival_tables, ingestd
from commands.main import main
from resources.errors import SiteFault
from simulator.messages import FileKind
from tests.arrivals.delivered import announced, deliver, make_repository, of_kind, site_of
from tests.arrivals.hermes import encoded

TOP = Path(__file__).parents[2]
PLACE = Partition("cluster", "LAPTOP-raw", 0)


@pytest.fixture
def drp(monkeypatch, tmp_path, capsys):
    """Run a command on a fresh site; gives its exit code, standard output and standard error."""
    monkeypatch.setenv("DRP_STATE", str(tmp_path))
    monkeypatch.setenv("DRP_REPORTS_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("DRP_SITE", str(TOP / "deploy" / "sites" / "laptop.yaml"))

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["drp", *arguments])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite3")
    yield ledger
    ledger.close()


@pytest.fixture
def quarantined(ledger):
    """Three messages refused for one cause, one for another, one never understood, one that waits."""
    values = [encoded(name=f"a/AT_O_20250113_{number:06d}_R00_S00.fits") for number in range(5)]
    receptions = [Reception(PLACE, offset, parse_message(value)) for offset, value in enumerate(values)]
    receptions.append(Reception(PLACE, 5, None, "message: is not JSON", "{nonsense\x1b[31m\n"))
    ledger.record_batch(receptions, {PLACE: 6}, now=datetime.now(UTC))
    rows = ledger.find(state=State.RECEIVED)
    reasons = [f"/data/{row.name}: has {row.offset} bytes, but 9 were announced" for row in rows[:3]]
    reasons.append("rubin_sidecar: unknown storage class Foo")
    ledger.settle([Settlement(r.row_id, State.QUARANTINED, why) for r, why in zip(rows[:4], reasons, strict=True)])
    ledger.settle([Settlement(rows[4].row_id, State.WAITING, "waits for exposure=7", waits_for="exposure=7")])
    return rows


@pytest.mark.usefixtures("quarantined")
def test_status_is_one_look_even_without_kafka(drp):
    code, out, err = drp("ingest", "status")

    assert (code, err) == (0, "")
    assert "6 messages" in out
    assert "0 received, 1 waiting, 0 ingested, 0 duplicate, 5 quarantined" in out
    assert "!! what is still in Kafka is unknown" in out
    assert "20250113" in out


@pytest.mark.usefixtures("quarantined")
def test_status_tells_scripts_the_same(drp):
    code, out, _ = drp("ingest", "status", "--json")
    told = json.loads(out)

    assert code == 0
    assert told["states"] == {"received": 0, "waiting": 1, "ingested": 0, "duplicate": 0, "quarantined": 5}
    assert told["kinds"]["none"] == {"quarantined": 1}
    assert {f["name"]: f["passed"] for f in told["findings"]} == {
        "kafka_lag": False,
        "ingest_delay": True,
        "oldest_waiting": True,
        "quarantine": True,
    }
    assert [(group["rows"], group["state"]) for group in told["causes"]][:1] == [(3, "quarantined")]
    assert told["kafka_lag"] is None
    assert told["oldest_waiting_s"] < 600


@pytest.mark.usefixtures("quarantined")
def test_quarantine_is_a_line_a_cause_and_all_of_it_if_asked(drp):
    _, by_cause, _ = drp("ingest", "quarantine")
    _, one_by_one, _ = drp("ingest", "quarantine", "--all")
    _, chosen, _ = drp("ingest", "quarantine", "--reason", "…: has N bytes", "--json", "--all")

    assert "…: has N bytes, but N were announced" in by_cause
    assert "5 messages, 3 causes" in by_cause
    assert one_by_one.count("LAPTOP-raw[0]@") == 5
    assert len(json.loads(chosen)["messages"]) == json.loads(chosen)["causes"][0]["rows"] == 3


def test_a_narrow_terminal_cuts_no_day_and_no_did(quarantined, ledger):
    shown = Console(width=80, record=True, file=io.StringIO())
    shown.print(arrival_tables.day_table(ledger.by_day_obs().values()))
    shown.print(arrival_tables.row_table(ledger.find()))

    told = shown.export_text()
    assert "20250113" in told
    assert "LAPTOP-raw[0]@3" in told
    columns = [line.split("│")[2].strip() for line in told.splitlines() if line.count("│") == 7]
    assert quarantined[0].did in "".join(columns)
    assert "…" not in told
    assert max(map(len, told.splitlines())) <= 80


@pytest.mark.usefixtures("quarantined")
def test_a_list_that_is_cut_says_so(drp):
    _, out, _ = drp("ingest", "quarantine", "--all", "--limit", "2")
    assert "2 of 5 messages" in out


def test_replay_says_first_what_it_would_do(drp, ledger, quarantined):
    code, out, _ = drp("ingest", "replay", "--reason", "…: has N bytes")
    assert (code, "3 messages would be tried again: repeat with --really" in out) == (0, True)
    assert ledger.counts()[State.QUARANTINED] == 5

    _, out, _ = drp("ingest", "replay", "--reason", "…: has N bytes", "--really")
    assert "3 messages will be tried again" in out
    assert {row.row_id for row in ledger.find(state=State.RECEIVED)} == {row.row_id for row in quarantined[:3]}


def test_replay_of_everything_leaves_what_was_never_understood(drp, ledger, quarantined):
    code, _, err = drp("ingest", "replay", "--really")
    assert code == 1
    assert "nothing is chosen" in err

    _, out, _ = drp("ingest", "replay", "--everything", "--really", "--json")
    told = json.loads(out)
    assert (told["able"], told["not_understood"], told["replayed"]) == (4, 1, 4)
    assert ledger.counts()[State.RECEIVED] == 4
    assert len(quarantined) == 5


@pytest.mark.usefixtures("quarantined")
def test_replay_of_nothing_is_an_error_that_says_where_to_look(drp):
    code, _, err = drp("ingest", "replay", "--exposure", "1")
    assert (code, "nothing of it is quarantined" in err) == (1, True)


@pytest.mark.usefixtures("quarantined")
def test_trace_tells_the_whole_story_also_without_a_butler(drp):
    code, out, _ = drp("ingest", "trace", "test:a/AT_O_20250113_000001_R00_S00.fits")

    assert code == 0
    for part in (
        "LAPTOP-raw[0]@1 of cluster cluster",
        "raw, day_obs 20250113",
        "14.9 MB, adler32 8b1bdc93",
        "XRD1 → XRD5",
        "submitted 2025-03-20 20:14:56; started 2025-03-20 20:15:05; transferred 2025-03-20 20:15:09",
        "quarantined since",
        "1 attempt",
        "has 1 bytes, but 9 were announced",
        "datasets   unknown: ",
        "no Butler repository",
    ):
        assert part in out, out


@pytest.mark.usefixtures("quarantined")
def test_trace_tells_the_ledgers_story_also_where_the_instruments_package_is_not_installed(drp, tmp_path, monkeypatch):
    Butler.makeRepo(str(tmp_path / "repo"))
    profile = tmp_path / "site.yaml"
    laptop = (TOP / "deploy" / "sites" / "laptop.yaml").read_text()
    profile.write_text(laptop.replace("drp_tasks.instrument.SimCam", "lsst.obs.nowhere.NowhereCam"))
    monkeypatch.setenv("DRP_SITE", str(profile))

    code, out, _ = drp("ingest", "trace", "test:a/AT_O_20250113_000001_R00_S00.fits")

    assert code == 0
    assert "quarantined since" in out
    assert "unknown: arrivals.instrument: " in out
    assert "lsst.obs.nowhere.NowhereCam" in out


@pytest.mark.usefixtures("quarantined")
def test_trace_shows_how_a_message_begins_that_was_never_understood(drp):
    code, out, _ = drp("ingest", "trace", "LAPTOP-raw[0]@5")

    assert code == 0
    assert "LAPTOP-raw[0]@5 of cluster cluster: not understood" in out
    assert "it begins  {nonsense\\x1b[31m\\n" in out
    assert "datasets   none: the message was never understood" in out

    code, _, err = drp("ingest", "trace", "LAPTOP-raw[0]@6")
    assert (code, "never announced here" in err) == (1, True)


@pytest.mark.usefixtures("quarantined")
def test_trace_takes_a_name_alone_and_knows_what_it_never_saw(drp):
    _, out, _ = drp("ingest", "trace", "a/AT_O_20250113_000004_R00_S00.fits", "--json")
    [told] = json.loads(out)
    assert (told["state"], told["waits_for"], told["transfer"]["src_rse"]) == ("waiting", "exposure=7", "XRD1")

    code, _, err = drp("ingest", "trace", "test:nothing")
    assert (code, "never announced here" in err) == (1, True)


def test_a_time_that_is_none_is_refused(drp):
    code, _, err = drp("ingest", "waiting", "--since", "yesterday")
    assert (code, "--since: 'yesterday' is no time; write 2026-11-01" in err) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    [("waiting", "--day-obs"), ("waiting", "--exposure"), ("quarantine", "--all", "--limit"), ("day",)],
)
def test_a_number_that_no_database_knows_is_refused(drp, arguments):
    code, _, err = drp("ingest", *arguments, "9" * 20)
    assert (code, "Invalid value for" in err, "OverflowError" in err) == (2, True, False)


def test_an_empty_ledger_has_nothing_to_complain_of(drp):
    assert "nothing is waiting" in drp("ingest", "waiting")[1]
    assert "none has ever come" in drp("ingest", "status")[1]


@pytest.mark.usefixtures("quarantined")
def test_metrics_are_printed_once_for_whoever_collects_files(drp):
    code, out, _ = drp("ingest", "metrics")
    assert code == 0
    assert 'drp_arrivals_messages{kind="raw",state="quarantined"} 4.0' in out
    assert "drp_arrivals_ledger_up 1.0" in out


def test_metrics_of_a_ledger_that_is_away_are_that_it_is(drp, tmp_path, monkeypatch):
    profile = tmp_path / "site.yaml"
    laptop = (TOP / "deploy" / "sites" / "laptop.yaml").read_text()
    profile.write_text(re.sub("(?m)^ledger: .*", f"ledger: sqlite:///{tmp_path}/not/there.sqlite3", laptop))
    monkeypatch.setenv("DRP_SITE", str(profile))

    code, out, err = drp("ingest", "metrics")

    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if not line.startswith("#")] == ["drp_arrivals_ledger_up 0.0"]


def test_retirement_says_first_what_is_old_enough(drp, ledger):
    message = Reception(PLACE, 0, parse_message(encoded()))
    ledger.record_batch([message], {PLACE: 1}, now=datetime(2020, 1, 15, tzinfo=UTC))
    [row] = ledger.find()
    ledger.settle([Settlement(row.row_id, State.INGESTED)])

    _, would, _ = drp("ingest", "retire", "--before", "2020-02-03")
    assert "messages received before 2020-02: 1 ingested" in would
    assert len(ledger.find()) == 1

    _, done, _ = drp("ingest", "retire", "--before", "2020-02-03", "--really")
    assert "months retired: 202001; 1 row" in done
    assert ledger.find() == []
    _, told, _ = drp("ingest", "trace", row.did)
    assert f"{row.did}: ingested; its messages were retired since (14.9 MB, adler32 8b1bdc93)" in told
    _, told, _ = drp("ingest", "trace", row.name, "--json")
    assert [(found["state"], found["scope"]) for found in json.loads(told)] == [("retired", "test")]


def test_the_present_month_is_not_retired_whatever_is_asked_for(drp, ledger):
    ledger.record_batch([Reception(PLACE, 0, None, "not JSON")], {PLACE: 1}, now=datetime.now(UTC))

    _, would, _ = drp("ingest", "retire", "--before", "2999-01-01")
    assert would.startswith(f"messages received before {datetime.now(UTC):%Y-%m}: none")
    drp("ingest", "retire", "--before", "2999-01-01", "--really")

    assert len(ledger.find()) == 1


def test_ingestd_ends_with_one_line_where_the_site_is_at_fault(drp):
    code, _, err = drp("ingestd")
    assert code == 1
    assert "no Butler repository" in err.splitlines()[-1]


def test_ingestd_serves_metrics_before_the_ledger_answers(drp, monkeypatch):
    addresses, up = [], []

    @contextmanager
    def served(*arguments: object) -> Iterator[str]:
        with metrics.served(*arguments) as url:
            addresses.append(url)
            yield url

    def scrape() -> None:
        with urllib.request.urlopen(addresses[0], timeout=60) as answer:
            told = answer.read().decode()
        up.append([line for line in told.splitlines() if line.startswith("drp_arrivals_ledger_up ")])

    def open_ledger(url: str) -> Ledger:
        scrape()
        return Ledger(url)

    def open_butler(*_: object, **__: object) -> None:
        scrape()
        raise SiteFault("no Butler repository")

    for name, stand_in in (("served", served), ("Ledger", open_ledger), ("open_butler", open_butler)):
        monkeypatch.setattr(ingestd, name, stand_in)

    code, _, _ = drp("ingestd", "--metrics-port", "0")

    assert code == 1
    assert up == [["drp_arrivals_ledger_up 0.0"], ["drp_arrivals_ledger_up 1.0"]]


@pytest.mark.parametrize("did", ["", "scope:"])
def test_a_did_without_a_name_is_no_did(drp, did):
    code, _, err = drp("ingest", "trace", did)
    assert (code, "not a DID" in err) == (1, True)


@pytest.fixture
def half_arrived(tmp_path):
    """A night of which one file is refused."""
    delivery = deliver(tmp_path / "delivery")
    site = site_of(make_repository(tmp_path / "repo"), f"sqlite:///{tmp_path}/ledger.sqlite3", delivery.rucio_folder)
    refused = of_kind(delivery, FileKind.RAW)[0]
    site.receive(message.value.replace(refused.adler32.encode(), b"00000001") for message in announced(delivery.files))
    site.ingest()
    site.ledger.close()


@pytest.mark.usefixtures("half_arrived")
def test_a_day_is_told_exposure_by_exposure_with_what_is_odd_about_it(drp):
    code, told, _ = drp("ingest", "day", "20261102")

    assert code == 0
    words = " ".join(told.split())
    assert "quarantined" in words
    assert ": 3 of 4 raws, 1 of 2 exposures incomplete, 0 messages unfinished" in words
    assert words.endswith("no exposure has the detectors 2-8")


@pytest.mark.usefixtures("half_arrived")
def test_a_day_tells_scripts_the_same(drp):
    _, told, _ = drp("ingest", "day", "20261102", "--json")

    found = json.loads(told)
    assert (found["expected"], found["arrived"], len(found["missing"])) == (4, 3, 1)
    assert found["remarks"] == ["no exposure has the detectors 2-8"]


def test_a_day_of_which_nothing_came_says_where_to_look(drp, tmp_path):
    make_repository(tmp_path / "repo")

    code, _, err = drp("ingest", "day", "20261102")

    assert code == 1
    assert "20261102: nothing was announced, and nothing is here" in err
