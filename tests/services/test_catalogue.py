"""The catalogue knows what needs what, and names what it has when it is asked for something else."""

import itertools

import pytest

from services.catalogue import ENTRIES, entries, packages, with_dependants, with_needs
from services.service import ServiceError


def names(chosen):
    return [entry.name for entry in chosen]


def test_every_service_comes_after_what_it_needs():
    for earlier, entry in enumerate(ENTRIES):
        assert {*entry.needs} <= {*names(ENTRIES[:earlier])}


def test_names_are_used_once():
    assert not [one for one, other in itertools.combinations(names(ENTRIES), 2) if one == other]


def test_each_service_lives_in_a_folder_of_its_name(tmp_path):
    assert all(entry.make(tmp_path).folder == tmp_path / entry.name for entry in ENTRIES)
    assert all(isinstance(entry.make(tmp_path), entry.kind) for entry in ENTRIES)


def test_without_a_name_all_are_meant():
    assert names(entries()) == names(ENTRIES) == names(with_needs())
    assert names(with_dependants()) == names(reversed(ENTRIES))


def test_what_is_needed_starts_too_and_first():
    assert names(with_needs(["mirror-maker"])) == ["kafka-usdf", "kafka-site", "mirror-maker"]


def test_what_depends_on_it_ends_too_and_first():
    assert names(with_dependants(["kafka-usdf"])) == ["mirror-maker-usdf", "mirror-maker", "kafka-usdf"]


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ServiceError, match=r"no service is called mysql; there are postgresql, .*kafka-site"):
        with_needs(["mysql"])


def test_every_package_is_named_once():
    assert {"postgresql", "maven"} <= {*packages()}
    assert len(packages()) == len({*packages()})
