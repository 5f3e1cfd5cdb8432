import json

import pytest
from rich.console import Console

from benchmarks.report import Machine, Report, Result

MACHINE = Machine("Linux", "some processor", 2, 8.0, "3.13.0", 0.1)


def report(*results: Result) -> Report:
    return Report("speed", MACHINE, results)


@pytest.mark.parametrize(("value", "met"), [(3.9, True), (4.0, True), (4.1, False)])
def test_a_target_is_the_most_that_a_figure_may_be(value, met):
    assert Result("load", value, "s", 4.0).met is met


def test_a_figure_without_a_target_is_neither_met_nor_missed():
    assert Result("load", 1.0, "s").met is None


def test_a_target_of_nothing_at_all_is_a_target():
    assert Result("connections", 0, "", 0).met is True
    assert Result("connections", 1, "", 0).met is False


def test_a_cost_below_nothing_is_noise_and_meets_no_target():
    cost = Result("cost", -0.2, "ms", 5.0)

    assert cost.met is None
    assert cost.is_noise
    assert not Result("cost", 0.0, "ms", 5.0).is_noise


def test_the_file_is_named_like_the_benchmark_and_holds_machine_and_figures(tmp_path):
    path = report(Result("load", 5.0, "s", 4.0), Result("ratio", 2.0, "")).write(tmp_path / "results")

    assert path == tmp_path / "results" / "speed.json"
    document = json.loads(path.read_text())
    assert document["machine"]["cores"] == 2
    assert document["results"] == [
        {"name": "load", "value": 5.0, "unit": "s", "target": 4.0, "met": False},
        {"name": "ratio", "value": 2.0, "unit": "", "target": None, "met": None},
    ]


def test_a_later_run_takes_an_earlier_ones_place(tmp_path):
    report(Result("load", 5.0, "s")).write(tmp_path)
    path = report(Result("load", 3.0, "s")).write(tmp_path)

    assert [result["value"] for result in json.loads(path.read_text())["results"]] == [3.0]


def test_a_figure_that_is_no_number_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        report(Result("load", float("nan"), "s")).write(tmp_path)


def test_the_table_says_what_is_missed():
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as shown:
        figures = Result("load", 5.0, "s", 4.0), Result("cost", 3.0, "ms", 5.0), Result("less", -1.0, "ms", 5.0)
        console.print(report(*figures).table())

    load, cost, less = shown.get().splitlines()[-3:]
    assert load.split() == ["load", "5", "s", "≤", "4", "s", "missed"]
    assert cost.split() == ["cost", "3", "ms", "≤", "5", "ms", "met"]
    assert less.split() == ["less", "-1", "ms", "≤", "5", "ms", "noise"]


def test_this_machine_is_described():
    here = Machine.here()

    assert here.cores >= 1
    assert here.memory_gb > 0
    assert here.system
