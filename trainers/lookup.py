"""What a subscriber asks the registry: one GET each. Its own client would take 15 MB of memory and six packages
more.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from ssl import create_default_context
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import structlog
from fastavro import parse_schema

from streams.kafka.clients import Connection, past_proxies

CALL_SECONDS = 10.0

log = structlog.get_logger("sluice.subscribe")


def schema_lookup(connection: Connection) -> Callable[[int], Any]:
    """The registry's schema of an id, parsed; None where it cannot be had."""

    def lookup(schema_id: int) -> Any:
        try:
            return parse_schema(json.loads(_ask(connection, f"/schemas/ids/{schema_id}")["schema"]))
        except Exception as problem:
            log.warning("schema not found", schema_id=schema_id, error=type(problem).__name__)
            return None

    return lookup


def newest_id(connection: Connection, subject: str) -> int:
    """Schema id of a subject's newest version. Raises errors of many kinds."""
    return int(_ask(connection, f"/subjects/{quote(subject, safe='')}/versions/latest")["id"])


def _ask(connection: Connection, path: str) -> Any:
    secret = f"{connection.principal}:{connection.password.get_secret_value()}".encode()
    request = Request(
        f"{connection.registry_url}{path}",
        headers={"Authorization": f"Basic {b64encode(secret).decode()}"},
    )
    past_proxies(connection.registry_url or "")
    context = create_default_context(cafile=connection.ca_file) if connection.ca_file else None
    with urlopen(request, timeout=CALL_SECONDS, context=context) as answer:
        return json.load(answer)
