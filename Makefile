# Everything runs in an environment of its own, built from the lock file; nothing but Python >= 3.11 and make is needed.
SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first interpreter that runs and is new enough. (A pyenv shim may be on PATH and still refuse to run.)
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=
MINUTES ?= 5
SEED ?=
FAIRQUE_CHAOS_MINUTES ?= $(MINUTES)

.PHONY: help
help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer on PATH; set PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: env
env: $(STAMP)  ## build the environment (every other target does it too)

.PHONY: demo
demo: env  ## the demo: fairness on real files, a worker killed half-way, a chart
	$(BIN)/fairque demo

.PHONY: test
test: env  ## all tests, the chaos suite in its short form (PYTEST_ARGS="-k name" to choose)
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadscope $(PYTEST_ARGS)

.PHONY: test-all
test-all:  ## all tests on each of Python 3.11, 3.12, 3.13 that is found
	@set -e; for version in 3.11 3.12 3.13; do \
		found=; \
		for p in python$$version $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version*/bin/python$$version; do \
			if $$p -c '' >/dev/null 2>&1; then found=$$p; break; fi; \
		done; \
		if [ -z "$$found" ]; then echo "== Python $$version: not found, skipped"; continue; fi; \
		echo "== Python $$version: $$found"; \
		$(MAKE) --no-print-directory test PYTHON=$$found VENV=.venv-$$version; \
	done

.PHONY: check
check: env  ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

.PHONY: format
format: env  ## apply the format and the safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: env  ## the benchmarks beside the peers (QUICK=1: 3 minutes; ARGS="--only drain" for a part)
	$(BIN)/python benchmarks/run.py $(if $(QUICK),--quick) $(ARGS)

.PHONY: bench-guard
bench-guard: env  ## whether an operation got slower than committed (ARGS=--update to commit new figures)
	$(BIN)/python benchmarks/guard.py $(ARGS)

.PHONY: bench-docs
bench-docs: env  ## put the last full report into docs/performance.md
	$(BIN)/python benchmarks/run.py --write-docs $(ARGS)

.PHONY: bench-lock
bench-lock:  ## pin the newest peers anew (needs uv and npm)
	@set -e; cd benchmarks; for group in "" -arq -saq; do \
		uv pip compile requirements$$group.in $(BENCH_LOCK_OPTIONS) -o requirements$$group.lock; \
	done; \
	cd bullmq; npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved --save-exact \
		bullmq@latest ioredis@latest
BENCH_LOCK_OPTIONS = --upgrade $(subst "make lock","make bench-lock",$(LOCK_OPTIONS))

.PHONY: chaos
chaos: env  ## kill workers, schedulers and the server for MINUTES (5), by the schedule of SEED, and compare sent with done
	$(BIN)/python -m tests.support.ledger --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: chaos-tests
chaos-tests: env  ## the chaos suite in its long form: random faults for MINUTES (5) minutes
	FAIRQUE_CHAOS_MINUTES=$(FAIRQUE_CHAOS_MINUTES) $(BIN)/python -m pytest --timeout 0 tests/chaos $(PYTEST_ARGS)

.PHONY: docs
docs: env  ## generate the parts of the docs that come from the code
	@if [ -f docs/build.py ]; then $(BIN)/python docs/build.py; else echo "docs/build.py: nothing to generate yet"; fi

.PHONY: lock
lock:  ## pin the dependencies anew (needs uv)
	uv pip compile pyproject.toml --extra embedded $(LOCK_OPTIONS) -o requirements.lock
	uv pip compile pyproject.toml --extra dev -c requirements.lock $(LOCK_OPTIONS) -o requirements-dev.lock
LOCK_OPTIONS := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock"

.PHONY: clean
clean:  ## remove environments, caches and what was built
	rm -rf .venv .venv-3.* .venv-bench build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find fairque tests -name __pycache__ -type d -prune -exec rm -rf {} +
