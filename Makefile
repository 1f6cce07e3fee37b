# kkdcpd: `make demo` shows kkdcpd in use, `make test` checks everything. Each target installs what it needs.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
VENV := .venv/.complete
LOWEST_VENV := .venv-lowest/.complete
BENCH_VENV := .venv-bench/.complete
# Debian's mod_wsgi is linked with this Python. All benchmarks run on it, so that they compare the same.
BENCH_PYTHON ?= /usr/bin/python3
# Debian has a separate package for venv.
VENV_PACKAGE = $(shell $(PYTHON) -c 'import ensurepip' 2>/dev/null || echo $(notdir $(PYTHON))-venv)

.PHONY: help
help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: demo
demo: demo-packages $(VENV) ## Log on to a temporary realm through kkdcpd (KEEP=1 leaves the realm running)
	@$(BIN)/python -m lab.demo $(if $(KEEP),--keep)

.PHONY: test
test: test-packages $(VENV) $(LOWEST_VENV) preflight lint ## Run all checks and all tests
	@$(MAKE) --no-print-directory --jobs=2 pytest lowest

# The tests with real servers mostly wait, so two cores serve four processes.
PROCESSES ?= 4

.PHONY: pytest
pytest: $(VENV)
	PYTHONUNBUFFERED=1 $(BIN)/pytest --numprocesses=$(PROCESSES)

.PHONY: preflight
preflight: test-packages $(VENV) ## Check that the tests can run on this machine, and estimate how long they take
	@$(BIN)/python -m tests.preflight

.PHONY: lowest
lowest: $(LOWEST_VENV) ## Run the HTTP, DNS, metrics and configuration tests with the lowest allowed dependencies
	@echo 'testing with the lowest allowed dependencies; this takes one minute'
	@PYTHONPATH=src .venv-lowest/bin/pytest --quiet --numprocesses=2 $(LOWEST_TESTS) >$(LOWEST_OUTPUT) 2>&1 || \
		{ cat $(LOWEST_OUTPUT); exit 1; }
	@echo "with the lowest allowed dependencies: $$(tail -n 1 $(LOWEST_OUTPUT))"

LOWEST_TESTS := tests/config tests/frontends tests/locate tests/metrics
LOWEST_OUTPUT := .venv-lowest/output

.PHONY: nightly
nightly: test-packages $(VENV) preflight ## Run all tests on asyncio's event loop too, with many random examples, then fuzz
	PYTHONUNBUFFERED=1 $(BIN)/pytest --numprocesses=$(PROCESSES) --nightly
	@$(MAKE) --no-print-directory fuzz

.PHONY: lint
lint: $(VENV) ## Check style, types and layers, without tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: bench
bench: test-packages bench-packages $(VENV) $(BENCH_VENV) ## Run all benchmarks in turns, for the tables of docs/performance.md
	$(BIN)/python -m bench

.PHONY: bench-revision
bench-revision: $(VENV) $(BENCH_VENV) ## Compare the CPU time of a request with another revision (REVISION=NAME)
	$(BIN)/python -m bench.revision $(REVISION)

.PHONY: soak
soak: bench-packages $(VENV) $(BENCH_VENV) ## Send a million requests, cause faults, and check for leaks (REQUESTS=N for fewer)
	$(BIN)/python -m bench.soak --requests $(or $(REQUESTS),1000000)

.PHONY: attack
attack: test-packages $(VENV) ## Run every attack against kkdcpd and print the figures (ATTACKS=NAME for one attack)
	$(BIN)/python -m bench.attack $(ATTACKS)

.PHONY: fuzz
fuzz: $(VENV) ## Fuzz every parser (SECONDS=60 for each)
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(TARGETS)

.PHONY: docs
docs: man ## Write config.toml.example, docs/settings.md and the man pages from their sources
	$(BIN)/python -m deploy.documents .

.PHONY: man
man: $(VENV) ## Write the man pages from the settings, the help and the docs
	$(BIN)/python -m deploy.manpages docs/man

.PHONY: deb
deb: ## Build the Debian package into dist/
	deploy/debian/build

.PHONY: lock
lock: ## Pin the newest allowed dependencies, with hashes
	$(COMPILE) --output-file requirements.lock pyproject.toml
	$(COMPILE) --output-file requirements-dev.lock pyproject.toml --group dev --constraint requirements.lock
	$(COMPILE) --resolution lowest-direct --output-file requirements-lowest.lock pyproject.toml --group test
	$(COMPILE) --output-file requirements-bench.lock pyproject.toml --group bench --constraint requirements.lock
	$(COMPILE) --output-file requirements-build.lock --group build --constraint requirements-dev.lock

COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock'

.PHONY: demo-packages test-packages bench-packages
demo-packages test-packages bench-packages:
	@lab/install-packages $(@:-packages=) $(VENV_PACKAGE)

$(VENV): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'kkdcpd needs Python 3.11 or newer: run make PYTHON=python3.11' >&2; exit 1; }
	@lab/install-packages $(VENV_PACKAGE)
	@echo 'making .venv from requirements-dev.lock; this takes half a minute'
	@rm -rf .venv
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -qq --require-hashes -r requirements-dev.lock
	@$(BIN)/pip install -qq --no-deps --no-build-isolation --editable .
	@touch $(VENV)

$(LOWEST_VENV): requirements-lowest.lock
	@echo 'making .venv-lowest from requirements-lowest.lock'
	@rm -rf .venv-lowest
	@$(PYTHON) -m venv .venv-lowest
	@.venv-lowest/bin/pip install -qq --require-hashes -r requirements-lowest.lock
	@touch $(LOWEST_VENV)

$(BENCH_VENV): requirements-bench.lock
	@echo 'making .venv-bench from requirements-bench.lock'
	@rm -rf .venv-bench
	@$(BENCH_PYTHON) -m venv .venv-bench
	@.venv-bench/bin/pip install -qq --require-hashes -r requirements-bench.lock
	@touch $(BENCH_VENV)
