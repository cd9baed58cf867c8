"""The REST interface: routes of Confluent Schema Registry, each a few lines over the store and the changes.

Query parameters keep Confluent's spelling. Not served: metadata and rule sets of schemas, contexts other than
the default, exporters, JSON Schema and Protobuf.
"""

# ruff: noqa: N803

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from sluice.stack import registry_access as access
from sluice.stack import registry_changes as changes
from sluice.stack import registry_replies as reply
from sluice.stack.registry_gate import MEDIA_TYPE
from sluice.stack.registry_replies import Refused
from sluice.stack.registry_rules import DEFAULT_LEVEL, Reference
from sluice.stack.registry_service import Registry
from sluice.stack.registry_store import DEFAULT_MODE, Version


class Answer(JSONResponse):
    media_type = MEDIA_TYPE


class ReferenceBody(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)
    name: str
    subject: str
    version: int


class SchemaBody(BaseModel):
    """A schema as a client sends it. Fields that we do not know are ignored, as Confluent's server does."""

    model_config = ConfigDict(hide_input_in_errors=True)
    text: str = Field(alias="schema")
    kind: str | None = Field(None, alias="schemaType")
    references: list[ReferenceBody] | None = None
    version: int | None = None
    id: int | None = None

    def parts(self) -> tuple[str, tuple[Reference, ...], str | None]:
        found = tuple(Reference(r.name, r.subject, r.version) for r in self.references or ())
        return self.text, found, self.kind


class LevelBody(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)
    compatibility: str


class ModeBody(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)
    mode: str


def _who(request: Request) -> str:
    return str(request.scope["principal"])


def _subject(subject: Annotated[str, Path()]) -> str:
    return unquote(subject)


Who = Annotated[str, Depends(_who)]
Subject = Annotated[str, Depends(_subject)]
Flag = Annotated[bool, Query()]


def _check(allowed: bool, principal: str, operation: str, subject: str | None = None) -> None:
    if not allowed:
        raise reply.denied(principal, operation, subject)


def _check_read(principal: str, subject: str, body: SchemaBody | None = None) -> None:
    for name in (subject, *(r.subject for r in (body.references if body else None) or ())):
        _check(access.may_read(principal, name), principal, "Read", name)


def _shown(version: Version) -> dict[str, Any]:
    return {"subject": version.subject, "version": version.version, "id": version.id, **_schema(version)}


def _schema(version: Version) -> dict[str, Any]:
    shown: dict[str, Any] = {"schema": version.schema.text}
    if version.schema.kind != "AVRO":
        shown["schemaType"] = version.schema.kind
    if version.schema.references:
        shown["references"] = [r.shown() for r in version.schema.references]
    return shown


def create(registry: Registry) -> FastAPI:
    """The routes. Everything behind a Gate, which says who asks."""
    app = FastAPI(title="Sluice schema registry", openapi_url=None, default_response_class=Answer)
    _errors(app)
    _schemas(app, registry)
    _subjects(app, registry)
    _compatibility(app, registry)
    _settings(app, registry)
    return app


def _schemas(app: FastAPI, registry: Registry) -> None:
    store = registry.store

    def holders(
        principal: str, schema_id: int, subject: str | None = None, deleted: bool = True
    ) -> list[Version]:
        """Versions with this id that `principal` may read; none is 404, as ids must not tell what exists."""
        found = [
            v
            for v in store.holders(schema_id)
            if access.may_read(principal, v.subject)
            and subject in (None, v.subject)
            and (deleted or not v.deleted)
        ]
        if not found:
            raise reply.schema_not_found(schema_id)
        return found

    @app.get("/")
    async def root() -> Any:
        return Answer({})

    @app.get("/schemas/types")
    async def types() -> Any:
        return Answer(["AVRO"])

    @app.get("/schemas/ids/{schema_id}")
    async def by_id(who: Who, schema_id: int, subject: str | None = None, fetchMaxId: Flag = False) -> Any:
        found = _schema(holders(who, schema_id, subject)[0])
        return Answer({**found, "maxId": store.highest_id} if fetchMaxId else found)

    @app.get("/schemas/ids/{schema_id}/schema")
    async def text_by_id(who: Who, schema_id: int, subject: str | None = None) -> Any:
        return _text(holders(who, schema_id, subject)[0])

    @app.get("/schemas/ids/{schema_id}/subjects")
    async def subjects_of(who: Who, schema_id: int, subject: str | None = None, deleted: Flag = False) -> Any:
        return Answer(sorted({v.subject for v in holders(who, schema_id, subject, deleted)}))

    @app.get("/schemas/ids/{schema_id}/versions")
    async def versions_of(who: Who, schema_id: int, subject: str | None = None, deleted: Flag = False) -> Any:
        found = holders(who, schema_id, subject, deleted)
        return Answer([{"subject": v.subject, "version": v.version} for v in found])

    @app.get("/contexts")
    async def contexts() -> Any:
        return Answer(["."])

    @app.get("/v1/metadata/id")
    async def metadata() -> Any:
        clusters = {"kafka-cluster": registry.cluster_id, "schema-registry-cluster": "schema-registry"}
        return Answer({"scope": {"path": [], "clusters": clusters}})


