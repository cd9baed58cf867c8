"""What docker-compose.yml needs done before its roles run; the same files and rights as `sluice up` makes.

    python -m sluice.stack.compose prepare              passwords, a closed folder a role, the broker's settings
    python -m sluice.stack.compose open CONTRACT TASK   topics, rights and schemas, as admin

Each role's container mounts its own folder alone as `$SLUICE_HOME`, so that the wall holds between containers.
The registry, which signs everybody in, has its own password and digests of the others.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from schemas.errors import FatalError, RetriableError, SluiceError
from sluice.stack import broker_settings, ready, security
from sluice.stack.broker import new_cluster_id
from sluice.stack.home import Home, write_private
from sluice.stack.registry_gate import DIGEST

PORTS = {"CLIENT": 9092, "INTERNAL": 9094, "CONTROLLER": 9093}
HOST = "kafka"  # the broker's service name, by which the others find it
BROKER_FOLDER, BROKER_DATA = "/sluice", "/var/lib/kafka/data"  # as the broker's container sees them
WAIT_SECONDS = 120


def prepare(root: Path) -> None:
    """Make what is missing under `root`; doing it again changes no password and no cluster id."""
    home = Home(root)
    home.create()
    security.ensure_passwords(home)
    for role in security.ROLES:
        folder = Home(root / "roles" / role)
        folder.path.parent.mkdir(mode=0o700, exist_ok=True)
        folder.create()
        write_private(folder.secrets / role, security.password(home, role).get_secret_value() + "\n")
    registry = Home(root / "roles" / "registry").secrets
    for role in set(security.ROLES) - {"registry"}:  # whoever breaks into it is no super user of the broker
        secret = security.password(home, role).get_secret_value().encode()
        write_private(registry / role, f"{DIGEST.decode()}{hashlib.sha256(secret).hexdigest()}\n")
    broker = root / "broker"
    broker.mkdir(mode=0o700, exist_ok=True)
    text = broker_settings.properties(
        broker_settings.NODE,
        broker_settings.own(BROKER_DATA, PORTS["CONTROLLER"]),
        security.settings(home, PORTS, bind="0.0.0.0", advertised=HOST),
    )
    write_private(broker / "broker.properties", text)
    if not (broker / "format.arguments").exists():
        arguments = ["format", "--ignore-formatted", "-t", new_cluster_id()]
        arguments += ["-c", f"{BROKER_FOLDER}/broker.properties", *security.scram_arguments(home)]
        write_private(broker / "format.arguments", "\n".join(arguments))


def open_all(contract: str, task: str) -> None:
    """Wait for broker and registry; then open the contract and the task. Raises RetriableError."""
    from schemas.contract import load
    from sluice import settings
    from sluice.cli.train import find_task
    from sluice.stack import provision
    from trainers.train import schemas

    admin = settings.load().connection("admin")
    found, spec = load(contract), find_task(task)
    for name, answers in (("broker", ready.broker_answers), ("registry", ready.registry_answers)):
        if not ready.wait_for(lambda: answers(admin), lambda: True, WAIT_SECONDS):  # noqa: B023 - called at once
            raise RetriableError(f"The {name} did not answer within {WAIT_SECONDS} s.", "Look at its log.")
        if name == "broker":
            provision.open_registry(admin)
    provision.open_contract(found, admin)
    provision.open_task(spec.task, [found], admin, schemas(spec))


def main(arguments: list[str]) -> int:
    """The exit code: 0, or that of the error, which is said on standard error."""
    from sluice import settings

    try:
        if arguments == ["prepare"]:
            prepare(settings.load().home)
        elif len(arguments) == 3 and arguments[0] == "open":
            open_all(arguments[1], arguments[2])
        else:
            raise FatalError("Say `prepare`, or `open CONTRACT TASK`.")
    except SluiceError as problem:
        sys.stderr.write(f"{problem}\n")
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
