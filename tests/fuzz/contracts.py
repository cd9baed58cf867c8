"""The contracts that several targets share: the shipped ones, and one with every type, rule and operator."""

from __future__ import annotations

from functools import cache

from schemas.contract import EXAMPLES, Contract, parse

COUNTS = (EXAMPLES / "traffic.detector-counts.yaml").read_text(encoding="utf-8")
DIFFPRIVLIB = (EXAMPLES / "traffic.detector-counts-diffprivlib.yaml").read_text(encoding="utf-8")
HEAD = """contract: city.trips
version: 2.1.0
owner: did:web:x
source: {kind: jsonl, path: t.jsonl}
event:
  key: zone
  time: {field: at, format: iso8601}
  fields:
    zone: {type: string}
    at: {type: timestamp}
    rider: {type: int}
    seen: {type: timestamp}
    people: {type: int, default: 1}
    metres: {type: float}
    speed: {type: float}
    why: {type: string}
    paid: {type: bool}
    fare: {type: float}
    stops: {type: int}
    line: {type: string}
    secret: {type: string}
privacy:
  protects: rider
  epoch: {length: day, anchor: 2016-01-01}
  epsilon: 2.5
  contribution: {max: 3, of: [at], held_by: ledger}
  unit: [rider]
  fields:
    zone: public
    at: {time: 5min}
    rider: pseudonym
    seen: {time: 1h}
    people: {count: {min: 0, max: 8, per_unit: 8, weight: 2}}
    metres: {number: {min: -10, max: 90, step: 0.5, output: wide, wide_by: 9}}
    speed: {number: {min: 0, max: 64, step: 0.25, sensitivity: 8, metric: true}}
    why: {category: {members: [work, home], other: else}}
    paid: public
    fare: {public: {because: printed at the stop}}
    stops: public
    line: public
    secret: drop
shares:
"""
MAP = """  as: smart-data-models/Trip
  map:
    at: at
    id: "urn:{zone}:{rider}"
    half: {from: metres, scale: 0.5, offset: -1}
    how: {from: why, table: {work: w, home: h}, else: x}
    fixed: {constant: 7}
    place: {nest: {type: {constant: Point}, name: zone, when: at, more: {nest: {paid: paid, fare: fare}}}}
    flows: {list: {nest: {v: people, w: {list: stops}}}}
    line: line
"""
TERMS = "terms: {purpose: [traffic], for: 90d, price: 12.50 EUR, region: [EU]}\nkeep: {raw: 7d, shared: 1y}\n"
TRIPS = HEAD + MAP + TERMS
OPEN = """contract: weather.airport
version: 1.0.0
owner: did:web:x
mode: open
source: {kind: csv, path: w.csv, delimiter: ";", encoding: latin-1}
event:
  key: place
  time: {field: at, format: "%Y-%m-%d %H:%M", zone: UTC}
  fields: {place: {type: int}, at: {type: timestamp}, celsius: {type: float, column: "Temp"}}
privacy: {fields: {place: public, at: {time: 1h}, celsius: public}}
terms: {purpose: [weather], for: 1y}
"""
ALL = {"counts": COUNTS, "diffprivlib": DIFFPRIVLIB, "trips": TRIPS, "open": OPEN}


@cache
def contract(name: str) -> Contract:
    return parse(ALL[name], EXAMPLES, name)