def _subjects(app: FastAPI, registry: Registry) -> None:
    store = registry.store

    @app.get("/subjects")
    async def names(
        who: Who, subjectPrefix: str = "", deleted: Flag = False, deletedOnly: Flag = False
    ) -> Any:
        found = [
            name
            for name in sorted(store.subjects)
            if name.startswith(subjectPrefix)
            and access.may_read(who, name)
            and (not store.live(name) if deletedOnly else deleted or store.live(name))
        ]
        return Answer(found)

    @app.post("/subjects/{subject}")
    async def look_up(who: Who, subject: Subject, body: SchemaBody, deleted: Flag = False) -> Any:
        _check_read(who, subject, body)
        if not store.all(subject):
            raise reply.subject_not_found(subject)
        return Answer(
            _shown(changes.find_schema(store, subject, changes.read_schema(store, *body.parts()), deleted))
        )

    @app.get("/subjects/{subject}/versions")
    async def versions(who: Who, subject: Subject, deleted: Flag = False) -> Any:
        _check_read(who, subject)
        found = store.all(subject) if deleted else store.live(subject)
        if not found:
            raise reply.subject_not_found(subject)
        return Answer([v.version for v in found])

    @app.post("/subjects/{subject}/versions")
    async def register(who: Who, subject: Subject, body: SchemaBody) -> Any:
        _check(access.may_write(who, subject), who, "Write", subject)
        _check_read(who, subject, body)

        def decide(now: Any) -> changes.Change:
            schema = changes.read_schema(now, *body.parts())
            return changes.register(now, subject, schema, max(body.version or 0, 0), max(body.id or 0, 0))

        return Answer({"id": await registry.change(decide)})

    @app.get("/subjects/{subject}/versions/{version}")
    async def version(who: Who, subject: Subject, version: str, deleted: Flag = False) -> Any:
        _check_read(who, subject)
        return Answer(_shown(changes.find_version(store, subject, version, deleted)))

    @app.get("/subjects/{subject}/versions/{version}/schema")
    async def version_text(who: Who, subject: Subject, version: str, deleted: Flag = False) -> Any:
        _check_read(who, subject)
        return _text(changes.find_version(store, subject, version, deleted))

    @app.get("/subjects/{subject}/versions/{version}/referencedby")
    async def referenced_by(who: Who, subject: Subject, version: str) -> Any:
        _check_read(who, subject)
        found = store.referenced_by(subject, changes.find_version(store, subject, version).version)
        return Answer([i for i in found if any(access.may_read(who, v.subject) for v in store.holders(i))])

    @app.delete("/subjects/{subject}/versions/{version}")
    async def delete_version(who: Who, subject: Subject, version: str, permanent: Flag = False) -> Any:
        _check(access.may_govern(who), who, "Delete", subject)
        return Answer(
            await registry.change(lambda now: changes.delete_version(now, subject, version, permanent))
        )

    @app.delete("/subjects/{subject}")
    async def delete_subject(who: Who, subject: Subject, permanent: Flag = False) -> Any:
        _check(access.may_govern(who), who, "Delete", subject)
        return Answer(await registry.change(lambda now: changes.delete_subject(now, subject, permanent)))


def _compatibility(app: FastAPI, registry: Registry) -> None:
    store = registry.store

    def judged(subject: str, body: SchemaBody, earlier: list[Version], verbose: bool) -> Any:
        schema = changes.read_schema(store, *body.parts())
        problems = changes.incompatibilities(store, schema, earlier, store.level(subject))
        return Answer({"is_compatible": not problems, **({"messages": problems} if verbose else {})})

    @app.post("/compatibility/subjects/{subject}/versions/{version}")
    async def with_version(
        who: Who, subject: Subject, version: str, body: SchemaBody, verbose: Flag = False
    ) -> Any:
        _check_read(who, subject, body)
        return judged(subject, body, [changes.find_version(store, subject, version)], verbose)

    @app.post("/compatibility/subjects/{subject}/versions")
    async def with_all(who: Who, subject: Subject, body: SchemaBody, verbose: Flag = False) -> Any:
        _check_read(who, subject, body)
        return judged(subject, body, store.live(subject), verbose)


