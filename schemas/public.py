"""The public part of a contract: what a trainer or a partner may know. Nothing of the raw side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from schemas.rules import Category, Count, Number, Time
from schemas.targets import Rename, Scale

if TYPE_CHECKING:
    from schemas.contract import Contract


def part(contract: Contract) -> dict[str, Any]:
    """JSON-ready. What must stay exact is a decimal string; `bounds` are floats, in the field's unit."""
    privacy = contract.privacy
    shared = {name for name, rule in privacy.fields.items() if rule.kind != "drop"}
    time = privacy.fields[contract.event.time.field]
    assert isinstance(time, Time)
    return {
        "contract": contract.contract,
        "version": contract.version,
        "owner": contract.owner,
        "about": contract.about,
        "mode": contract.mode,
        "topic": contract.topics.shared,
        "model": contract.shares.as_,
        "unit": {
            "protects": privacy.protects,
            "population": privacy.population,
            "neighbours": privacy.neighbours,
            "epoch_ms": privacy.epoch.length_ms,
            "anchor_ms": privacy.epoch.anchor_ms,
        },
        "epsilon": str(privacy.epsilon),
        "contribution": {
            "max": privacy.contribution.max,
            "of": [name for name in privacy.contribution.of if name in shared],
            "held_by": privacy.contribution.held_by,
            "basis": privacy.contribution.basis,
            "attested_by": privacy.contribution.attested_by,
        },
        "engine": privacy.engine,
        "key": contract.event.key,
        "time": {
            "field": contract.event.time.field,
            "attribute": attribute(contract, contract.event.time.field),
            "grid_ms": time.grid_ms,
        },
        "fields": {name: _field(contract, name) for name in contract.event.fields if name in shared},
        "terms": contract.terms.plain(),
        "terms_digest": contract.terms_digest,
        "keep": {"shared_ms": contract.keep.shared_ms},
    }


def attribute(contract: Contract, field: str) -> str | None:
    """The attribute of the target model that carries a field as it is (or scaled), if one does."""
    for name, operator in contract.targets.items():
        if isinstance(operator, Rename | Scale) and operator.field == field:
            return name
    return None


def _field(contract: Contract, name: str) -> dict[str, Any]:
    rule = contract.privacy.fields[name]
    told: dict[str, Any] = {
        "id": contract.event.fields[name].id,
        "type": contract.event.fields[name].type,
        "about": contract.event.fields[name].about,
        "rule": rule.kind,
        "attribute": attribute(contract, name),
    }
    if isinstance(rule, Time):
        told["grid_ms"] = rule.grid_ms
    elif isinstance(rule, Count | Number):
        told["law"] = {
            "mechanism": f"{'clamped' if rule.output == 'clamp' else 'wide'}-discrete-laplace",
            "nano_epsilon": rule.nano_epsilon,
            "range": rule.range,
            "sensitivity": rule.sensitivity,
            "margin": rule.margin,
            "step": str(rule.step),
            "lower": str(rule.lower),
            "middle": str(rule.middle),
        }
        told["bounds"] = [float(bound) for bound in rule.bounds]
    elif isinstance(rule, Category):
        told["law"] = {"mechanism": "randomized-response", "nano_epsilon": rule.nano_epsilon}
        told["members"] = list(rule.members)
    return told
