"""A cut link is silent and loses nothing; a link to nowhere says so."""

import socket
import threading

import pytest

from services.loopback import LOOPBACK
from services.network import NetworkLink
from services.service import ServiceError

pytestmark = pytest.mark.integration

PATIENCE_S = 60


@pytest.fixture
def echo_port():
    """A server that sends back what it gets, to any number of clients."""

    def echo(connection):
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def serve(listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    with socket.create_server((LOOPBACK, 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def link(tmp_path, echo_port):
    with NetworkLink(tmp_path / "link", echo_port) as service:
        yield service


def connect(link):
    return socket.create_connection((LOOPBACK, link.port), timeout=PATIENCE_S)


def receive(connection, count):
    received = b""
    while len(received) < count and (data := connection.recv(count - len(received))):
        received += data
    return received


def silent(connection):
    connection.settimeout(0.3)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    else:
        return False
    finally:
        connection.settimeout(PATIENCE_S)


def test_bytes_pass_both_ways(link):
    sent = bytes(range(256)) * 4096
    with connect(link) as connection:
        threading.Thread(target=connection.sendall, args=(sent,)).start()
        assert receive(connection, len(sent)) == sent


def test_a_cut_link_is_silent_and_what_was_sent_meanwhile_arrives_when_it_is_restored(link):
    with connect(link) as connection:
        link.cut()
        connection.sendall(b"meanwhile")
        assert silent(connection)

        link.restore()
        assert receive(connection, 9) == b"meanwhile"


def test_who_connects_while_the_link_is_cut_waits(link):
    link.cut()
    with connect(link) as connection:
        connection.sendall(b"hello")
        assert silent(connection)
        link.restore()
        assert receive(connection, 5) == b"hello"


def test_the_end_of_a_connection_passes_too(link):
    with connect(link) as connection:
        connection.sendall(b"last")
        connection.shutdown(socket.SHUT_WR)
        assert receive(connection, 100) == b"last"


def test_where_no_server_is_the_connection_ends(tmp_path):
    with NetworkLink(tmp_path / "nowhere", target_port=1) as nowhere, connect(nowhere) as connection:
        assert connection.recv(1) == b""


def test_a_link_that_does_not_run_cannot_be_cut(tmp_path):
    with pytest.raises(ServiceError, match="doesn't run"):
        NetworkLink(tmp_path / "link", 1).cut()
