"""Who there is, and how each proves it: principals, passwords, listeners, first credentials.

Every listener asks for SCRAM-SHA-512, the controller's and the broker's own included; whoever is not named by
an ACL may do nothing. Passwords are made at the first start, one file per principal (0600): one
operating-system user who runs all roles can read them all, so a wall between people needs a user or a machine
per role.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from pathlib import Path

from pydantic import SecretStr

from schemas.errors import ConfigurationError
from sluice.stack.home import Home, write_private

# admin provisions and audits; broker is the node itself. Both are super users, nobody else is.
SUPER_USERS = ("admin", "broker")
ROLES = (*SUPER_USERS, "registry", "producer", "share", "trainer", "subscriber", "ops")
MECHANISM = "SCRAM-SHA-512"
LOOPBACK = "127.0.0.1"
LISTENERS = ("CLIENT", "INTERNAL", "CONTROLLER")
ITERATIONS = 4096  # the least that Kafka takes; passwords are 192 random bits, so that more would buy nothing


def ensure_passwords(home: Home) -> None:
    """Make the passwords that are missing. Those that exist stay: the broker knows only them."""
    for role in ROLES:
        file = home.secrets / role
        if not file.exists():
            write_private(file, secrets.token_urlsafe(24) + "\n")


def password(home: Home, role: str) -> SecretStr:
    """The password of `role`. Raises ConfigurationError where its file is missing or empty."""
    file = home.secrets / role
    try:
        text = file.read_text().strip()
    except OSError:
        text = ""
    if not text:
        raise ConfigurationError(
            f"No password for principal {role!r}: {file} is missing, empty or closed to you.",
            "Restore it, or start anew with `sluice down --purge` (this deletes all data of this stack).",
        )
    return SecretStr(text)


def scram_arguments(home: Home) -> list[str]:
    """Arguments of `StorageTool format` that store each principal's salted password.

    Salted here, so that no password in the clear ever reaches another process; the salted form still signs
    in, so hand these over in a 0600 file, never on a command line.
    """
    arguments: list[str] = []
    for role in ROLES:
        salt = secrets.token_bytes(24)
        secret = password(home, role).get_secret_value().encode()
        salted = hashlib.pbkdf2_hmac("sha512", secret, salt, ITERATIONS)
        arguments += [
            "--add-scram",
            f'{MECHANISM}=[name="{role}",iterations={ITERATIONS},'
            f'salt="{base64.b64encode(salt).decode()}",saltedpassword="{base64.b64encode(salted).decode()}"]',
        ]
    return arguments


def settings(
    home: Home, ports: dict[str, int], bind: str = LOOPBACK, advertised: str = LOOPBACK
) -> dict[str, str]:
    """The broker's settings that make the wall. `ports` names one port per listener of LISTENERS.

    Clients reach the node at `advertised`; `bind` is the address it listens on for them. The two internal
    listeners stay on the loopback: nobody but the node itself uses them.
    """
    own = password(home, "broker").get_secret_value()
    module = "org.apache.kafka.common.security.scram.ScramLoginModule required"
    jaas = {
        "CLIENT": f"{module};",
        "INTERNAL": f'{module} username="broker" password="{own}";',
        "CONTROLLER": f'{module} username="broker" password="{own}";',
    }
    found = {
        "listeners": _addresses(ports, bind),
        "advertised.listeners": _addresses(ports, advertised),
        "listener.security.protocol.map": ",".join(f"{name}:SASL_PLAINTEXT" for name in LISTENERS),
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "INTERNAL",
        "sasl.enabled.mechanisms": MECHANISM,
        "sasl.mechanism.inter.broker.protocol": MECHANISM,
        "sasl.mechanism.controller.protocol": MECHANISM,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": ";".join(f"User:{name}" for name in SUPER_USERS),
    }
    for name, entry in jaas.items():
        found[f"listener.name.{name.lower()}.scram-sha-512.sasl.jaas.config"] = entry
        found[f"listener.name.{name.lower()}.sasl.enabled.mechanisms"] = MECHANISM
    return found


def _addresses(ports: dict[str, int], client_host: str) -> str:
    hosts = {"CLIENT": client_host}
    return ",".join(f"{name}://{hosts.get(name, LOOPBACK)}:{ports[name]}" for name in LISTENERS)


def check_private(home: Home) -> list[Path]:
    """Secret files that other users of the machine could read; empty is right."""
    return [file for file in sorted(home.secrets.glob("*")) if file.stat().st_mode & 0o077]
