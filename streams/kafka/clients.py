"""Where the broker is and who we are there: one typed value, and the client settings that follow from it."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog
from pydantic import SecretStr

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

REGISTRY_SECONDS = 10  # for one answer; the client waits for ever otherwise


@dataclass(frozen=True, slots=True)
class Connection:
    """One principal's way to a cluster and its registry.

    `bootstrap` is `host:port[,host:port]`; `protocol` is `SASL_PLAINTEXT` (loopback only) or `SASL_SSL`. The
    registry takes the same name and password by basic authentication.
    """

    bootstrap: str
    principal: str
    password: SecretStr = field(repr=False)
    protocol: str = "SASL_PLAINTEXT"
    mechanism: str = "SCRAM-SHA-512"
    ca_file: str | None = None
    registry_url: str | None = None

    def settings(self, **more: Any) -> dict[str, Any]:
        """librdkafka settings for any client; keywords use `_` for `.` and win over the defaults."""
        settings: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.protocol,
            "sasl.mechanism": self.mechanism,
            "sasl.username": self.principal,
            "sasl.password": self.password.get_secret_value(),
            "retry.backoff.ms": 1,
            "retry.backoff.max.ms": 20,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 500,
        }
        if self.ca_file:
            settings["ssl.ca.location"] = self.ca_file
        settings.update({name.replace("_", "."): value for name, value in more.items()})
        return settings


class _Hushed(logging.Handler):
    """librdkafka repeats itself 40 times a second while a broker is away: one line in ten seconds is enough."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 10.0
            structlog.get_logger("sluice.kafka").warning("librdkafka", message=record.getMessage())


def logger(*handlers: logging.Handler) -> logging.Logger:
    """For the `logger=` of a client: what librdkafka logs goes to `handlers`, by default to one hushed line."""
    found = logging.Logger("librdkafka", logging.WARNING if not handlers else logging.DEBUG)
    for handler in handlers or (_Hushed(),):
        found.addHandler(handler)
    return found


def past_proxies(url: str) -> None:
    """Let no proxy of the environment carry requests to this host, if they are plain HTTP.

    They hold a password, and HTTP clients ask `HTTP_PROXY` even for the loopback. The environment is all that the
    registry's client lets us set.
    """
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname:
        for name in ("NO_PROXY", "no_proxy"):
            known = [host for host in os.environ.get(name, "").split(",") if host]
            if parts.hostname not in known:
                os.environ[name] = ",".join([*known, parts.hostname])


def registry(connection: Connection) -> SchemaRegistryClient:
    """The unmodified Confluent registry client, signed in as this principal."""
    from confluent_kafka.schema_registry import SchemaRegistryClient

    past_proxies(connection.registry_url or "")
    secret = connection.password.get_secret_value()
    return SchemaRegistryClient(
        {
            "url": connection.registry_url,
            "basic.auth.user.info": f"{connection.principal}:{secret}",
            "timeout": REGISTRY_SECONDS,
        }
    )
