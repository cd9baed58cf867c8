"""Ports of the loopback: which are free, and what to say when one is not."""

from __future__ import annotations

import secrets
import socket

from schemas.errors import ConfigurationError

HOST = "127.0.0.1"
FIRST, LAST = 15_000, 32_000


def free(count: int) -> list[int]:
    """Ports that nobody held a moment ago, all different.

    Taken at random from below the range out of which systems serve outgoing connections (32768 on Linux): a
    port from that range is sometimes gone again before the broker, a second later, listens on it.
    """
    found: list[int] = []
    while len(found) < count:
        port = FIRST + secrets.randbelow(LAST - FIRST)
        if port not in found and is_free(port):
            found.append(port)
    return found


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def claim(port: int, flag: str) -> int:
    """`port`, or a free one for 0. Raises ConfigurationError naming the command-line `flag` where it is
    taken.
    """
    if port == 0:
        return free(1)[0]
    if not is_free(port):
        raise ConfigurationError(
            f"Port {port} is taken by another program.",
            f"Name another with `sluice up {flag} {port + 10}`, or let Sluice choose one with `{flag} 0`.",
        )
    return port
