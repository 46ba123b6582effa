# `make` lists the targets. PYTHON is the interpreter that .venv is made from: make setup PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
DOCS := $(VENV)/.docs
# Exists while pip runs, so that a set-up that was interrupted starts over instead of using half a package.
INSTALLING := $(VENV)/.installing

RECENT := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
MODELS := unet,nn_relu,nn_sigmoid,convtrans_relu,convtrans_sigmoid

.PHONY: help setup demo test quick stress device check docs audit clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## create .venv with the tested versions and install the package in editable mode

demo: $(STAMP)  ## train the five models on the bundled photographs and write the report (minutes)
	$(BIN)/python -m n2n_lightning.train -m experiment=demo model=$(MODELS)
	$(BIN)/python -m n2n_lightning.report outputs/demo
	@echo "The demo is short on purpose: a net that is still improving below the noisy input needs more epochs."
	@echo "The report: outputs/demo/report/index.html"

test: $(STAMP)  ## run all tests but the stress tests; ARGS="-k wheel" goes to pytest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --maxschedchunk 4 $(ARGS)

quick: $(STAMP)  ## run the tests that are not marked slow (a minute)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --maxschedchunk 4 -m "not slow" $(ARGS)

check: $(STAMP)  ## check lint, formatting, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(DOCS)  ## run the notebooks and build the site in build/site/html, whose links must be right (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python tools/site.py

audit:  ## look for known vulnerabilities in requirements.lock (needs the network)
	@$(PYTHON) tools/audit.py

stress: $(STAMP)  ## run the stress tests: kills, damaged files, full disks, hostile files (most of an hour)
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m stress $(ARGS)

device: $(STAMP)  ## show what this machine's accelerator can do: make device ARGS='--images FOLDER' (8 minutes)
	@$(BIN)/python -m benchmarks.device $(ARGS)

clean:  ## remove caches and build products, but not .venv and outputs
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +

$(DOCS): $(STAMP) docs/constraints.txt
	@echo "make docs: installing the site's packages into $(VENV)"
	@$(BIN)/python -m pip install --no-build-isolation -c constraints.txt -c docs/constraints.txt -e '.[docs]'
	@touch $@

$(STAMP): pyproject.toml constraints.txt
	@if [ -e $(INSTALLING) ] || ! { $(BIN)/python $(RECENT) && $(BIN)/python -m pip --version; } >/dev/null 2>&1; then \
	    $(PYTHON) $(RECENT) 2>/dev/null || { \
	        echo "make setup: Python 3.11 or newer is needed, but $(PYTHON) is older or missing;" \
	            "name another one: make setup PYTHON=python3.12" >&2; exit 1; }; \
	    $(PYTHON) -m venv --clear $(VENV); \
	fi
	@echo "make setup: installing packages into $(VENV), which takes minutes the first time"; touch $(INSTALLING)
	@$(BIN)/python -m pip install -c constraints.txt hatchling setuptools \
	    && $(BIN)/python -m pip install --no-build-isolation -c constraints.txt -e '.[dev]' \
	    || { rm -f $(INSTALLING); echo "make setup: pip could not install the packages, see above" >&2; exit 1; }
	@mv $(INSTALLING) $@
