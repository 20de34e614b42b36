# `make` lists the targets. Everything happens in .venv; nothing else on the machine is touched.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
READY  := $(VENV)/.ready
TORCH  := $(shell sed -n 's/^\(torch==.*\)/\1/p' requirements/runtime.in)
UV     := uv==0.13.9
PIN    := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
          --config-file requirements/uv.toml $(if $(UPGRADE),--upgrade)
LOCK   := $(PIN) --no-emit-package torch --no-emit-package pip pyproject.toml requirements/runtime.in
NAMES  := sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p'
CLIENTS := $(VENV)/.clients
NODE   := tests/clients/node

.DEFAULT_GOAL := help
.PHONY: help setup demo test check docs format llama-server lock clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(READY) ## Make .venv with every dependency at its pinned version

# The lock is complete, so pip resolves nothing; the stamp is last, so an interrupted set-up starts again.
$(READY): pyproject.toml requirements/runtime.txt requirements/dev.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "locum: installing the pinned dependencies"
	$(PIP) install --quiet --no-deps --require-hashes -r requirements/runtime.txt
	$(PIP) install --quiet --no-deps --require-hashes -r requirements/dev.txt
	@PIP="$(PIP)" sh requirements/torch.sh $(TORCH)
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## See the whole loop in one go: no key, no GPU, no Docker; KEEP=1 leaves it running
	$(BIN)/python benchmarks/demo.py $(if $(KEEP),--keep)

# Other people's clients and Ray, for the tests alone: `make demo` need not wait for them.
$(CLIENTS): $(READY) requirements/clients.txt requirements/apart.txt
	@echo "locum: installing the clients and the cluster that the tests run"
	$(PIP) install --quiet --no-deps --require-hashes -r requirements/clients.txt
	$(PIP) install --quiet --no-deps --require-hashes --upgrade --target $(VENV)/apart -r requirements/apart.txt
	@touch $@

# npm writes the stamp itself. Where there is no npm, the tests of Node's clients are skipped (in CI they fail).
$(NODE)/node_modules/.package-lock.json: $(NODE)/package-lock.json
	@if command -v npm >/dev/null; then npm ci --prefix $(NODE) --ignore-scripts --no-audit --no-fund --silent && touch $@; fi

test: setup $(CLIENTS) $(NODE)/node_modules/.package-lock.json ## Run the tests
	$(BIN)/python -m pytest

check: setup ## Run what CI runs: ruff, mypy, import rules, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory test

docs: setup ## Write the pages that are made from the code, and build the site into site/
	$(BIN)/python .ci/pages.py
	$(BIN)/zensical build --strict
	@cp docs/*.md site

format: setup ## Let ruff format and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

llama-server: setup ## Build llama.cpp's server for `engine: llama-server` (about 10 minutes on 2 cores)
	$(BIN)/python -m router.engine.llama_build

lock: setup ## Pin anew after a change of dependencies; UPGRADE=1 takes the newest of everything
	$(PIP) install --quiet $(UV)
	$(LOCK) --extra distill -o requirements/runtime.txt
	$(LOCK) --extra dev -c requirements/runtime.txt -o requirements/dev.txt $$($(NAMES) requirements/runtime.txt)
	$(LOCK) --extra dev --extra clients --extra ray -c requirements/runtime.txt -c requirements/dev.txt \
	  -o requirements/clients.txt $$($(NAMES) requirements/runtime.txt requirements/dev.txt)
	cat requirements/runtime.txt requirements/dev.txt requirements/clients.txt \
	  | sed -n 's/^\([a-z0-9._-]*==.*[^ \]\) *\\*$$/\1/p' | grep -v '^rich==\|^jiter==' >$(VENV)/pins.txt
	$(PIN) requirements/apart.in -c $(VENV)/pins.txt -o requirements/apart.txt \
	  $$($(NAMES) $(VENV)/pins.txt)

clean: ## Remove .venv and what the tools leave behind; .locum and its records stay
	rm -rf $(VENV) $(NODE)/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist site .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
