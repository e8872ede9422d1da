"Every test runs without the outside network: a connection that leaves this machine is an error."

import ipaddress
import socket

import pytest

_connect = socket.socket.connect


def _stays_here(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    host = str(address[0])
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def connect(self, address):
        if not _stays_here(address):
            raise AssertionError(f"a test tried to reach {address!r}; nothing may touch the network unless asked to")
        return _connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
