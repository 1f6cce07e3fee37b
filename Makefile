# kkdcpd: `make demo` shows it at work, `make test` checks everything. Each sets up all it needs.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
VENV := .venv/.complete
# Debian has what makes a venv in a package of its own.
VENV_PACKAGE = $(shell $(PYTHON) -c 'import ensurepip' 2>/dev/null || echo $(notdir $(PYTHON))-venv)

.PHONY: help
help: ## Say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: demo
demo: demo-packages $(VENV) ## Log in to a throwaway realm through kkdcpd (KEEP=1 leaves it running)
	@$(BIN)/python -m lab.demo $(if $(KEEP),--keep)

.PHONY: test
test: test-packages lint ## Run every check and test
	$(BIN)/pytest

.PHONY: lint
lint: $(VENV) ## Run the checks alone: style, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: bench
bench: test-packages $(VENV) ## Measure, in interleaved runs
	$(BIN)/python -m bench

.PHONY: fuzz
fuzz: $(VENV) ## Search every parser for input that breaks it (SECONDS=60 for each)
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(TARGETS)

.PHONY: lock
lock: ## Pin the dependencies anew, with hashes
	$(COMPILE) --output-file requirements.lock pyproject.toml
	$(COMPILE) --output-file requirements-dev.lock pyproject.toml --group dev --constraint requirements.lock

COMPILE := $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

.PHONY: demo-packages test-packages
demo-packages test-packages:
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
