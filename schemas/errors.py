"""The one tree of errors, grouped by what can be done next.

A message says what happened, with the names and numbers that matter but never a value out of a record, and
`remedy` says what to do. The command line prints both and never a stack trace.
"""

from __future__ import annotations


class SluiceError(Exception):
    """Root of all errors that are meant for a user's eyes."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.remedy}" if self.remedy else self.message


class FatalError(SluiceError):
    """Trying again changes nothing: the configuration, the files or the rights must change first."""

    exit_code = 2


class ContractError(FatalError):
    """The contract cannot be read, contradicts itself, or promises what cannot be kept."""


class ConfigurationError(FatalError):
    """A setting is missing, wrong or points to nothing."""


class WallError(FatalError):
    """The broker or the registry refused: this principal has no right to it."""


class KeyStoreError(FatalError):
    """The noise keys are missing, damaged, or do not fit the ledger."""


class TornError(FatalError):
    """Offsets and changelog of a partition disagree; the partition is stopped until an operator decides."""


class RetriableError(SluiceError):
    """The same call may go through later: a broker that restarts, a time-out, a port that is still held."""

    exit_code = 3


class SkippableError(SluiceError):
    """One record or one release is bad; the stream goes on without it."""

    exit_code = 4
