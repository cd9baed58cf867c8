"""Which names contracts and tasks may have, so that no topic of one is ever a topic of another.

    contract c   c.raw.v1 ...             its last part but the version says on which side of the wall it is
    task t       models.t.v1, models.t.chunks.v1 ...

Rights follow names: a task `city.raw` beside a contract `models.city` would let subscribers read that
contract's raw topic, and a task `traffic.record` the trainer's own record of the task `traffic`.
"""

from __future__ import annotations

import re

OWNER_KINDS = ("raw", "shared", "dlq", "ledger", "source", "bounded")
MODEL_KINDS = ("chunks", "acks", "forecasts", "record")
MODELS = "models"  # the first part of every task's topics
_TASK = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
_SHARED = re.compile(r"[a-z][a-z0-9.-]*\.shared\.v[1-9][0-9]*")


def contract_name(name: str) -> str:
    """The name, if a contract may have it. Raises ValueError."""
    if name.split(".")[0] == MODELS:
        raise ValueError("names that begin with `models` are those of tasks' topics; begin with another word")
    return name


def task_name(name: str) -> str:
    """The name, if a task may have it: at most 100 characters. Raises ValueError."""
    if len(name) > 100 or not _TASK.fullmatch(name):
        raise ValueError("a task's name has small letters and digits, with a dot or a dash between")
    if name.split(".")[-1] in (*OWNER_KINDS, *MODEL_KINDS):
        raise ValueError("this last word names a topic of its own; end a task's name with another one")
    return name


def is_shared_topic(topic: str) -> bool:
    """Whether a topic is the shared one of some contract."""
    return _SHARED.fullmatch(topic) is not None
