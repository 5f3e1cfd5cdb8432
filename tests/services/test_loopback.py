"""A server's port is free when it is chosen, and stays its own."""

import socket

from services.loopback import LOOPBACK, PORTS, free_port, kept_port, listens


def test_a_free_port_is_nobodys_and_out_of_reach_of_outgoing_connections():
    port = free_port()

    assert port in PORTS
    assert not listens(port)
    with socket.create_server((LOOPBACK, port)):
        assert listens(port)


def test_a_server_keeps_each_of_its_ports(tmp_path):
    port = kept_port(tmp_path / "server")
    other = kept_port(tmp_path / "server", "other-port")

    assert kept_port(tmp_path / "server") == port
    assert kept_port(tmp_path / "server", "other-port") == other
