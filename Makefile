# make setup   .venv with the pinned requirements (finds a Python 3.7 by itself)
# make demo    a real data set, DenseNet-121 trained on it, its checkpoints evaluated
# make format  the code as the formatter writes it
# make bench   the benchmarks: docs/performance.md, docs/scaling.md and their pictures (aims at 25 minutes on 2 free cores)
# make test    everything that CI runs: lint, types, tests
SHELL := /bin/bash
VENV := .venv
LINT := .venv-lint
PIP_FLAGS := --quiet --disable-pip-version-check

.PHONY: setup demo bench test test-first test-second lint format clean

setup: $(VENV)/ready

$(VENV)/ready: requirements.txt requirements-dev.txt constraints.txt scripts/find_python.sh
	@python=$$(scripts/find_python.sh 3.7) && echo "setting up $(VENV) with $$python" && \
	  "$$python" -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) -r requirements-dev.txt
	@touch $@

$(LINT)/ready: scripts/find_python.sh requirements-lint.txt
	@python=$$(scripts/find_python.sh 3.9+) && "$$python" -m venv --clear $(LINT)
	$(LINT)/bin/python -m pip install $(PIP_FLAGS) -r requirements-lint.txt
	@touch $@

demo: setup
	PYTHON=$(VENV)/bin/python examples/demo.sh

bench: setup
	$(VENV)/bin/python -W ignore benchmarks/report.py

lint: $(LINT)/ready
	$(LINT)/bin/ruff check .
	$(LINT)/bin/ruff format --check .
	$(LINT)/bin/mypy

format: $(LINT)/ready
	$(LINT)/bin/ruff format .

# Tests run in two processes, each with about half of the work; the second takes what the first does not name, and
# its lines begin with "2: ".
FIRST := tests/unit tests/contract tests/parallel
TWO_AT_ONCE := $(MAKE) --no-print-directory --jobs=2

test:
	@$(TWO_AT_ONCE) setup lint
	@$(TWO_AT_ONCE) --keep-going test-first test-second

test-first: setup
	$(VENV)/bin/python -m pytest -q $(FIRST)

test-second: setup
	@set -o pipefail; $(VENV)/bin/python -m pytest -q $(FIRST:%=--ignore=%) 2>&1 | sed -u 's/^/2: /'

clean:
	rm -rf $(VENV) $(LINT) demo_data demo_run
