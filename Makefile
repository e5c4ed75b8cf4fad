# The first two targets need nothing but make and Python 3.11 or newer: they install what is missing.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test test-all lint bench certify docs site install

train: install          ## train the embedded default: a pretrained model learns to reckon out loud, in about ten minutes on two CPU cores; ARGS="countdown-tiny" names another recipe
	$(BIN)/rayzero train $(ARGS)

test: install           ## all but long runs and more cases of what is proven; ARGS="tests/rewards -k gsm8k" picks
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest -m "not slow and not long" -n 3 --dist loadfile
	$(BIN)/python -m pytest -m "slow and not long and not alone"
	$(BIN)/python -m pytest -m "alone and not long" tests/rollout/engine
	$(BIN)/python -m pytest tests/gpu
endif

test-all: install       ## those too; GPU tests only where there is a GPU
	$(BIN)/python -m pytest -m "not slow" -n 3 --dist loadfile
	$(BIN)/python -m pytest -m "slow and not alone"
	$(BIN)/python -m pytest -m alone tests/rollout/engine
	$(BIN)/python -m pytest tests/gpu

lint: install           ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy rollout rewards learner orchestrator deploy benchmarks

bench: install          ## seconds by phase, tokens/s and memory of a step; ARGS="--recipe countdown-tiny" names another recipe
	$(BIN)/python -m benchmarks.speed.step $(ARGS)

certify:                ## on a machine with a card, after make install: what only a card can tell, in ten minutes
	@test -x $(BIN)/python || { echo "nothing is installed yet: make install comes first" >&2; exit 2; }
	$(BIN)/python -m benchmarks.cards.certify $(ARGS)

docs: install           ## docs/metrics.md, from the meanings in the code, and the GPU set, from pyproject.toml
	$(BIN)/python -m orchestrator.records.meanings.table > docs/metrics.md
	$(BIN)/python deploy/gpu_requirements.py > deploy/requirements-gpu.txt

site: install           ## the documentation as a site in site/, every link checked
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep -o 'mkdocs-material==[0-9.]*' pyproject.toml)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file deploy/site/mkdocs.yml

install:
	@$(PYTHON) deploy/install.py
