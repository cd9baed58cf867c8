"""Who may read and write which subject: pure, by name alone, deny by default.

A subject is `<topic>-value` or `<topic>-key`; its topic's name says on which side of the wall it is. What is
no topic of a contract or a task belongs to `admin`. Names decide alone: a refusal never tells whether the
subject exists.
"""

from __future__ import annotations

import re
from enum import Enum


class Side(Enum):
    """Where a subject belongs."""

    OWNER = "raw, dlq, ledger, source, windows and the clock: the owner's roles"
    SHARED = "shared: whoever may read the shared topic"
    MODELS = "releases of a task: whoever may subscribe"
    RECORD = "the trainer's own record"
    OTHER = "none of ours: admin"


ROLES = ("admin", "broker", "registry", "producer", "share", "trainer", "subscriber", "ops")
_READERS = {
    Side.OWNER: {"producer", "share"},
    Side.SHARED: {"producer", "share", "trainer", "subscriber", "ops"},
    Side.MODELS: {"producer", "share", "trainer", "subscriber", "ops"},
    Side.RECORD: {"trainer"},
    Side.OTHER: set[str](),
}
_WRITERS = {
    "raw": {"producer"},
    "source": {"producer"},
    "clock": {"producer"},
    "dlq": {"producer", "share"},
    "ledger": {"share"},
    "bounded": {"share"},
    "shared": {"share"},
    "models": {"trainer"},
    "record": {"trainer"},
}
CLOCK = "sluice.clock"
_CONTRACT = re.compile(r".+\.(raw|dlq|ledger|source|bounded|shared)\.v[0-9]+-(?:key|value)")
_TASK = re.compile(r"models\..+?(?:\.(chunks|acks|forecasts|record))?\.v[0-9]+-(?:key|value)")


def _kind(subject: str) -> str | None:
    """raw, dlq, ledger, source, bounded, shared, clock, models, record; None for a subject that is none of
    ours.
    """
    if subject == CLOCK:
        return "clock"
    if found := _CONTRACT.fullmatch(subject):  # first: a contract named `models.x` keeps its raw side closed
        return found[1]
    if found := _TASK.fullmatch(subject):
        return "record" if found[1] == "record" else "models"
    return None


def side(subject: str) -> Side:
    """The side of the wall that `subject` is on."""
    kind = _kind(subject)
    if kind is None:
        return Side.OTHER
    found = {"shared": Side.SHARED, "models": Side.MODELS, "record": Side.RECORD}
    return found.get(kind, Side.OWNER)


def may_read(principal: str, subject: str) -> bool:
    """Look the subject and its schemas up, by name or by id."""
    return principal == "admin" or principal in _READERS[side(subject)]


def may_write(principal: str, subject: str) -> bool:
    """Register a version under the subject."""
    return principal == "admin" or principal in _WRITERS.get(_kind(subject) or "", set())


def may_govern(principal: str) -> bool:
    """Delete, and change compatibility or mode: what can break other people's readers."""
    return principal == "admin"
