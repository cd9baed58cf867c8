"""Ports of the loopback: which are free, and what to say when one is not."""

from __future__ import annotations

import socket

from schemas.errors import ConfigurationError

HOST = "127.0.0.1"


def free(count: int) -> list[int]:
    """Ports that nobody held a moment ago. Somebody else may take one before it is used."""
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind((HOST, 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()


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
