# `make` alone lists what there is to say.

PYTHON ?= python3
UV ?= uv
BIN := .venv/bin
INSTALLED := .venv/.installed
# As many processes as there are cores, within reason: some tests are bound by time.
TESTS := $(BIN)/pytest -q -n auto --maxprocesses 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-ci soak bench check format docs lock clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## install the locked dependencies and the project into .venv

$(INSTALLED): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "tfo-mcp needs Python 3.11 or newer, and '$(PYTHON)' is not. Name one: make PYTHON=python3.12 ..." >&2; \
		exit 1; }
	@echo "Installing into .venv, once: this can take a minute or two."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## see the server at work, with no key and no collector
	@$(BIN)/tfo-mcp demo

test: setup ## run the tests (at most 8 minutes)
	$(TESTS)

test-ci: check ## run the checks, then the longer tests (at most 25 minutes)
	$(TESTS) -m ci || { code=$$?; \
		[ $$code -ne 5 ] || echo "make test-ci: no test is marked 'ci', so nothing was tested" >&2; \
		exit $$code; }

soak: setup ## measure the long figures, by hand
	$(BIN)/pytest -q -m soak -o faulthandler_timeout=7200

bench: setup ## measure beside other servers, by hand (Linux; ARGS=--quick for five minutes)
	$(BIN)/python benchmarks/run.py $(ARGS)

check: setup ## lint, formatting, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: setup ## format, and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: setup ## write docs/reference/behaviours.md anew from tests/interaction
	PYTHONPATH=tests $(BIN)/python -m interaction.reference

# uv keeps the versions of the present lock that still fit; delete it first to take the newest of everything.
lock: ## write requirements.lock anew from pyproject.toml (needs uv)
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(UV) pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links \
		--group dev --output-file requirements.lock pyproject.toml

clean: ## remove .venv, caches and builds
	rm -rf .venv dist .hypothesis .pytest_cache .ruff_cache .import_linter_cache benchmarks/.peers
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
