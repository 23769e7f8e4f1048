# make setup   make .venv and install the pinned dependencies
# make train   set up, train configs/cartpole.yaml, evaluate it, dream, and say where everything is
# make test    set up, then the checks and the tests; those of every environment: make test EXTRAS=dev,domains
# make check   ruff, ruff format and mypy
# make bench   measurements, written to tests/benchmarks/results; of a GPU: make bench DEVICE=cuda
# make lock    pin what .venv holds in constraints.txt

SHELL := /bin/bash
BIN := .venv/bin
# Extras that are installed, such as EXTRAS=dev,domains; tests of those named here are never skipped.
export EXTRAS ?= dev
STAMP := .venv/installed-$(EXTRAS)
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3; do \
	"$$python" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo "$$python" && break; done)

# What `make train` trains, where, and with which settings: make train RUN=runs/seed3 ARGS="--seed 3"
CONFIG ?= cartpole
RUN ?= runs/cartpole
ARGS ?=
# what `make bench` measures
DEVICE ?= cpu

.PHONY: setup train test check bench lock
.DEFAULT_GOAL := test

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python from 3.11 to 3.13 with venv found; name one: make PYTHON=/path/to/python" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (about 2 GB; some minutes)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

setup: $(STAMP)

train: $(STAMP)
	$(BIN)/dreamtune train $(CONFIG) --run $(RUN) $(ARGS)
	$(BIN)/dreamtune evaluate $(RUN)
	$(BIN)/dreamtune dream $(RUN)
	@printf '\ntable  %s\ncurve  %s\ndream  %s\n' $(RUN)/evaluation.csv $(RUN)/curve.png $(RUN)/dream/dream.png

test: check
	$(BIN)/python -m pytest -n 2

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	@mkdir -p .benchmarks
	$(BIN)/python -m pytest tests/benchmarks --device $(DEVICE) --benchmark-only -p no:xdist --benchmark-sort=fullname \
		--benchmark-columns=min,median,max,rounds --benchmark-json=.benchmarks/latest.json
	@echo; echo "results  $$(ls tests/benchmarks/results/*.csv | tr '\n' ' ')"

# Without local version labels such as +cpu, so that the pins hold for every build of torch.
lock:
	$(MAKE) setup EXTRAS=dev,domains
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' > constraints.txt
