"""A registry as its tests reach it: signed in as any role, by the unmodified client or by a plain request."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

OUTSIDE = ("trainer", "subscriber", "ops")
ROLES = ("admin", "producer", "share", *OUTSIDE)


@dataclass(frozen=True)
class Door:
    """Where a registry is, and the folder of its passwords."""

    url: str
    secrets: Path

    def password(self, role: str) -> str:
        return (self.secrets / role).read_text().strip()

    def client(self, role: str) -> SchemaRegistryClient:
        login = f"{role}:{self.password(role)}"
        return SchemaRegistryClient({"url": self.url, "basic.auth.user.info": login, "max.retries": 0})

    def ask(self, method: str, path: str, role: str | None = "admin", body: object = None) -> tuple[int, Any]:
        """Status and decoded answer of one plain request; None signs in as nobody."""
        password = self.password(role) if role is not None else ""
        return self.ask_as(method, path, None if role is None else f"{role}:{password}", body)

    def ask_as(self, method: str, path: str, login: str | None, body: object = None) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, method=method, data=data)
        request.add_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        if login is not None:
            request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as problem:
            with problem:
                return problem.code, json.loads(problem.read())


def record(*fields: str, name: str = "Reading", **more: Any) -> str:
    """An Avro record of long fields; a name that ends in ? has a default."""
    found = [
        {"name": f.rstrip("?"), "type": "long", **({"default": 0} if f.endswith("?") else {})} for f in fields
    ]
    return json.dumps({"type": "record", "name": name, "namespace": "test", "fields": found, **more})


def avro(text: str, **more: Any) -> Schema:
    return Schema(text, "AVRO", **more)


def code(problem: pytest.ExceptionInfo[SchemaRegistryError]) -> tuple[int, int]:
    return problem.value.http_status_code, problem.value.error_code
