"""The schema registry as a process: `python -m sluice.stack.registry --home HOME --port N [--bootstrap
HOST:PORT]`.

Confluent's REST interface over the compacted topic `_schemas`. May be started together with the broker: it
waits for it, and answers 503 until it has read its log to the end; every request, a probe of readiness (`GET
/subjects`) included, needs basic authentication as one of the stack's principals. Way of a request:
registry_gate -> registry_http -> registry_changes (decides, pure) -> registry_service -> registry_log
(appends, reads back) -> registry_store (applies, pure).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import ipaddress
import json
import logging
import logging.handlers
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from confluent_kafka import KafkaError
from pydantic import SecretStr

from schemas.errors import ConfigurationError, RetriableError, SluiceError
from sluice.stack import registry_http
from sluice.stack.registry_gate import Gate, Passwords
from sluice.stack.registry_log import Log
from sluice.stack.registry_replies import Refused
from sluice.stack.registry_service import Registry
from streams.kafka.clients import Connection

QUIET_SECONDS = 60.0
log = structlog.get_logger("registry")


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT. The exit code is that of the error, 0 without one."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the server stops in order, then raises it again
    _log_to(options.home, options.log)
    try:
        with _only_one(options.home), _bound(options) as listener:
            return _serve(options, _connection(options), listener)
    except SluiceError as problem:
        log.error("stopped", error=type(problem).__name__, message=problem.message, remedy=problem.remedy)
        sys.stderr.write(f"registry: {problem}\n")
        return problem.exit_code


def server(registry: Registry, secrets: Path, wait_seconds: float, **more: Any) -> Server:
    """All of it but the socket: gate, routes, and the reading of the log beside them."""
    app = registry_http.create(registry)
    gate = Gate(app, Passwords(secrets), lambda: registry.ready)
    settings: dict[str, Any] = {
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "http": "h11",
        "ws": "none",
        "loop": "asyncio",
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": 2,
        "limit_concurrency": 256,
        **more,
    }
    found = Server(uvicorn.Config(gate, **settings))

    async def begin() -> None:
        try:
            await registry.start(wait_seconds, found.fail)
        except SluiceError as problem:
            found.fail(problem)
        except Refused as problem:
            found.fail(RetriableError(problem.message, "Look at the broker's log."))
        else:
            store = registry.store
            log.info("ready", subjects=len(store.subjects), offset=store.applied, ignored=store.ignored)
            if store.conflicts:
                log.error("two schemas under one id", ids=store.conflicts)

    @contextlib.asynccontextmanager
    async def life(_: Any) -> AsyncIterator[None]:
        """Serving starts at once; the log is read beside it."""
        task = asyncio.create_task(begin())
        try:
            yield
        finally:
            registry.stop()
            task.cancel()

    app.router.lifespan_context = life
    return found


class Server(uvicorn.Server):
    """A server that can end because its log did. `failure` is why; None after an orderly end."""

    failure: SluiceError | None = None

    def fail(self, problem: SluiceError) -> None:
        self.failure = problem
        self.should_exit = True


def _serve(options: argparse.Namespace, connection: Connection, listener: socket.socket) -> int:
    said: dict[str, float] = {}

    def trouble(error: KafkaError) -> None:
        """Each kind once a minute: of a broker that is away one hears four times a second."""
        now = time.monotonic()
        if now - said.get(error.name(), -QUIET_SECONDS) >= QUIET_SECONDS:
            said[error.name()] = now
            log.warning("broker", error=error.name())

    registry = Registry(Log(connection, trouble))
    tls = {"ssl_certfile": options.tls_cert, "ssl_keyfile": options.tls_key}
    found = server(registry, options.home / "secrets", options.wait, **tls)
    with contextlib.suppress(KeyboardInterrupt):
        found.run(sockets=[listener])
    if found.failure is not None:
        raise found.failure
    return 0


def _connection(options: argparse.Namespace) -> Connection:
    bootstrap = options.bootstrap
    try:
        bootstrap = bootstrap or json.loads((options.home / "stack.json").read_text())["bootstrap"]
        password = (options.home / "secrets" / "registry").read_text().strip()
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ConfigurationError(
            f"{options.home} lacks stack.json with a broker or secrets/registry ({type(problem).__name__}).",
            "Start the stack with `sluice up`, or name the broker with --bootstrap and add the password.",
        ) from None
    return Connection(bootstrap, "registry", SecretStr(password), options.protocol, ca_file=options.ca_file)


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """One registry per home: two writers would give one id to two schemas."""
    folder = home / "run"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        with (folder / "registry.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError:
        raise RetriableError(
            f"A registry already serves {home}.", "Use that one, or stop it first with `sluice down`."
        ) from None


@contextlib.contextmanager
def _bound(options: argparse.Namespace) -> Iterator[socket.socket]:
    """The listening socket, made here so that a port that is taken gives a message and not a stack trace."""
    encrypted = options.tls_cert is not None
    if not (encrypted or options.plaintext or _is_loopback(options.host)):
        raise ConfigurationError(
            f"Passwords would pass {options.host} in the clear.",
            "Give --tls-cert and --tls-key, or --plaintext if nobody else is on that network.",
        )
    listener = None
    try:
        listener = listen(options.host, options.port)
        yield listener
    except OSError as problem:
        if listener is not None:
            raise
        raise RetriableError(
            f"The registry cannot listen at {options.host}:{options.port}: {problem.strerror}.",
            "Stop what holds the port, or choose another one with --port.",
        ) from None
    finally:
        if listener is not None:
            listener.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket for `server`. Raises OSError where it cannot be had."""
    listener = socket.create_server((host, port), backlog=128)
    # asyncio sets this itself only for sockets that name their protocol; without it each answer waits 40 ms for
    # the client's delayed acknowledgement. Accepted connections inherit it.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _log_to(home: Path, file: str | None) -> None:
    """JSON lines to a rotated file (3 x 1 MB), or to stderr for `-`."""
    handler: logging.Handler
    if file == "-":
        handler = logging.StreamHandler()
    else:
        target = Path(file) if file else home / "logs" / "registry.log"
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(target, maxBytes=1_000_000, backupCount=2)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s", force=True)
    logging.getLogger("registry").setLevel(logging.INFO)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("sluice.stack.registry", description="Confluent-compatible registry.")
    parser.add_argument("--home", type=Path, required=True, help="SLUICE_HOME: secrets, stack.json, logs")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--bootstrap", help="broker, host:port; default from stack.json")
    parser.add_argument("--protocol", default="SASL_PLAINTEXT", choices=("SASL_PLAINTEXT", "SASL_SSL"))
    parser.add_argument("--ca-file", help="certificate authority of the broker, for SASL_SSL")
    parser.add_argument("--tls-cert", help="certificate to serve HTTPS with")
    parser.add_argument("--tls-key", help="its key")
    parser.add_argument(
        "--plaintext", action="store_true", help="serve HTTP beyond loopback, on a closed network"
    )
    parser.add_argument(
        "--wait", type=float, default=120.0, help="seconds to wait for the broker (default 120)"
    )
    parser.add_argument("--log", help="log file, - for stderr; default HOME/logs/registry.log")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
