import io
import os
import sys
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launchers.zip_seek import _seek_stored, is_affected

CONTENT = bytes(range(256)) * 64


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 12, 0), True),
        ((3, 12, 8), True),
        ((3, 12, 9), False),
        ((3, 13, 0), True),
        ((3, 13, 1), True),
        ((3, 13, 2), False),
    ],
)
def test_only_the_faulty_versions_are_mended(version, affected):
    assert is_affected(version) is affected


def test_every_process_of_the_environment_is_mended_without_asking():
    mended = os.popen(f"{sys.executable} -c \"import sys; print('launchers.zip_seek' in sys.modules)\"").read()

    assert mended == f"{is_affected(sys.version_info[:3])}\n"


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@given(
    st.lists(
        st.tuples(st.integers(-300, len(CONTENT) + 300), st.integers(0, 5000), st.sampled_from([0, 1, 2])), max_size=8
    )
)
def test_a_member_reads_like_a_file_whatever_the_jumps(compression, jumps):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("member", CONTENT)
    plain = io.BytesIO(CONTENT)
    with zipfile.ZipFile(buffer) as archive, archive.open("member") as member:
        for offset, length, whence in jumps:
            base = {0: 0, 1: plain.tell(), 2: len(CONTENT)}[whence]
            target = min(max(base + offset, 0), len(CONTENT))
            assert _seek_stored(member, offset, whence) == plain.seek(target)
            assert member.read(length) == plain.read(length)
