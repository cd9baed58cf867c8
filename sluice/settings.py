"""Where things are: flag > SLUICE_* variable > `$SLUICE_HOME/stack.json` (written by `sluice up`) > default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from schemas.errors import ConfigurationError
from streams.kafka.clients import Connection

DEFAULT_HOME = Path("~/.sluice")


class Settings(BaseSettings):
    """All settings of the command line, each also a `SLUICE_<NAME>` variable."""

    model_config = SettingsConfigDict(
        env_prefix="SLUICE_", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    home: Path = Field(DEFAULT_HOME, description="folder of keys, secrets, data and stack.json")
    bootstrap: str | None = Field(None, description="broker address, host:port[,host:port]")
    registry_url: str | None = Field(None, description="address of a Confluent-compatible schema registry")
    protocol: str = Field("SASL_PLAINTEXT", description="SASL_PLAINTEXT (loopback) or SASL_SSL")
    ca_file: str | None = Field(None, description="certificate authority of the broker, for SASL_SSL")
    username: str | None = Field(None, description="principal; default is the command's own role")
    password: SecretStr | None = Field(None, description="password of the principal")
    password_file: Path | None = Field(
        None, description="file that holds it; default $SLUICE_HOME/secrets/<principal>"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings

    def model_post_init(self, context: Any) -> None:
        self.home = self.home.expanduser().absolute()
        file = self.home / "stack.json"
        if file.exists():
            stack = json.loads(file.read_text())
            self.bootstrap = self.bootstrap or stack.get("bootstrap")
            self.registry_url = self.registry_url or stack.get("registry_url")

    def connection(self, role: str) -> Connection:
        """The connection of `role`, one of the principals in `sluice.stack.security.ROLES`, or of `username`.

        Raises ConfigurationError where no broker is known or the password cannot be found.
        """
        principal = self.username or role
        if self.bootstrap is None:
            raise ConfigurationError(
                f"No broker is known: {self.home / 'stack.json'} does not exist.",
                "Start one with `sluice up --detach`, or name one with --bootstrap or SLUICE_BOOTSTRAP.",
            )
        if self.password is not None:
            password = self.password
        else:
            file = self.password_file or self.home / "secrets" / principal
            if not file.exists():
                raise ConfigurationError(
                    f"No password for principal {principal!r}: {file} does not exist.",
                    "Set SLUICE_PASSWORD or SLUICE_PASSWORD_FILE, or SLUICE_HOME to the stack's folder.",
                )
            password = SecretStr(file.read_text().strip())
        return Connection(
            bootstrap=self.bootstrap,
            principal=principal,
            password=password,
            protocol=self.protocol,
            ca_file=self.ca_file,
            registry_url=self.registry_url,
        )


def load(**flags: Any) -> Settings:
    """Settings with the flags that were given; a flag that is None was not given."""
    return Settings(**{name: value for name, value in flags.items() if value is not None})
