"""Announced URLs become paths below the site's prefixes, and files are the announced ones, or it is said why not."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lsst.resources import ResourcePath

from arrivals.files import SAMPLED_ONE_IN, locate, verify
from resources.errors import Rejected, Retriable
from resources.site import PathRule

RULES = (
    PathRule(announced="root://xrd5:1098//rucio", local="/data/rucio"),
    PathRule(announced="root://xrd5:1098//rucio/raw/", local="/raws/"),
)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("root://xrd5:1098//rucio/a/b.fits", "/data/rucio/a/b.fits"),
        ("root://xrd5:1098//rucio/raw/b.fits", "/raws/b.fits"),
        ("root://xrd5:1098//rucio/raws/b.fits", "/data/rucio/raws/b.fits"),
        ("root://xrd5:1098//rucio//a/b..c.fits", "/data/rucio/a/b..c.fits"),
    ],
)
def test_the_longest_prefix_that_ends_with_a_folder_is_replaced(url, path):
    assert locate(url, RULES).ospath == path


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("root://xrd5:1098//rucio/../etc/passwd", "no plain path of a file"),
        ("root://xrd5:1098//rucio/a/%2e%2e/%2e%2e/etc", "no plain path of a file"),
        ("root://xrd5:1098//rucio/a.zip#zip-path=b", "no plain path of a file"),
        ("root://xrd5:1098//rucio/", "no plain path of a file"),
        ("root://xrd5:1098//rucio2/a.fits", "outside the prefixes"),
        ("https://xrd5:1098//rucio/a.fits", "outside the prefixes"),
        ("/data/rucio/a.fits", "outside the prefixes"),
        ("file://root://xrd5:1098//rucio/a.fits", "somebody put file:// before the URL"),
    ],
)
def test_what_lies_outside_is_rejected(url, reason):
    with pytest.raises(Rejected, match=reason):
        locate(url, RULES)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_no_url_leads_out_of_the_mapped_folder(rest):
    try:
        found = locate(f"root://xrd5:1098//rucio/{rest}", RULES[:1])
    except Rejected:
        return
    assert found.relative_to(ResourcePath("/data/rucio", forceDirectory=True)) is not None


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(b"light")
    return ResourcePath(path)


ADLER32 = f"{zlib.adler32(b'light'):08x}"
IN_SAMPLE = next(f"a:{n}" for n in range(1000) if zlib.crc32(f"a:{n}".encode()) % SAMPLED_ONE_IN == 0)
NOT_IN_SAMPLE = next(f"a:{n}" for n in range(1000) if zlib.crc32(f"a:{n}".encode()) % SAMPLED_ONE_IN)


def test_the_announced_file_is_accepted(file):
    verify(file, size=5, adler32=ADLER32, policy="always", did="a:b")


def test_what_was_not_announced_is_not_compared(file):
    verify(file, size=None, adler32=None, policy="always", did="a:b")


@pytest.mark.parametrize("policy", ["always", "sample", "size"])
def test_another_size_is_rejected_whatever_the_policy(file, policy):
    with pytest.raises(Rejected, match="has 5 bytes, but 6 were announced"):
        verify(file, size=6, adler32=ADLER32, policy=policy, did="a:b")


def test_another_checksum_is_rejected(file):
    with pytest.raises(Rejected, match=f"has adler32 {ADLER32}, but 00000001 was announced"):
        verify(file, size=5, adler32="00000001", policy="always", did="a:b")


def test_a_sample_is_chosen_by_did(file):
    verify(file, size=5, adler32="00000001", policy="sample", did=NOT_IN_SAMPLE)

    with pytest.raises(Rejected):
        verify(file, size=5, adler32="00000001", policy="sample", did=IN_SAMPLE)


@pytest.mark.parametrize(
    ("policy", "did", "is_looked_at"),
    [
        ("always", NOT_IN_SAMPLE, True),
        ("sample", NOT_IN_SAMPLE, True),
        ("size", NOT_IN_SAMPLE, False),
        ("size", IN_SAMPLE, True),
    ],
)
@pytest.mark.parametrize("begins", [b"SIMPLE  =                    T", b"overwritten", b""])
def test_whether_fits_begins_as_fits_is_looked_at_where_it_costs_little(tmp_path, policy, did, is_looked_at, begins):
    path = tmp_path / "a.fits"
    path.write_bytes(begins)
    announced = {"size": len(begins), "adler32": f"{zlib.adler32(begins):08x}", "policy": policy, "did": did}

    if is_looked_at and not begins.startswith(b"SIMPLE"):
        with pytest.raises(Rejected, match="the header can't be read: it doesn't begin as a FITS file does"):
            verify(ResourcePath(path), **announced, is_fits=True)
    else:
        verify(ResourcePath(path), **announced, is_fits=True)
    verify(ResourcePath(path), **announced)


def test_a_damaged_beginning_is_told_by_its_checksum_first(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(b"overwritten")

    with pytest.raises(Rejected, match="has adler32"):
        verify(ResourcePath(path), size=11, adler32=ADLER32, policy="always", did="a:b", is_fits=True)


def test_a_missing_file_may_still_come(file):
    with pytest.raises(Retriable, match="not there"):
        verify(file.updatedFile("b.fits"), size=5, adler32=ADLER32, policy="size", did="a:b")
