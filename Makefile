# Each target makes what it needs: a virtual environment in .venv, with the versions of constraints/.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS_READY := $(VENV)/.docs-ready
BENCH_READY := $(VENV)/.bench-ready
PINS := constraints/airflow-3.3.txt
# The first Python that is new enough; PYTHON=... names another one.
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,\
	$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))

.PHONY: help demo test test-long test-matrix chaos fuzz bench browser services lint screenshots docs dist clean

help:  ## Say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(READY)  ## Run the example Dag on a real Airflow against the emulator (KEEP=1 leaves Airflow's UI up)
	@$(BIN)/python -m dev.demo

test: $(READY)  ## Run the tests, those of whole Dags on a real Airflow too
	$(BIN)/python -m pytest --numprocesses 2

test-long: $(READY)  ## Run the tests that take longer: fifty offers, a backfill over ten days, users who act, lasting faults
	$(BIN)/python -m pytest --numprocesses 2 -m long

test-matrix: $(READY)  ## Run the tests on each Airflow with the oldest and the newest beside it, or ONLY="oldest(2.11)"; all tests, or TESTS="tests/core" (needs: Python 3.11 to 3.13, make browser services)
	@# pyenv hides all its Pythons but those that are named.
	@PYENV_VERSION="$$(pyenv versions --bare 2>/dev/null | paste -sd :)" $(BIN)/nox --error-on-missing-interpreters \
		$(if $(ONLY),--session "$(ONLY)") $(if $(TESTS),-- $(TESTS))

RELEASES ?= 100
MINUTES ?= 25
chaos: $(READY)  ## Kill everything while RELEASES=100 releases run, for at most MINUTES=25; STORE=0 without Airflow's task state store (needs: make services)
	@$(BIN)/python -m dev.chaos --releases $(RELEASES) --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) \
		$(if $(filter 0,$(STORE)),--no-task-state)

fuzz: $(READY)  ## Give whatever comes from outside, and what users type, thousands of odd values
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile fuzz --timeout 1800

bench: $(BENCH_READY)  ## Print what waiting costs, beside other providers (an hour on two cores; needs: make services)
	@$(BIN)/python -m tests.benchmarks
	@$(BIN)/python -m tests.benchmarks.triggerer --baseline
	@$(BIN)/python -m tests.benchmarks.releases

browser:  ## Install Chromium from Debian, for the tests of what people see in the UI
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; }

services:  ## Install PostgreSQL and Redis from Debian, for tests on what production runs on
	@test -d /usr/lib/postgresql && command -v redis-server >/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq postgresql redis-server >/dev/null; }

lint: $(READY)  ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict airflow_provider_cpp tests/typing/api.py

screenshots: $(READY)  ## Make the documentation's pictures of Airflow's UI again (needs: make browser services)
	$(BIN)/python -m pytest tests/system -k "connection_form or links or approval_page" --screenshots docs/images

docs: $(DOCS_READY)  ## Build the documentation into docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --nitpicky --fresh-env --quiet \
		docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

dist: $(READY)  ## Build sdist and wheel into dist/, the same bytes wherever they are built
	rm -rf dist
	$(BIN)/python -m hatchling build

clean:  ## Remove everything that these targets made
	rm -rf $(VENV) .demo .hypothesis .mypy_cache .nox .pytest_cache .ruff_cache dist docs/_build
	find . -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml $(PINS)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed, and none was found. Name one: make PYTHON=/path/to/python3"; exit 1; }
	@echo "Making $(VENV) with Airflow and this provider; this takes a minute or two, once."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(PINS) --editable '.[dev]'
	@touch $@

$(DOCS_READY): $(READY)
	@echo "Adding Sphinx to $(VENV)."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(PINS) --editable '.[docs]'
	@touch $@

$(BENCH_READY): $(READY)
	@echo "Adding the newest of the providers that are measured to $(VENV)."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(PINS) --upgrade --editable '.[bench]'
	@touch $@
