"""What `drp backfill` makes of each answer that Dagster may give, as its own schema has them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
import requests
from dagster_graphql.schema import create_schema
from graphql import GraphQLSchema, GraphQLUnionType, build_schema, graphql_sync, print_schema

from commands.main import main

TOP = Path(__file__).parents[2]
UI = "http://127.0.0.1:3000"
BY_PARTITION, WHOLE = ("demo", "step1a", "20261101"), ("demo", "step1d")
SUCCESSES = {"LaunchBackfillSuccess", "LaunchRunSuccess"}


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    """Dagster's, with nothing behind it: it answers what it is given."""
    return build_schema(print_schema(create_schema().graphql_schema))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all tests, as the pipeline's plan is kept in it."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(autouse=True)
def site(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    monkeypatch.setenv("DRP_STATE", str(state))
    monkeypatch.setenv("DRP_REPORTS_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("DRP_SITE", str(TOP / "deploy" / "sites" / "laptop.yaml"))
    monkeypatch.chdir(TOP)


def drp_backfill(
    monkeypatch: pytest.MonkeyPatch, schema: GraphQLSchema, result: dict[str, Any], *arguments: str
) -> int:
    """Run the command; Dagster's schema answers its query with a result."""

    def post(url: str, *, json: dict[str, Any], timeout: float) -> requests.Response:
        fields = dict.fromkeys(("launchPartitionBackfill", "launchPipelineExecution"), result)
        answer = graphql_sync(schema, json["query"], fields, variable_values=json["variables"])
        assert url == f"{UI}/graphql"
        assert not answer.errors
        response = create_autospec(requests.Response, instance=True)
        response.json.return_value = {"data": answer.data}
        return response

    monkeypatch.setattr("commands.backfill.requests.post", post)
    monkeypatch.setattr(sys, "argv", ["drp", "backfill", *arguments, "--url", UI])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def filled(schema: GraphQLSchema, kind: str) -> dict[str, Any]:
    """An answer of a kind, with as much of a message as that kind can have."""
    fields = schema.type_map[kind].fields  # type: ignore[attr-defined]
    values: dict[str, Any] = {"__typename": kind}
    if "message" in fields:
        values["message"] = "Dagster's first line\nand its second"
    if "errors" in fields:
        error = {"__typename": "MissingFieldConfigError", "message": "Dagster's first line\nand its second"}
        values["errors"] = [error]
    return values


def test_every_refusal_of_a_launch_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], schema: GraphQLSchema
) -> None:
    for union, arguments in (("LaunchBackfillResult", BY_PARTITION), ("LaunchRunResult", WHOLE)):
        result = schema.type_map[union]
        assert isinstance(result, GraphQLUnionType)
        refusals = {kind.name for kind in result.types} - SUCCESSES
        assert {"PipelineNotFoundError", "InvalidSubsetError", "RunConfigValidationInvalid"} <= refusals
        for kind in sorted(refusals):
            values = filled(schema, kind)
            assert drp_backfill(monkeypatch, schema, values, *arguments) == 1, kind
            said = " ".join(capsys.readouterr().err.split())
            complaint = "Dagster's first line" if len(values) > 1 else kind
            assert re.fullmatch(rf"drp: {UI}: {complaint}; is the release in workspace.yaml, .*loaded\?", said), said


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        (BY_PARTITION, {"__typename": "LaunchBackfillSuccess", "backfillId": "abcdefgh"}),
        (WHOLE, {"__typename": "LaunchRunSuccess", "run": {"__typename": "Run", "runId": "abcdefgh"}}),
    ],
)
def test_a_launch_is_told_with_its_identifier(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    schema: GraphQLSchema,
    arguments: tuple[str, ...],
    result: dict[str, Any],
) -> None:
    assert drp_backfill(monkeypatch, schema, result, *arguments) == 0
    assert f"abcdefgh, see {UI}/runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("demo", "step1a"), "no partition is named; name one or more day_obs"),
        (("demo", "step1d", "20261101"), "has no partition 20261101; it runs whole: name none"),
        ((*BY_PARTITION, "-c", "foo"), "foo: not of the form task:field=value; such as"),
        ((*BY_PARTITION, "-c", "isr:=1"), "isr:=1: not of the form task:field=value; such as"),
        ((*BY_PARTITION, "-c", "irs:doFlat=False"), "irs: no task of step1a"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_is_launched(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    schema: GraphQLSchema,
    arguments: tuple[str, ...],
    complaint: str,
) -> None:
    assert drp_backfill(monkeypatch, schema, {"__typename": "LaunchRunSuccess"}, *arguments) == 1
    assert complaint in " ".join(capsys.readouterr().err.split())
