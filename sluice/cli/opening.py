"""Where the admin's secret is, commands open what they need first; elsewhere the owner's admin has done it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schemas.contract import Contract
    from sluice.settings import Settings
    from streams.kafka.clients import Connection


def admin_of(here: Settings) -> Connection | None:
    """The admin's connection, not that of a user name or password set for a role; None where it is not known."""
    if not (here.home / "secrets" / "admin").exists():
        return None
    return here.model_copy(update={"username": None, "password": None, "password_file": None}).connection(
        "admin"
    )


def open_contract(here: Settings, contract: Contract) -> None:
    """Topics, rights and schemas of a contract."""
    admin = admin_of(here)
    if admin is not None:
        from sluice.stack import provision

        provision.open_contract(contract, admin)
