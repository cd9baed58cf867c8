"""What `sluice status` says to do next."""

from __future__ import annotations

from sluice.cli.stack import _what_next
from sluice.stack.control import Status
from sluice.stack.runs import Run


def status(*roles: str) -> Status:
    return Status(
        home="/h",
        ready=False,
        broker_answers=False,
        registry_answers=True,
        bootstrap="127.0.0.1:1",
        registry_url="http://127.0.0.1:2",
        cluster_id=None,
        kafka="4",
        processes=tuple(Run(role, 1, "", 0) for role in roles),
        rss_bytes=0,
        disk_data_bytes=0,
        disk_logs_bytes=0,
        disk_free_bytes=1 << 40,
        open_secrets=(),
    )


def test_a_stopped_stack_wants_to_be_started() -> None:
    assert "`sluice up --detach` starts it" in _what_next(status())
    assert "`sluice up --detach` starts it" in _what_next(status("share"))


def test_a_child_that_comes_back_wants_patience() -> None:
    said = _what_next(status("supervisor", "registry"))
    assert "starting broker again" in said
    assert "sluice up" not in said
