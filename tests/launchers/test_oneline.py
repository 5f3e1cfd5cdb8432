import click
import pytest
from click.testing import CliRunner
from lsst.ctrl.bps import BpsConfig, GenericWorkflow, GenericWorkflowExec, GenericWorkflowJob

from launchers.local.service import LocalService
from launchers.oneline import in_one_line
from resources.errors import OperatorError, Rejected, Retriable, SiteFault


@pytest.mark.parametrize("kind", [Rejected, Retriable, SiteFault])
def test_an_operators_error_keeps_its_kind_and_is_a_line_to_click(kind):
    @in_one_line
    def fail() -> None:
        raise kind("no such queue", "double", "name another")

    with pytest.raises(kind) as caught:
        fail()
    shown = CliRunner().invoke(click.command()(fail))

    assert str(caught.value) == "double: no such queue; name another"
    assert shown.output == "Error: double: no such queue; name another\n"
    assert shown.exit_code == 1


def test_what_nobody_foresaw_stays_what_it_is():
    @in_one_line
    def fail() -> None:
        raise KeyError("queue")

    with pytest.raises(KeyError):
        fail()


def test_the_local_service_says_in_a_line_what_it_cannot_do(tmp_path):
    generic = GenericWorkflow("w")
    executable = GenericWorkflowExec("echo", "echo", False)
    generic.add_job(GenericWorkflowJob("a1", "a", executable=executable, request_walltime="01:30:00"))

    with pytest.raises(OperatorError) as caught:
        LocalService(BpsConfig({})).prepare(BpsConfig({}), generic, str(tmp_path))

    assert isinstance(caught.value, click.ClickException)
    assert "requestWalltime '01:30:00' is no number of minutes" in caught.value.format_message()