def _settings(app: FastAPI, registry: Registry) -> None:
    store = registry.store

    @app.get("/config")
    async def level_of_all() -> Any:
        return Answer({"compatibilityLevel": store.levels.get(None, DEFAULT_LEVEL)})

    @app.get("/config/{subject}")
    async def level(who: Who, subject: Subject, defaultToGlobal: Flag = False) -> Any:
        _check_read(who, subject)
        if subject not in store.levels and not defaultToGlobal:
            raise reply.no_subject_level(subject)
        return Answer({"compatibilityLevel": store.level(subject)})

    @app.put("/config")
    async def set_level_of_all(who: Who, body: LevelBody) -> Any:
        _check(access.may_govern(who), who, "WriteCompatibility")
        return Answer(await registry.change(lambda now: changes.set_level(None, body.compatibility)))

    @app.put("/config/{subject}")
    async def set_level(who: Who, subject: Subject, body: LevelBody) -> Any:
        _check(access.may_govern(who), who, "WriteCompatibility", subject)
        return Answer(await registry.change(lambda now: changes.set_level(subject, body.compatibility)))

    @app.delete("/config")
    async def drop_level_of_all(who: Who) -> Any:
        _check(access.may_govern(who), who, "WriteCompatibility")
        return Answer(await registry.change(lambda now: changes.drop_level(now, None)))

    @app.delete("/config/{subject}")
    async def drop_level(who: Who, subject: Subject) -> Any:
        _check(access.may_govern(who), who, "WriteCompatibility", subject)
        return Answer(await registry.change(lambda now: changes.drop_level(now, subject)))

    @app.get("/mode")
    async def mode_of_all() -> Any:
        return Answer({"mode": store.modes.get(None, DEFAULT_MODE)})

    @app.get("/mode/{subject}")
    async def mode(who: Who, subject: Subject, defaultToGlobal: Flag = False) -> Any:
        _check_read(who, subject)
        if subject not in store.modes and not defaultToGlobal:
            raise reply.no_subject_mode(subject)
        return Answer({"mode": store.mode(subject)})

    @app.put("/mode")
    async def set_mode_of_all(who: Who, body: ModeBody, force: Flag = False) -> Any:
        _check(access.may_govern(who), who, "WriteMode")
        return Answer(await registry.change(lambda now: changes.set_mode(now, None, body.mode, force)))

    @app.put("/mode/{subject}")
    async def set_mode(who: Who, subject: Subject, body: ModeBody, force: Flag = False) -> Any:
        _check(access.may_govern(who), who, "WriteMode", subject)
        return Answer(await registry.change(lambda now: changes.set_mode(now, subject, body.mode, force)))

    @app.delete("/mode/{subject}")
    async def drop_mode(who: Who, subject: Subject) -> Any:
        _check(access.may_govern(who), who, "WriteMode", subject)
        return Answer(await registry.change(lambda now: changes.drop_mode(now, subject)))


def _text(version: Version) -> JSONResponse:
    answer = Answer(None)
    answer.body = version.schema.text.encode()
    answer.headers["content-length"] = str(len(answer.body))
    return answer


def _errors(app: FastAPI) -> None:
    def say(status: int, code: int, message: str) -> Answer:
        return Answer({"error_code": code, "message": message}, status)

    handlers: dict[Any, Callable[[Request, Any], Any]] = {}

    async def refused(request: Request, problem: Refused) -> Answer:
        return say(problem.status, problem.code, problem.message)

    async def malformed(request: Request, problem: RequestValidationError) -> Answer:
        where = sorted({".".join(str(part) for part in error["loc"]) for error in problem.errors()})
        return say(422, 422, f"The request is missing or has a wrong type at: {', '.join(where)}.")

    async def other(request: Request, problem: HTTPException) -> Answer:
        return say(problem.status_code, problem.status_code, f"HTTP {problem.status_code} {problem.detail}")

    async def broken(request: Request, problem: Exception) -> Answer:
        return say(500, 50001, "Error in the registry; its log says more.")

    handlers = {Refused: refused, RequestValidationError: malformed, HTTPException: other, Exception: broken}
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
