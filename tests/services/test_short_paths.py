"""Ways to folders for Unix sockets: the folder's own where that will do."""

import os
import socket
import tempfile

import pytest

from services.service import ServiceError
from services.short_paths import SOCKET_PATH_BYTES, close_way, open_way, short_way


@pytest.fixture
def deep(tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    return folder


def test_a_short_path_is_the_folder_s_own(tmp_path):
    way = short_way(tmp_path, 1)

    open_way(tmp_path, way)
    close_way(tmp_path, way)

    assert way == tmp_path
    assert tmp_path.is_dir()


def test_the_longest_path_that_the_kernel_takes_is_taken(tmp_path):
    room = SOCKET_PATH_BYTES - len(os.fsencode(tmp_path)) - 1

    assert short_way(tmp_path, room) == tmp_path
    assert short_way(tmp_path, room + 1) != tmp_path
    with socket.socket(socket.AF_UNIX) as longest:
        longest.bind(str(tmp_path / ("s" * room)))
    with socket.socket(socket.AF_UNIX) as longer, pytest.raises(OSError, match="too long"):
        longer.bind(str(tmp_path / ("s" * (room + 1))))


def test_a_socket_in_a_deep_folder_is_reached_by_a_short_way(deep):
    way = short_way(deep, len("socket"))
    open_way(deep, way)
    open_way(deep, way)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(way / "socket"))

    assert (deep / "socket").is_socket()
    close_way(deep, way)
    assert not way.exists()


def test_where_temporary_files_have_long_paths_too_one_is_told(deep, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(deep))

    with pytest.raises(ServiceError, match="set TMPDIR to a folder with a short one"):
        short_way(deep, len("socket"))


def test_what_somebody_else_has_put_there_is_not_trusted(deep, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    way = short_way(deep, 1)
    way.parent.symlink_to(deep)

    with pytest.raises(ServiceError, match="isn't a folder of ours"):
        open_way(deep, way)
