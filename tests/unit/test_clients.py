"""What our clients let out of the machine."""

from __future__ import annotations

import os
import socket
import threading

import pytest
from pydantic import SecretStr

from streams.kafka.clients import Connection, past_proxies, registry
from trainers.lookup import newest_id


class Server:
    """Answers every request with an empty list, and keeps what it was sent."""

    def __init__(self, answer: bytes) -> None:
        self.answer, self.heard = answer, list[bytes]()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            with client:
                self.heard.append(client.recv(65536))
                head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(self.answer)}\r\n\r\n"
                client.sendall(head.encode() + self.answer)


def test_no_proxy_ever_sees_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a company's proxy nothing of ours reached the registry beside it, but the password reached the proxy."""
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.delenv("no_proxy", raising=False)
    proxy, own = Server(b"[]"), Server(b"[]")
    try:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        connection = Connection(
            "-", "trainer", SecretStr("secret"), registry_url=f"http://127.0.0.1:{own.port}"
        )
        with registry(connection) as client:
            assert client.get_subjects() == []
        own.answer = b'{"id": 7}'
        assert newest_id(connection, "s") == 7
        assert proxy.heard == []
        assert all(b"Basic" in request for request in own.heard)
    finally:
        proxy.socket.close()
        own.socket.close()


def test_hosts_that_had_no_proxy_stay_so_and_none_stands_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.setenv("no_proxy", "")
    for url in ("http://registry:8081", "http://registry:8082", "https://far.example", ""):
        past_proxies(url)
    assert os.environ["NO_PROXY"] == "example.org,registry"
    assert os.environ["no_proxy"] == "registry"
