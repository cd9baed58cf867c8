"""How much room the broker needs on its disk, and what to say when there is less.

A broker whose disk is full halts in the middle of whatever it writes, so its keeper stops it in order before that, and
starts it again as soon as there is room (keeper.py). Clients wait meanwhile: nothing acknowledged is lost.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

START_BYTES = 256 << 20  # with less the broker is not started
STOP_BYTES = 128 << 20  # with less it is stopped: two seconds of writing at 60 MB/s, as fast as two cores go
WARN_BYTES = 1 << 30


def free(folder: Path) -> int:
    """Bytes that this user may still write where `folder` lies, or will lie. Raises OSError."""
    return shutil.disk_usage(folder).free if folder.exists() else free(folder.parent)


def words(home: Path, left: int, answers: bool, kept: bool) -> str:
    """What a user should know of a stack's disk with `left` bytes; empty where all is well. `answers`: the broker does;
    `kept`: its supervisor runs. Pure.
    """
    if not answers and left < START_BYTES:
        then = "it then goes on by itself" if kept else "then `sluice up --detach` resumes"
        return (
            f"disk full: {left >> 20} MB free at {home}, the broker needs {START_BYTES >> 20}. "
            f"It is stopped, and nothing acknowledged is lost. Free some room: {then}."
        )
    if left < WARN_BYTES:
        return (
            f"The disk is nearly full: {left >> 20} MB free at {home}, with {STOP_BYTES >> 20} the broker is stopped. "
            "Free some room, or lower `keep` in the contracts."
        )
    return ""


def why_silent(home: Path) -> str:
    """What the disk of a stack has to do with a broker that does not answer; empty where nothing, or where the stack
    lies elsewhere. Never raises."""
    try:
        stack = json.loads((home / "stack.json").read_text())
        left = free(home)
        keeper = stack["pids"].get("supervisor")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""
    return words(home, left, False, keeper is not None and _lives(int(keeper))) if left < START_BYTES else ""


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
