# What a contributor and CI call. `make` alone lists the targets. Needs Python 3.11 or later, and nothing else.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TOOLS := build/tools
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Further arguments for pytest, for instance: make test PYTEST_ARGS="-k engine -x"
PYTEST_ARGS ?=
# Processes that share the test files, those that take longest first; 0 runs all in one, as a debugger needs it.
# Each works with one thread: they would only stand in each other's way. One more than two cores, as one of them mostly
# waits for brokers and consumers that are being killed.
TEST_PROCESSES ?= 3
# Of a chaos run; BROKERS is 1 or 3, and a session has about 83 events.
FAULTS ?= 200
SEED ?= 1
BROKERS ?= 1
SESSIONS ?= 3290
# Of a fuzzing run, over all targets.
EXECUTIONS ?= 1000000
# Of a soak.
MINUTES ?= 60
# Where `make broker` listens.
BROKER_PORT ?= 9092

# What is compiled, where a C compiler is there; changed sources are compiled anew.
COMPILED_SOURCES := setup.py $(wildcard stream_fp/*.pxd stream_fp/*.py)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help compile demo broker test lint types check chaos fuzz coverage mutation soak bench bench-quick picture dashboard reference screenshots docs audit dist sbom clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.compiled ## Train, stream and predict on this machine; no broker to install
	@$(BIN)/stream-fp demo

# `exec`, so that Ctrl-C reaches it once and the shell does not stand between.
broker: $(VENV)/.dev-installed ## Run a real Kafka to try things on, until Ctrl-C (Java 17, Maven; BROKER_PORT)
	@exec $(BIN)/python -m tests.support.standing_kafka --port $(BROKER_PORT)

test: $(VENV)/.dev-installed $(VENV)/.compiled ## Run all tests; those that need a broker find or start one
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

compile: $(VENV)/.compiled ## Compile the hot path anew where its sources have changed (tests and benchmarks do so too)

lint: $(VENV)/.dev-installed ## Check style, format and the layers between modules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(VENV)/.dev-installed ## Check types (mypy, strict)
	@$(BIN)/mypy

check: ## Everything that CI checks: lint, types, test
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory test

chaos: $(VENV)/.dev-installed $(VENV)/.compiled ## Kill, pause, scale and fence at random, then compare with a replay (FAULTS, SEED, BROKERS)
	@$(BIN)/python -m tests.chaos --faults $(FAULTS) --seed $(SEED) --brokers $(BROKERS) --sessions $(SESSIONS)

fuzz: $(VENV)/.dev-installed ## Fuzz what reads bytes from outside, guided by coverage (EXECUTIONS, SEED; Linux, x86-64)
	@$(PIP) install -e '.[fuzz]'
	@$(BIN)/python -m tests.fuzz --executions $(EXECUTIONS) --seed $(SEED)

coverage: $(VENV)/.dev-installed ## See which lines and branches of the core the tests without a broker reach
	@$(BIN)/python -m tests.coverage

mutation: $(VENV)/.dev-installed ## Change the core in thousands of small ways, and see whether the tests notice (hours)
	@$(PIP) install -e '.[mutation]'
	@$(BIN)/python -m tests.mutation

soak: $(VENV)/.dev-installed $(VENV)/.compiled ## Run at 70 % of the maximal rate for MINUTES, and see whether anything grows
	@$(BIN)/python -m tests.soak --minutes $(MINUTES) --seed $(SEED)

bench: $(VENV)/.dev-installed $(VENV)/.compiled ## Measure everything, beside references and targets (about an hour)
	@$(BIN)/python -m benchmarks

bench-quick: $(VENV)/.dev-installed $(VENV)/.compiled ## The figures that have targets, from smaller streams, in a few minutes
	@$(BIN)/python -m benchmarks --quick

# Simulated, because real bars are seldom anybody's to publish. SOURCE_DATE_EPOCH keeps the report the same every time.
picture: $(VENV)/.compiled ## Simulate, train and evaluate; draw the README's pictures from the report
	@mkdir -p build/picture docs/images
	@$(BIN)/stream-fp-offline simulate --sessions 3000 --seed 7 --output build/picture/sessions.jsonl --force
	@$(BIN)/stream-fp-offline train --input build/picture/sessions.jsonl --until 2026-01-31 \
	  --output build/picture/models/v1.0.0 --force
	@SOURCE_DATE_EPOCH=0 $(BIN)/stream-fp-offline evaluate --input build/picture/sessions.jsonl \
	  --model-path build/picture/models/v1.0.0 --output build/picture/report --force
	@cp build/picture/report/archetypes.svg build/picture/report/reliability.svg docs/images/

dashboard: $(VENV)/.demo-installed ## Write the Grafana dashboard anew from its code
	@$(BIN)/python deploy/grafana/dashboard.py

reference: $(VENV)/.dev-installed ## Write the documentation's reference pages anew from settings, metrics and messages
	@$(BIN)/python -m docs.generate

screenshots: picture $(VENV)/.dev-installed ## Take the documentation's pictures of a backtest's page (needs Chromium)
	@$(BIN)/stream-fp replay --input build/picture/sessions.jsonl --model-path build/picture/models/v1.0.0 \
	  --output build/picture/predictions.jsonl --report build/picture/backtest --force
	@$(BIN)/python -m docs.screenshots build/picture/backtest/report.html

docs: $(VENV)/.dev-installed ## Build the documentation as a site into build/site; a warning is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo build/site/index.html

audit: $(VENV)/.dev-installed $(TOOLS)/.installed ## Look up what is installed in an advisory database
	@PATH="$(TOOLS)/bin:$$PATH" $(TOOLS)/bin/python deploy/release/audit.py $$(echo $(VENV)/lib/python*/site-packages)

