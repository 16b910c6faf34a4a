# `make demo` and `make test` each work as the first command on a fresh clone: they make `.venv` when it is missing.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.setup-done

PLUGINS := $(sort $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml)))
# Distributions among the examples: installed as a stranger's plugin is.
EXAMPLES := $(sort $(patsubst %/pyproject.toml,%,$(wildcard examples/*/pyproject.toml)))
PACKAGES := core $(PLUGINS) $(EXAMPLES)
TYPED := $(addsuffix /src,$(PACKAGES)) benchmarks scripts examples/flights $(wildcard examples/*.py)

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-pytorch test check lint types bench clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## Make .venv with every package of this repository, editable, pinned by constraints.txt.

$(STAMP): constraints.txt requirements-dev.txt $(addsuffix /pyproject.toml,$(PACKAGES))
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("shardfit needs Python 3.11 or newer; this is %s.\nName another: make setup PYTHON=python3.11" % sys.version.split()[0])'
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Could not make $(VENV). On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing into $(VENV); the first time this takes a few minutes."
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--requirement requirements-dev.txt $(addprefix --editable ,$(PACKAGES))
	@touch $(STAMP)

demo: $(STAMP) ## Train on real flights: plan, early stopping, metrics, plain XGBoost beside it. Under two minutes.
	$(RUN) -m examples.flights

demo-pytorch: $(STAMP) ## The same flights in a small PyTorch network, and XGBoost beside it.
	$(RUN) -m examples.flights.pytorch

test: $(STAMP) ## Run every test that this machine can run; those it cannot are skipped with the reason.
	$(RUN) -m pytest --numprocesses=4 --dist=loadgroup

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(STAMP)
	$(RUN) -m mypy $(TYPED)

check: lint types test ## Lint, formatting, types, tests: what .ci/run runs.

bench: $(STAMP) ## Measure shardfit beside its peers; BENCH="--rows 200000 --repeats 1" for a quick look.
	$(RUN) -m benchmarks.run --framework xgboost $(BENCH)
	$(RUN) -m benchmarks.run --framework lightgbm $(BENCH)
	$(RUN) -m benchmarks.run --framework pytorch $(BENCH)

clean: ## Remove .venv and everything that can be made again.
	rm -rf $(VENV) .demo .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis $(wildcard */src/*.egg-info plugins/*/src/*.egg-info examples/*/src/*.egg-info)
	find core plugins tests examples benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
