"""A soak empties its own folders only."""

import pytest

from benchmarks.soak.keeping import empty_folder


def test_what_an_earlier_soak_left_is_removed(tmp_path):
    with empty_folder(tmp_path / "kept") as folder:
        (folder / "log").touch()

    with empty_folder(tmp_path / "kept") as folder:
        assert not (folder / "log").exists()


def test_what_no_soak_has_put_there_stays(tmp_path):
    (tmp_path / "thesis.tex").touch()

    with pytest.raises(SystemExit, match="holds what no soak has put there"), empty_folder(tmp_path):
        pass

    assert (tmp_path / "thesis.tex").exists()


def test_a_new_folder_is_gone_in_the_end():
    with empty_folder(None) as folder:
        assert folder.is_dir()

    assert not folder.exists()
