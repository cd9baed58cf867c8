# make demo | test | lint | bench-share | bench-peers | lock. Everything runs in .venv, made here with uv where it is present, else pip.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { command -v $$p; break; }; done)
UV := $(shell command -v uv 2>/dev/null)
export PYTHONUNBUFFERED := 1

.PHONY: help demo test lint types unit integration e2e bench-share bench-peers bench-limits bench-scale chaos soak fuzz lock audit-deps clean

help:
	@sed -n 's/^# make/make/p' Makefile

$(VENV)/made:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 on the path"; echo "  -> install one, or name it: make PYTHON=/path/to/python3.11 demo"; exit 2; }
	$(if $(UV),$(UV) venv -q --clear --python $(PYTHON) $(VENV),$(PYTHON) -m venv --clear $(VENV))
	@touch $@

define install
	@echo "Installing into $(VENV): torch brings its GPU build on Linux, about 2.7 GB to fetch and 5 GB on disk; one to ten minutes."
	$(if $(UV),$(UV) pip install -q --python $(BIN)/python --require-hashes -r $(1),$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r $(1))
	$(if $(UV),$(UV) pip install -q --python $(BIN)/python --no-deps -e .,$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .)
endef

$(VENV)/demo: $(VENV)/made requirements.lock pyproject.toml
	$(call install,requirements.lock)
	@touch $@

$(VENV)/dev: $(VENV)/made requirements-dev.lock pyproject.toml
	$(call install,requirements-dev.lock)
	@touch $@ $(VENV)/demo

# make demo          real traffic counts from a file to a subscriber's forecast (ARGS=--json for one JSON object)
demo: $(VENV)/demo
	@$(BIN)/sluice demo $(ARGS)

# make test          lint, types, unit, property, integration on one embedded broker, e2e
test: lint types
	$(BIN)/python -m pytest $(ARGS)

# make lint          ruff, formatting included
lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

unit: $(VENV)/dev
	$(BIN)/python -m pytest tests/unit tests/property $(ARGS)

integration: $(VENV)/dev
	$(BIN)/python -m pytest tests/integration $(ARGS)

e2e: $(VENV)/dev
	$(BIN)/python -m pytest tests/e2e $(ARGS)

# make bench-share   the share hop against a plain Faust app, in one run
bench-share: $(VENV)/dev
	@$(BIN)/python -m bench.bench_share $(ARGS)

# make bench-limits  where the share hop's time goes: each part of it alone
bench-limits: $(VENV)/dev
	@$(BIN)/python -m bench.limits $(ARGS)

# make bench-scale   growth with events and units, and the recovery of a large ledger (some minutes)
bench-scale: $(VENV)/dev
	@$(BIN)/python -m bench.bench_scale $(ARGS)

# make chaos         faults against the real broker under load, five minutes (ARGS='--seed 2 --faults kill,broker', '--kills 100 --broker-kills 10', '--endtxn 50')
chaos: $(VENV)/dev
	@$(BIN)/python -m tests.chaos $(ARGS)

# make fuzz          coverage-guided fuzzing, ten minutes a target (ARGS='--seconds 20 --target codec')
fuzz: $(VENV)/dev
	@$(BIN)/python -m tests.fuzz $(ARGS)

# make soak          5,000 events/s for an hour: memory, handles, lag, nothing lost (ARGS='--seconds 300'; a plot beside the logs)
soak: $(VENV)/dev
	@$(BIN)/python -m tests.soak $(ARGS)

# make bench-peers   the share hop beside Kafka Streams, Quix, Bytewax, FastStream and more (ARGS='--only ours,quix --size 400')
bench-peers: $(VENV)/dev
	@$(BIN)/python -m bench.bench_peers $(ARGS)

# make lock          resolve the lock files anew (needs uv)
lock:
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --extra demo pyproject.toml -o requirements.lock
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock

# make audit-deps    known vulnerabilities of what the lock file pins
audit-deps: $(VENV)/dev
	$(BIN)/pip-audit --require-hashes --disable-pip -r requirements.lock

# make clean         remove the environment and what tools left behind
clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
