# kkdcpd: `make demo` shows it at work, `make test` checks everything. Each sets up all it needs.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
VENV := .venv/.complete
LOWEST_VENV := .venv-lowest/.complete
BENCH_VENV := .venv-bench/.complete
# What Debian's mod_wsgi is linked with; all that is measured runs on it.
BENCH_PYTHON ?= /usr/bin/python3
# Debian has what makes a venv in a package of its own.
VENV_PACKAGE = $(shell $(PYTHON) -c 'import ensurepip' 2>/dev/null || echo $(notdir $(PYTHON))-venv)

.PHONY: help
help: ## Say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: demo
demo: demo-packages $(VENV) ## Log in to a throwaway realm through kkdcpd (KEEP=1 leaves it running)
	@$(BIN)/python -m lab.demo $(if $(KEEP),--keep)

.PHONY: test
test: test-packages $(VENV) preflight lint ## Run every check and test
	PYTHONUNBUFFERED=1 $(BIN)/pytest --numprocesses=2
	@$(MAKE) --no-print-directory lowest

.PHONY: preflight
preflight: test-packages $(VENV) ## Check that the tests can run here, and say how long they take
	@$(BIN)/python -m tests.preflight

.PHONY: lowest
lowest: $(LOWEST_VENV) ## Run the HTTP, DNS, metrics and configuration tests with the lowest allowed dependencies
	PYTHONUNBUFFERED=1 PYTHONPATH=src .venv-lowest/bin/pytest --quiet --numprocesses=4 $(LOWEST_TESTS)

LOWEST_TESTS := tests/config tests/frontends tests/locate tests/metrics

.PHONY: nightly
nightly: test-packages $(VENV) preflight ## Run the tests on asyncio's own event loop too, and the longer searches
	PYTHONUNBUFFERED=1 $(BIN)/pytest --numprocesses=2 --nightly
	@$(MAKE) --no-print-directory fuzz

.PHONY: lint
lint: $(VENV) ## Run the checks alone: style, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: bench
bench: test-packages bench-packages $(VENV) $(BENCH_VENV) ## Measure, in interleaved runs; docs/performance.md gets the tables
	$(BIN)/python -m bench

.PHONY: bench-revision
bench-revision: $(VENV) $(BENCH_VENV) ## Compare the CPU time of a request with that of another revision (REVISION=NAME)
	$(BIN)/python -m bench.revision $(REVISION)

.PHONY: soak
soak: bench-packages $(VENV) $(BENCH_VENV) ## A million requests, with faults, and nothing may leak (REQUESTS=N for fewer)
	$(BIN)/python -m bench.soak --requests $(or $(REQUESTS),1000000)

.PHONY: attack
attack: test-packages $(VENV) ## Attack a running kkdcpd in every known way, and print the figures (ATTACKS=NAME for one)
	$(BIN)/python -m bench.attack $(ATTACKS)

.PHONY: fuzz
fuzz: $(VENV) ## Search every parser for input that breaks it (SECONDS=60 for each)
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(TARGETS)

.PHONY: man
man: $(VENV) ## Write the man pages anew, from the example, the help and the docs
	$(BIN)/python -m deploy.manpages docs/man

.PHONY: deb
deb: ## Build the Debian package into dist/
	deploy/debian/build

.PHONY: lock
lock: ## Pin the dependencies anew, with hashes
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
		{ echo 'kkdcpd needs Python 3.11 or newer: say make PYTHON=python3.11' >&2; exit 1; }
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
