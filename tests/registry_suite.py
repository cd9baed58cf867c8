"""What any registry must do, with the unmodified Confluent client. Run on the one in memory and on the one on Kafka.

A subclass gives the fixture `door`; names are fresh per test, since the log may be shared.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka.schema_registry import SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

from tests.registry_door import OUTSIDE, ROLES, Door, avro, code, record


class RegistryBehaviour:
    """The suite."""

    @pytest.fixture
    def door(self) -> Door:
        raise NotImplementedError

    @pytest.fixture
    def name(self) -> str:
        return f"c{uuid.uuid4().hex}"

    @pytest.fixture
    def subject(self, name: str) -> str:
        return f"{name}.shared.v1-value"

    @pytest.fixture
    def admin(self, door: Door) -> Iterator[SchemaRegistryClient]:
        with door.client("admin") as client:
            yield client

    def test_a_schema_is_found_again_by_id_by_version_and_by_itself(
        self, admin: SchemaRegistryClient, subject: str
    ) -> None:
        schema = avro(record("a"))
        schema_id = admin.register_schema(subject, schema)
        assert subject in admin.get_subjects()
        assert admin.get_versions(subject) == [1]
        latest = admin.get_latest_version(subject)
        assert (latest.schema_id, latest.version, latest.subject) == (schema_id, 1, subject)
        assert json.loads(latest.schema.schema_str or "") == json.loads(schema.schema_str or "")
        assert admin.lookup_schema(subject, schema).schema_id == schema_id
        assert json.loads(admin.get_schema(schema_id).schema_str or "") == json.loads(schema.schema_str or "")
        assert admin.get_version(subject, 1).schema_id == schema_id
        assert admin.get_schema_types() == ["AVRO"]

    def test_the_same_schema_keeps_its_id_however_it_is_written(self, door: Door, subject: str) -> None:
        path = f"/subjects/{subject}/versions"
        tree = json.loads(record("a", doc="x"))
        first = door.ask("POST", path, body={"schema": json.dumps(tree, indent=4)})
        assert first[0] == 200
        again = dict(reversed(tree.items()))
        again["fields"] = [{"type": {"type": "long"}, "name": "a"}]
        assert door.ask("POST", path, body={"schema": json.dumps(again)}) == first
        assert door.ask("POST", path.replace("shared", "raw"), body={"schema": json.dumps(tree)}) == first
        assert door.ask("GET", path) == (200, [1])
        found = door.ask("GET", f"/schemas/ids/{first[1]['id']}/versions")[1]
        assert {v["subject"] for v in found} == {subject, subject.replace("shared", "raw")}

    def test_serializer_and_deserializer_understand_each_other(
        self, admin: SchemaRegistryClient, door: Door, name: str
    ) -> None:
        context = SerializationContext(f"{name}.shared.v1", MessageField.VALUE)
        written = AvroSerializer(admin, record("a", "b"))({"a": 1, "b": -2}, context)
        assert written is not None
        with door.client("trainer") as reader:
            assert AvroDeserializer(reader)(written, context) == {"a": 1, "b": -2}
            wider = AvroDeserializer(reader, record("a", "c?"))
            assert wider(written, context) == {"a": 1, "c": 0}
        with door.client("subscriber") as stranger, pytest.raises(SchemaRegistryError) as problem:
            AvroSerializer(stranger, record("z", name="Other"))({"z": 1}, context)
        assert code(problem) == (403, 40301)

    def test_what_old_readers_could_not_read_is_refused(
        self, admin: SchemaRegistryClient, subject: str
    ) -> None:
        admin.register_schema(subject, avro(record("a")))
        narrower, wider, other = (
            avro(record("a", "b?")),
            avro(record("a", "b")),
            avro(record("a", name="Other")),
        )
        assert admin.test_compatibility(subject, narrower)
        assert not admin.test_compatibility(subject, wider)
        for schema in (wider, other):
            with pytest.raises(SchemaRegistryError) as problem:
                admin.register_schema(subject, schema)
            assert code(problem) == (409, 409)
        admin.register_schema(subject, narrower)
        assert admin.get_versions(subject) == [1, 2]
        admin.set_compatibility(subject, "NONE")
        admin.register_schema(subject, other)
        assert admin.get_versions(subject) == [1, 2, 3]

    @pytest.mark.parametrize(
        ("level", "allowed"),
        [
            ("BACKWARD", {"drop", "default"}),
            ("FORWARD", {"add", "default"}),
            ("FULL", {"default"}),
            ("NONE", {"drop", "add", "default", "type"}),
        ],
    )
    def test_levels(self, admin: SchemaRegistryClient, subject: str, level: str, allowed: set[str]) -> None:
        admin.register_schema(subject, avro(record("a", "b")))
        admin.set_compatibility(subject, level)
        assert admin.get_compatibility(subject) == level
        candidates = {
            "drop": record("a"),
            "add": record("a", "b", "c"),
            "default": record("a", "b", "c?"),
            "type": record("a", "b").replace('"long"', '"string"'),
        }
        assert {
            what for what, text in candidates.items() if admin.test_compatibility(subject, avro(text))
        } == allowed

    def test_transitive_looks_at_all_versions(self, admin: SchemaRegistryClient, subject: str) -> None:
        admin.set_compatibility(subject, "BACKWARD")
        for text in (record("a"), record("a", "b?")):
            admin.register_schema(subject, avro(text))
        step = avro(record("a", "b"))  # reads version 2, not version 1
        assert admin.test_compatibility_all_versions(subject, step)
        admin.set_compatibility(subject, "BACKWARD_TRANSITIVE")
        assert not admin.test_compatibility_all_versions(subject, step)
        with pytest.raises(SchemaRegistryError) as problem:
            admin.register_schema(subject, step)
        assert code(problem) == (409, 409)

    def test_settings_of_a_subject_hold_until_dropped(self, door: Door, subject: str) -> None:
        assert door.ask("GET", f"/config/{subject}") == (
            404,
            {
                "error_code": 40408,
                "message": f"Subject '{subject}' does not have subject-level compatibility configured",
            },
        )
        assert door.ask("GET", f"/config/{subject}?defaultToGlobal=true")[0] == 200
        assert door.ask("PUT", f"/config/{subject}", body={"compatibility": "full"})[0] == 200
        assert door.ask("GET", f"/config/{subject}") == (200, {"compatibilityLevel": "FULL"})
        assert door.ask("DELETE", f"/config/{subject}") == (200, {"compatibilityLevel": "FULL"})
        assert door.ask("DELETE", f"/config/{subject}")[1]["error_code"] == 40401
        assert (
            door.ask("PUT", f"/config/{subject}", body={"compatibility": "MOSTLY"})[1]["error_code"] == 42203
        )
        assert door.ask("PUT", f"/config/{subject}", body={})[0] == 422
        assert door.ask("GET", "/config") == (200, {"compatibilityLevel": "BACKWARD"})
        assert door.ask("GET", "/mode") == (200, {"mode": "READWRITE"})
        assert door.ask("GET", f"/mode/{subject}")[1]["error_code"] == 40409
        assert door.ask("PUT", f"/mode/{subject}", body={"mode": "LAZY"})[1]["error_code"] == 42204

    def test_read_only_and_import_modes(self, door: Door, subject: str) -> None:
        versions, mode = f"/subjects/{subject}/versions", f"/mode/{subject}"
        assert door.ask("PUT", mode, body={"mode": "READONLY"}) == (200, {"mode": "READONLY"})
        assert door.ask("POST", versions, body={"schema": record("a")})[1]["error_code"] == 42205
        assert door.ask("DELETE", mode) == (200, {"mode": "READONLY"})
        assert (
            door.ask("POST", versions, body={"schema": record("a"), "id": 9_000_000})[1]["error_code"]
            == 42205
        )
        assert door.ask("PUT", mode, body={"mode": "IMPORT"}) == (200, {"mode": "IMPORT"})
        known = door.ask("POST", versions, body={"schema": record("q", name=f"I{uuid.uuid4().hex}")})
        assert known[1]["error_code"] == 42205  # an import brings its ids
        assert door.ask("DELETE", mode)[0] == 200
        assert door.ask("GET", versions)[1]["error_code"] == 40401

    def test_deleting_hides_first_and_removes_then(
        self, admin: SchemaRegistryClient, door: Door, subject: str
    ) -> None:
        mine = record("a", name=f"R{uuid.uuid4().hex}")
        first = admin.register_schema(subject, avro(mine))
        path = f"/subjects/{subject}"
        assert door.ask("DELETE", f"{path}?permanent=true")[1]["error_code"] == 40405
        assert door.ask("DELETE", path) == (200, [1])
        assert subject not in door.ask("GET", "/subjects")[1]
        assert subject in door.ask("GET", "/subjects?deleted=true")[1]
        assert door.ask("GET", f"{path}/versions")[1]["error_code"] == 40401
        assert door.ask("GET", f"{path}/versions?deleted=true") == (200, [1])
        assert door.ask("DELETE", path)[1]["error_code"] == 40404
        assert door.ask("GET", f"/schemas/ids/{first}")[0] == 200  # data written with it is still there
        assert door.ask("POST", f"{path}/versions", body={"schema": mine}) == (200, {"id": first})
        assert door.ask("GET", f"{path}/versions") == (200, [2])
        assert door.ask("DELETE", path) == (200, [2])
        assert door.ask("DELETE", f"{path}?permanent=true") == (200, [1, 2])
        assert door.ask("GET", f"/schemas/ids/{first}")[1]["error_code"] == 40403
        assert door.ask("DELETE", path)[1]["error_code"] == 40401
        status, again = door.ask("POST", f"{path}/versions", body={"schema": mine})
        assert status == 200
        assert again["id"] > first  # never given twice: old data must not be read with another schema

    def test_deleting_one_version(self, admin: SchemaRegistryClient, door: Door, subject: str) -> None:
        for text in (record("a"), record("a", "b?"), record("a", "b?", "c?")):
            admin.register_schema(subject, avro(text))
        path = f"/subjects/{subject}/versions"
        assert door.ask("DELETE", f"{path}/2?permanent=true")[1]["error_code"] == 40407
        assert door.ask("DELETE", f"{path}/2") == (200, 2)
        assert door.ask("DELETE", f"{path}/2")[1]["error_code"] == 40406
        assert door.ask("GET", path) == (200, [1, 3])
        assert door.ask("GET", f"{path}/2")[1]["error_code"] == 40402
        assert door.ask("GET", f"{path}/2?deleted=true")[0] == 200
        assert door.ask("DELETE", f"{path}/2?permanent=true") == (200, 2)
        assert door.ask("DELETE", f"{path}/latest") == (200, 3)
        assert door.ask("GET", f"{path}/-1")[1]["version"] == 1

    def test_references(self, admin: SchemaRegistryClient, door: Door, name: str) -> None:
        place, event = f"{name}.shared.v1-key", f"{name}.shared.v1-value"
        admin.register_schema(place, avro(record("x", name="Place")))
        uses = json.dumps({"type": "record", "name": "E", "fields": [{"name": "at", "type": "test.Place"}]})
        with pytest.raises(SchemaRegistryError) as problem:
            admin.register_schema(event, avro(uses))
        assert code(problem) == (422, 42201)
        schema = avro(uses, references=[SchemaReference("test.Place", place, 1)])
        schema_id = admin.register_schema(event, schema)
        assert door.ask("GET", f"/subjects/{place}/versions/1/referencedby") == (200, [schema_id])
        assert door.ask("DELETE", f"/subjects/{place}")[1]["error_code"] == 42206
        context = SerializationContext(f"{name}.shared.v1", MessageField.VALUE)
        with door.client("admin") as fresh:
            written = AvroSerializer(fresh, schema, conf={"auto.register.schemas": False})(
                {"at": {"x": 7}}, context
            )
            assert written is not None
            assert AvroDeserializer(fresh)(written, context) == {"at": {"x": 7}}

    def test_names_with_slashes_and_letters_of_all_kinds(
        self, admin: SchemaRegistryClient, name: str
    ) -> None:
        for odd in (f"{name}/a b%", f"{name}.träffic-value"):
            schema_id = admin.register_schema(odd, avro(record("a")))
            assert odd in admin.get_subjects()
            assert admin.get_latest_version(odd).schema_id == schema_id

    @pytest.mark.parametrize("kind", ["raw", "dlq", "ledger", "source"])
    def test_the_owners_subjects_stay_with_the_owner(
        self, admin: SchemaRegistryClient, door: Door, name: str, kind: str
    ) -> None:
        subject = f"{name}.{kind}.v1-value"
        text = record("secret", name=f"S{uuid.uuid4().hex}")
        schema_id = admin.register_schema(subject, avro(text))
        reads: list[tuple[str, str, object]] = [
            ("GET", f"/subjects/{subject}/versions", None),
            ("GET", f"/subjects/{subject}/versions/latest", None),
            ("GET", f"/subjects/{subject}/versions/1/schema", None),
            ("POST", f"/subjects/{subject}", {"schema": text}),
            ("POST", f"/compatibility/subjects/{subject}/versions/latest", {"schema": text}),
            ("GET", f"/config/{subject}?defaultToGlobal=true", None),
        ]
        by_id = [f"/schemas/ids/{schema_id}{rest}" for rest in ("", "/schema", "/subjects", "/versions")]
        for role in ROLES:
            inside = role not in OUTSIDE
            for method, path, body in reads:
                assert door.ask(method, path, role, body)[0] == (200 if inside else 403), (role, path)
            for path in by_id:
                assert door.ask("GET", path, role)[0] == (200 if inside else 404), (role, path)
            assert (subject in door.ask("GET", "/subjects?deleted=true", role)[1]) is inside
            if not inside:  # refused before anything of it is looked at
                missing = f"/subjects/{name}x.{kind}.v1-value/versions"
                assert door.ask("GET", missing, role)[0] == 403
                assert door.ask("POST", f"/subjects/{subject}/versions", role, {"schema": text})[0] == 403

    def test_a_raw_schema_cannot_be_read_through_a_reference(
        self, admin: SchemaRegistryClient, door: Door, name: str
    ) -> None:
        raw = f"{name}.raw.v1-value"
        admin.register_schema(raw, avro(record("secret")))
        body = {
            "schema": '"test.Reading"',
            "references": [{"name": "test.Reading", "subject": raw, "version": 1}],
        }
        path = f"/subjects/models.{name}.v1-value/versions"
        assert door.ask("POST", path, "trainer", body)[0] == 403
        assert door.ask("POST", f"/compatibility{path}", "trainer", body)[0] == 403

    def test_who_may_write_what(self, door: Door, name: str) -> None:
        writers = {
            f"{name}.raw.v1-value": {"producer"},
            f"{name}.source.v1-value": {"producer"},
            f"{name}.dlq.v1-value": {"producer", "share"},
            f"{name}.shared.v1-value": {"share"},
            f"{name}.ledger.v1-value": {"share"},
            f"models.{name}.v1-value": {"trainer"},
            f"models.{name}.acks.v1-value": {"trainer"},
            f"models.{name}.record.v1-value": {"trainer"},
            f"{name}-value": set[str](),
        }
        for subject, allowed in writers.items():
            for role in ROLES:
                body = {"schema": record("a")}
                status = door.ask("POST", f"/subjects/{subject}/versions", role, body)[0]
                assert status == (200 if role in {*allowed, "admin"} else 403), (role, subject)
                for method, path in (
                    ("DELETE", f"/subjects/{subject}/versions/77"),
                    ("PUT", f"/mode/{subject}"),
                ):
                    status = door.ask(method, path, role, {"mode": "READWRITE"} if method == "PUT" else None)[
                        0
                    ]
                    assert (status == 403) is (role != "admin"), (role, subject, method)

    def test_nobody_unknown_gets_an_answer(self, door: Door) -> None:
        right = door.password("admin")
        for path in ("/", "/subjects", "/schemas/types", "/config", "/docs", "/openapi.json", "/nothing"):
            assert door.ask("GET", path, None)[0] == 401, path
        for login in (
            f"admin:{right}x",
            "admin:",
            ":",
            "nobody:x",
            f"../secrets/admin:{right}",
            f"ops:{right}",
        ):
            assert door.ask_as("GET", "/subjects", login)[0] == 401, login
        for path in ("/docs", "/redoc", "/openapi.json", "/nothing"):
            assert door.ask("GET", path)[0] == 404

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("", 42201),
            ("string", 42201),
            ('{"type": "record"}', 42201),
            ('{"type": "record", "name": "R", "fields": [{"name": "a", "type": "unheard"}]}', 42201),
            ('{"type": "enum", "name": "E", "symbols": ["A", "A"]}', 42201),
            (
                '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "double", "default": NaN}]}',
                42201,
            ),
            ("[" * 5000 + "]" * 5000, 42201),
            ('{"type": "array", "items": ' * 400 + '"int"' + "}" * 400, 42201),
            ('"\\ud800"', 42201),
        ],
        ids=[
            "empty",
            "word",
            "bare",
            "unknown-type",
            "twice",
            "nan",
            "deep-lists",
            "deep-arrays",
            "surrogate",
        ],
    )
    def test_what_is_no_schema_is_refused(self, door: Door, subject: str, text: str, expected: int) -> None:
        status, answer = door.ask("POST", f"/subjects/{subject}/versions", body={"schema": text})
        assert (status, answer["error_code"]) == (422, expected)
        assert door.ask("GET", f"/subjects/{subject}/versions")[0] == 404

    def test_malformed_requests(self, door: Door, subject: str) -> None:
        path = f"/subjects/{subject}/versions"
        assert door.ask("POST", path, body=b"{")[0] == 422
        assert door.ask("POST", path, body={})[0] == 422
        assert (
            door.ask("POST", path, body={"schema": "{}", "schemaType": "PROTOBUF"})[1]["error_code"] == 42201
        )
        assert door.ask("POST", path, body=b" " * 600_000)[1]["error_code"] == 42209
        assert door.ask("GET", "/schemas/ids/abc")[0] == 422
        assert door.ask("GET", "/schemas/ids/999999999")[1]["error_code"] == 40403
        assert door.ask("GET", f"{path}/1")[1]["error_code"] == 40401
        assert door.ask("POST", path, body={"schema": record("a")})[0] == 200
        for version in ("0", "-2", "x", "99999999999999999999"):
            assert door.ask("GET", f"{path}/{version}")[1]["error_code"] == 42202
        assert door.ask("GET", f"{path}/5")[1]["error_code"] == 40402
        assert (
            door.ask("POST", f"/subjects/{subject}", body={"schema": record("b")})[1]["error_code"] == 40403
        )
        assert door.ask("POST", f"/subjects/{'x' * 300}/versions", body={"schema": record("b")})[0] == 422
