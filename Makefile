# The first two targets need nothing but make and Python 3.11 or newer: they install what is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test test-all lint bench docs install

train: install          ## train the embedded default: a small model learns Countdown on the CPU in about ten minutes
	$(BIN)/rayzero train $(ARGS)

test: install           ## the tests that this machine can run in a quarter of an hour
	$(BIN)/python -m pytest $(ARGS)

test-all: install       ## those too that take minutes each; GPU tests only where there is a GPU
	$(BIN)/python -m pytest -m "long or not long" $(ARGS)

lint: install           ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy rollout rewards learner orchestrator deploy benchmarks

bench: install          ## seconds by phase, tokens/s and memory of the default's step
	$(BIN)/python -m benchmarks.step $(ARGS)

docs: install           ## docs/metrics.md, from the meanings in the code
	$(BIN)/python -m orchestrator.records.meanings.table > docs/metrics.md

install:
	@$(PYTHON) deploy/install.py
