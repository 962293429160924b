# Needs make and Python >= 3.11 with its venv module; everything else goes into .venv (npm's packages, for tests, beside other caches).
# Nothing needs root.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint bench faults clean

# The newest Python >= 3.11 that can make a virtual environment; `make test PYTHON=/path/to/python` picks another.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
# Of the tests with clients of Node.js: other people's packages, outside the tree (tests/abroad.py looks for them there).
NODE_CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/agentgate-tests
NODE_PACKAGES := openid-client@^6.8 oauth4webapi@^3.8 oidc-provider@^9.6 axe-core@^4.10
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt

help: ## what there is
	@echo "make demo    a payment agent, guarded: what is minted, refused and held (no services needed)"
	@echo "make test    what every commit gets: each test, with fewer examples, on fewer servers (starts its own)"
	@echo "make test-all  all of it, as continuous integration does"
	@echo "make lint    ruff and mypy --strict"
	@echo "make bench   speed, as ratios measured side by side (ARGS=scale: gates and shards; ARGS=yeses: what a yes lets pass; ARGS=remembered)"
	@echo "make faults  crashes, failovers, full disks: what hosts are answered, and that nothing happens twice (some minutes)"
	@echo "make clean   remove $(VENV) and caches"
	@echo "JOBS=2       tests in two processes (else several for each core); empty: in one"
	@echo "PYTHON=...   another Python >= 3.11 (now: $(or $(PYTHON),none found))"

demo: $(VENV)/.has-demo ## the guarded payment agent
	@$(BIN)/agentgate demo

# Much of what tests do is wait for servers, so there are several processes for each core (tests/jobs.py): four where there are few cores and floods
# are small, else two. Deadlines are real in tests that are marked so, and only there: these come last, when little else runs. Python may keep
# what it compiled, which saves every process that is started.
CORES := $(shell getconf _NPROCESSORS_ONLN)
test: JOBS ?= $(shell expr $(CORES) '*' $$([ $(CORES) -gt 4 ] && echo 2 || echo 4))
test-all: JOBS ?= $(shell expr $(CORES) '*' 2)
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
TESTS = @$(PYTEST) $(if $(JOBS),--jobs=$(JOBS))

test: $(VENV)/.has-test $(VENV)/.has-node ## what every commit gets; ARGS: all of these tests
	$(if $(ARGS),@$(PYTEST) $(ARGS),$(TESTS) --quick)

test-all: $(VENV)/.has-test $(VENV)/.has-node ## all tests
	$(TESTS)

lint: $(VENV)/.has-test ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(VENV)/.has-bench ## speed
	@$(BIN)/python -m tests.benchmarks $(ARGS)

faults: $(VENV)/.has-test ## what faults make of calls
	@$(BIN)/python -m tests.faults $(ARGS)

clean: ## remove what make made
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .bench .demo dist build

$(BIN)/python:
	@test -n "$(PYTHON)" || { \
		echo "make: no Python >= 3.11 with the venv module found. Install one:" >&2; \
		echo "  Debian, Ubuntu: apt-get install python3 python3-venv    Fedora: dnf install python3    macOS: brew install python" >&2; \
		echo "  or name yours: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is not Python >= 3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "make: $(PYTHON) has no venv module (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.has-demo: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing agentgate into $(VENV) (once)"
	@$(PIP) --editable '.[langchain]'
	@touch $@

$(VENV)/.has-test: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing agentgate and its test tools into $(VENV) (once)"
	@$(PIP) --editable '.[test]'
	@touch $@ $(VENV)/.has-demo

$(VENV)/.has-node: $(BIN)/python Makefile
	@if ! command -v npm >/dev/null || ! node -e 'process.exit(+(parseInt(process.versions.node) < 20))'; then \
		echo "make: no npm, or no Node.js >= 20: tests that need them are skipped (Debian, Ubuntu: apt-get install nodejs npm)" >&2; \
	elif mkdir -p "$(NODE_CACHE)" && npm install --prefix "$(NODE_CACHE)" --no-save --no-package-lock --ignore-scripts --no-audit --no-fund \
		--loglevel=error $(NODE_PACKAGES); then touch $@; \
	else echo "make: npm could not install $(NODE_PACKAGES) into $(NODE_CACHE): tests that need them are skipped" >&2; fi

$(VENV)/.has-bench: $(VENV)/.has-test
	@$(PIP) --editable '.[test,bench]'
	@touch $@
