"""What the registry says no with: Confluent's status and error codes, as unmodified clients expect them.

Codes and wording follow the public API reference of Confluent Schema Registry, section "Errors".
"""

from __future__ import annotations

_PERMANENT = "Set permanent=true to delete permanently"
_NOT_FIRST = "was not deleted first before being permanently deleted"


class Refused(Exception):  # noqa: N818 - an answer, not a failure
    """One request that is not granted. `status` is HTTP's, `code` the registry's own, `message` for
    people.
    """

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def not_signed_in() -> Refused:
    return Refused(401, 401, "Sign in with a principal of the stack and its password (basic authentication).")


def denied(principal: str, operation: str, subject: str | None = None) -> Refused:
    where = f"on Subject: {subject}" if subject is not None else "on the registry as a whole"
    return Refused(403, 40301, f"User is denied operation {operation} {where} (principal {principal}).")


def subject_not_found(subject: str) -> Refused:
    return Refused(404, 40401, f"Subject '{subject}' not found.")


def version_not_found(version: object) -> Refused:
    return Refused(404, 40402, f"Version {version} not found.")


def schema_not_found(schema_id: int | None = None) -> Refused:
    return Refused(404, 40403, "Schema not found" if schema_id is None else f"Schema {schema_id} not found")


def subject_soft_deleted(subject: str) -> Refused:
    return Refused(404, 40404, f"Subject '{subject}' was soft deleted. {_PERMANENT}")


def subject_not_soft_deleted(subject: str) -> Refused:
    return Refused(404, 40405, f"Subject '{subject}' {_NOT_FIRST}")


def version_soft_deleted(subject: str, version: int) -> Refused:
    return Refused(404, 40406, f"Subject '{subject}' Version {version} was soft deleted. {_PERMANENT}")


def version_not_soft_deleted(subject: str, version: int) -> Refused:
    return Refused(404, 40407, f"Subject '{subject}' Version {version} {_NOT_FIRST}")


def no_subject_level(subject: str) -> Refused:
    return Refused(404, 40408, f"Subject '{subject}' does not have subject-level compatibility configured")


def no_subject_mode(subject: str) -> Refused:
    return Refused(404, 40409, f"Subject '{subject}' does not have subject-level mode configured")


def incompatible(messages: list[str]) -> Refused:
    why = "; ".join(messages)
    return Refused(
        409, 409, f"Schema being registered is incompatible with an earlier schema; details: {why}"
    )


def too_large(limit: int) -> Refused:
    return Refused(413, 42209, f"The request is larger than {limit} bytes.")


def invalid_schema(why: str) -> Refused:
    return Refused(422, 42201, f"Invalid schema: {why}")


def invalid_version(version: object) -> Refused:
    return Refused(
        422,
        42202,
        f"The specified version '{version}' is not a valid version id. "
        'Allowed values are between [1, 2^31-1] and the string "latest"',
    )


def invalid_level(levels: tuple[str, ...]) -> Refused:
    return Refused(422, 42203, f"Invalid compatibility level. Valid values are {', '.join(levels)}")


def invalid_mode(modes: tuple[str, ...]) -> Refused:
    return Refused(422, 42204, f"Invalid mode. Valid values are {', '.join(modes)}")


def not_permitted(why: str) -> Refused:
    return Refused(422, 42205, why)


def referenced(subject: str, version: int) -> Refused:
    return Refused(422, 42206, f"One or more references exist to the schema {subject}, version {version}.")


def invalid_subject() -> Refused:
    return Refused(422, 42208, "The specified subject is not valid.")


def store_error() -> Refused:
    return Refused(500, 50001, "The log did not confirm the change; its outcome is unknown: a retry is safe.")


def store_timeout() -> Refused:
    return Refused(500, 50002, "The log took the change but did not give it back in time: a retry is safe.")


def starting() -> Refused:
    return Refused(503, 50301, "The registry has not read its log to the end yet.")
