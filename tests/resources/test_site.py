from __future__ import annotations

import traceback
from pathlib import Path

import pytest
import yaml

from resources.errors import Rejected
from resources.site import read_site

LAPTOP = Path(__file__).parent.parent.parent / "deploy" / "sites" / "laptop.yaml"


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DRP_STATE", str(tmp_path))
    monkeypatch.setenv("DRP_REPORTS_URL", "http://127.0.0.1:1")
    return tmp_path


def test_laptop_profile_keeps_everything_under_one_folder(state: Path) -> None:
    site = read_site(LAPTOP)
    assert site.state == state
    assert site.butler.repository.startswith(str(state))
    assert site.ledger == f"sqlite:///{state}/ledger.sqlite3"


def test_environment_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRP_STATE", raising=False)
    with pytest.raises(Rejected, match=r"laptop\.yaml: state: the environment variable DRP_STATE is not set"):
        read_site(LAPTOP)


def test_no_profile_named_says_what_to_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRP_SITE", raising=False)
    with pytest.raises(Rejected, match="export DRP_SITE"):
        read_site()


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("wms:", "wmss:", "did you mean 'wms'"),
        ("poll_s: 0.3", "poll_s: soon", "wms.poll_s"),
        ("poll_s: 0.3", "pol_s: 1", "did you mean 'poll_s'"),
        ("  topics: ^LAPTOP-.*\n", "", "arrivals.topics: missing key"),
    ],
)
def test_wrong_profile_is_one_line_that_names_the_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(LAPTOP.read_text().replace(old, new))
    with pytest.raises(Rejected) as caught:
        read_site(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("state")
def test_a_secret_from_the_environment_is_shown_as_the_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER_PASSWORD", "s3cr3t")
    profile = yaml.safe_load(LAPTOP.read_text())
    profile["ledger"] = {"url": "postgresql+psycopg://drp:${LEDGER_PASSWORD}@db/ledger"}
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(profile))

    with pytest.raises(Rejected) as caught:
        read_site(path)

    assert "(got {'url': 'postgresql+psycopg://drp:${LEDGER_PASSWORD}@db/ledger'})" in str(caught.value)
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))
