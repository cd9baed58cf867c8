"""A contract: one short YAML file is one data set. Read, checked, frozen; the rest is generated."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, PrivateAttr, StringConstraints, ValidationError, model_validator
from pydantic import Field as Setting

from schemas import findings, names, public, records, rulebook, text
from schemas.errors import ContractError
from schemas.event import Event, Source
from schemas.privacy import Privacy
from schemas.targets import Operator, Rename, Shares
from schemas.terms import Keep, Terms
from schemas.units import Part, digest

Name = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)*$", max_length=120),
    AfterValidator(names.contract_name),
]
Version = Annotated[str, StringConstraints(pattern=r"^[1-9]\d{0,4}\.\d{1,5}\.\d{1,5}$")]
EXAMPLES = Path(__file__).parent / "examples"


class Topics(Part):
    """Names of the contract's topics; `v1` is its major version."""

    raw: str
    shared: str
    dlq: str
    ledger: str
    source: str


class Contract(Part):
    """One data set: its source, its events, its promise, its target model and its terms.

    Comes from `load` or `parse` only: these also refuse what cannot be promised. `warnings` names what is
    allowed but may tell more than it seems to.
    """

    contract: Name
    version: Version
    owner: Annotated[str, StringConstraints(pattern=r"^\S+$", max_length=200)]
    about: Annotated[str, StringConstraints(max_length=1000)] = ""
    mode: Literal["dp", "open"] = "dp"
    source: Source
    event: Event
    privacy: Privacy
    shares: Shares = Shares.model_validate({})
    terms: Terms
    keep: Keep = Keep.model_validate({})
    partitions: Annotated[int, Setting(ge=1, le=1024)] = 1
    _lines: dict[text.Loc, int] = PrivateAttr(default_factory=dict)

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    @cached_property
    def topics(self) -> Topics:
        names = {kind: f"{self.contract}.{kind}.v{self.major}" for kind in Topics.model_fields}
        return Topics(**names)

    @cached_property
    def terms_digest(self) -> str:
        """Hex SHA-256 of the terms as canonical JSON."""
        return digest(self.terms.plain())

    @cached_property
    def targets(self) -> dict[str, Operator]:
        """The mapping; without one, every shared field under its own name."""
        if self.shares.map is not None:
            return dict(self.shares.map)
        shared = (name for name, rule in self.privacy.fields.items() if rule.kind != "drop")
        return {name: Rename(field=name) for name in shared}

    @cached_property
    def raw_schema(self) -> dict[str, Any]:
        return records.raw_schema(self)

    @cached_property
    def shared_schema(self) -> dict[str, Any]:
        return records.shared_schema(self)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        return tuple(rulebook.warnings(self))

    def public(self) -> dict[str, Any]:
        """What everybody may know: no connector, no source column, no field that is not shared."""
        return public.part(self)

    @model_validator(mode="before")
    @classmethod
    def _open_mode(cls, data: Any) -> Any:
        return rulebook.open_defaults(data) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _complete(self) -> Contract:
        if not self.privacy.population:
            self.privacy.__dict__["population"] = f"{self.owner}/{self.privacy.protects}"
        for name, rule in self.privacy.fields.items():
            field = self.event.fields.get(name)
            if field is not None and hasattr(rule, "_integral"):
                rule._integral = field.type == "int"
        return self


def parse(content: str, base: Path | None = None, name: str = "contract") -> Contract:
    """A contract from its text; relative source paths start at `base` (default: the working folder).

    Raises ContractError with every problem, its line and its path; never with a value of data.
    """
    data, lines = text.read(content, name)
    if not isinstance(data, dict):
        raise ContractError(f"{name}: not a contract.", "`sluice contract new SOURCE` writes a first one.")
    try:
        contract = Contract.model_validate(data)
    except ValidationError as problem:
        raise ContractError(*findings.explain(problem, lines, name)) from None
    refused = rulebook.refusals(contract)
    try:
        source = contract.source.path.expanduser()
        contract.source.__dict__["path"] = ((base or Path.cwd()) / source).resolve()
    except (OSError, RuntimeError, ValueError):  # a home that nobody has, a zero byte
        where, remedy = (
            ("source", "path"),
            "Name a file; `~` is your own home, `~name` that of a user of this machine.",
        )
        refused.append(findings.Problem(where, "no file can have this path.", remedy))
    if refused:
        raise ContractError(*findings.render(refused, lines, name))
    return contract


def load(path: Path | str) -> Contract:
    """The contract in a file, or a shipped example by its name (`traffic.detector-counts`)."""
    file = Path(path).expanduser()
    shipped = EXAMPLES / f"{path}.yaml"
    if not file.is_file() and "/" not in str(path) and shipped.is_file():
        file = shipped
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        known = ", ".join(sorted(p.stem for p in EXAMPLES.glob("*.yaml")))
        raise ContractError(
            f"Cannot read the contract {file}: {type(problem).__name__}.",
            f"Name a YAML file, or one of the shipped ones: {known}.",
        ) from None
    return parse(content, file.resolve().parent, file.name)