dist: $(TOOLS)/.installed ## Build sdist, pure wheel and release notes into dist/
	@rm -rf dist
	@STREAM_FP_PURE=1 $(TOOLS)/bin/python -m build --quiet .
	@$(TOOLS)/bin/python deploy/release/notes.py $$(ls dist/*.whl | cut -d - -f 2) > dist/notes.md
	@ls dist

# Of an environment with the wheel and what it needs, and nothing else.
sbom: $(TOOLS)/.installed ## List what the wheel in dist/ is installed with, as CycloneDX
	@test -e dist/*.whl || $(MAKE) --no-print-directory dist
	@rm -rf build/sbom
	@$(PYTHON) -m venv build/sbom
	@build/sbom/bin/python -m pip --disable-pip-version-check --quiet install dist/*.whl
	@build/sbom/bin/python -m pip --disable-pip-version-check --quiet uninstall --yes pip
	@$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  --output-file dist/stream-fp-$$(ls dist/*.whl | cut -d - -f 2).cdx.json build/sbom/bin/python
	@ls dist/*.cdx.json

clean: ## Delete what these targets made: environment, caches, fetched jars
	@rm -rf $(VENV) build dist *.egg-info stream_fp/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "Creating $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV)

# What is installed is recorded by a stamp, so that it happens again only when pyproject.toml changes. Pure, because it is
# compiled beside its sources afterwards, and would be twice.
$(VENV)/.compiled: $(COMPILED_SOURCES) | $(VENV)/.demo-installed
	@echo "Compiling the hot path ..."
	@$(PIP) install 'cython>=3.1' 'setuptools>=77'
	@$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

$(VENV)/.demo-installed: pyproject.toml | $(BIN)/python
	@echo "Installing stream-fp and what the demo needs into $(VENV) (once) ..."
	@STREAM_FP_PURE=1 $(PIP) install --editable '.[demo]'
	@touch $@

$(TOOLS)/.installed:
	@echo "Installing the tools of a release into $(TOOLS) (once) ..."
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip --disable-pip-version-check --quiet install 'build>=1.2' 'cyclonedx-bom>=5' 'pip-audit>=2.7'
	@touch $@

# The development tools include all that the demo needs, hence both stamps.
$(VENV)/.dev-installed: pyproject.toml | $(BIN)/python
	@echo "Installing stream-fp and the development tools into $(VENV) (once) ..."
	@STREAM_FP_PURE=1 $(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/.demo-installed
