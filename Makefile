# Each target creates the virtual environment .venv if needed, with the package versions in constraints/.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs-ready
BENCH_READY := $(VENV)/.bench-ready
PINS := constraints/airflow-3.3.txt
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint $(PINS)
# The first suitable Python; PYTHON=... selects another one.
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
	$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))

.PHONY: help demo test test-long test-matrix chaos fuzz bench browser services lint screenshots docs dist clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(READY)  ## Run the example Dag on a real Airflow against the emulator (KEEP=1 keeps Airflow's UI running)
	@$(BIN)/python -m dev.demo

test: $(READY)  ## Run the tests, including complete Dags on a real Airflow
	$(BIN)/python -m pytest --numprocesses 2

test-long: $(READY)  ## Run the long tests: fifty offers, a backfill of ten days, user actions, lasting faults
	$(BIN)/python -m pytest --numprocesses 2 -m long

test-matrix: $(READY)  ## Run the tests on every supported Airflow, or ONLY="oldest(2.11)", TESTS="tests/core" (needs Python 3.11 to 3.13, make browser services)
	@# pyenv hides every Python that PYENV_VERSION does not list.
	@PYENV_VERSION="$$(pyenv versions --bare 2>/dev/null | paste -sd :)" $(BIN)/nox --error-on-missing-interpreters \
		$(if $(ONLY),--session "$(ONLY)") $(if $(TESTS),-- $(TESTS))

RELEASES ?= 100
MINUTES ?= 25
chaos: $(READY)  ## Kill every component while RELEASES=100 releases run, for at most MINUTES=25; STORE=0 without Airflow's task state store (needs make services)
	@$(BIN)/python -m dev.chaos --releases $(RELEASES) --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) \
		$(if $(filter 0,$(STORE)),--no-task-state)

fuzz: $(READY)  ## Test external data and user input with thousands of random values
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile fuzz --timeout 1800

bench: $(BENCH_READY)  ## Measure the cost of a wait, compared with other providers (an hour on two cores; needs make services)
	@$(BIN)/python -m tests.benchmarks
	@$(BIN)/python -m tests.benchmarks.triggerer --baseline
	@$(BIN)/python -m tests.benchmarks.releases

browser:  ## Install Chromium from Debian, for the tests of Airflow's UI
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; }

services:  ## Install PostgreSQL and Redis from Debian, for tests on a production-like deployment
	@test -d /usr/lib/postgresql && command -v redis-server >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq postgresql redis-server >/dev/null; }

lint: $(READY)  ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict airflow_provider_cpp tests/typing/api.py

screenshots: $(READY)  ## Regenerate the screenshots in the documentation (needs make browser services)
	$(BIN)/python -m pytest tests/system -k "connection_form or links or approval_page" --screenshots docs/images

docs: $(DOCS_READY)  ## Build the documentation into docs/_build/html; fails on warnings
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --nitpicky --fresh-env --quiet \
		docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

dist: $(READY)  ## Build sdist and wheel into dist/, reproducibly
	rm -rf dist
	$(BIN)/python -m hatchling build

clean:  ## Remove everything that these targets created
	rm -rf $(VENV) .demo .hypothesis .mypy_cache .nox .pytest_cache .ruff_cache dist docs/_build
	find . -name __pycache__ -prune -exec rm -rf {} +

# Dependency groups need pip 25.1; the pip of a new virtual environment may be older.
$(READY): pyproject.toml $(PINS)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later was not found. To select one: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Creating $(VENV) with Airflow and this provider. This takes a minute or two, once."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(INSTALL) --group dev --editable '.[emulator]'
	@touch $@

$(DOCS_READY): $(READY)
	@echo "Installing Sphinx into $(VENV)."
	@$(INSTALL) --group docs
	@touch $@

$(BENCH_READY): $(READY)
	@echo "Installing the newest releases of the providers to compare with into $(VENV)."
	@$(INSTALL) --upgrade --group bench
	@touch $@
