# Needs only Python (3.10 or newer, with venv) and make. Everything is installed into $(VENV).
#   make demo VENV=/elsewhere PYTHON=python3.12 DEMO_FLAGS=--quick
PYTHON ?= python3
VENV ?= .venv
DEMO_OUT ?= vestige-demo
DEMO_FLAGS ?=
TEST_FLAGS ?=
# Files of tests are shared out among the cores; a file's tests stay together, with what they prepare.
PARALLEL = -n logical --maxprocesses 8 --dist loadfile
BENCH_FLAGS ?=

BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
INPUTS = $(VENV)/.created pyproject.toml constraints.txt
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow lint types format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.core ## audit the model that ships with vestige, erase from it, verify; report in DEMO_OUT
	$(BIN)/vestige demo --out "$(DEMO_OUT)" $(DEMO_FLAGS)

test: $(VENV)/.test ## run the test suite (TEST_FLAGS="-k roc")
	$(BIN)/python -m pytest $(PARALLEL) $(TEST_FLAGS)

test-slow: $(VENV)/.test ## run every test, those marked slow as well
	$(BIN)/python -m pytest $(PARALLEL) -m "slow or not slow" $(TEST_FLAGS)

lint: $(VENV)/.dev ## check style, format and the layers of the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev ## check types
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev ## format the code and sort imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-%: $(VENV)/.test ## run benchmarks/%.py (BENCH_FLAGS="...")
	@test -f benchmarks/$*.py || { echo "There is no benchmarks/$*.py. There are: $$(cd benchmarks 2>/dev/null && ls *.py)" >&2; exit 2; }
	$(BIN)/python benchmarks/$*.py $(BENCH_FLAGS)

clean: ## remove .venv, caches, builds and the demo's output
	rm -rf .venv build dist vestige-demo .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# A stamp is renewed only when its inputs change, so a second run installs nothing.
$(VENV)/.created:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "'$(PYTHON)' was not found. Install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "vestige needs Python 3.10 or newer; $(PYTHON) is $$("$(PYTHON)" --version 2>&1). Name a newer one: make PYTHON=python3.12" >&2; exit 2; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments. Install its venv module (Debian, Ubuntu: apt-get install python3-venv)." >&2; exit 2; }
	"$(PYTHON)" -m venv "$(VENV)"
	@touch $@

$(VENV)/.core: $(INPUTS)
	$(INSTALL) -e .
	@touch $@

$(VENV)/.test: $(INPUTS)
	$(INSTALL) -e '.[test]'
	@touch $@ $(VENV)/.core

$(VENV)/.dev: $(INPUTS)
	$(INSTALL) -e '.[test,dev]'
	@touch $@ $(VENV)/.test $(VENV)/.core
