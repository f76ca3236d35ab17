# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check -q
# One thread each: two spinning thread pools on a small machine are slower than one thread.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE ?= 1

.PHONY: guard loop demo test slow check lint types layers guarantees bench docs clean setup

demo: $(VENV)/.demo
	$(BIN)/jettison demo --output demo-run --budget $(or $(BUDGET),12m)

# The guardrail against prompt injections: trained, proved and released by the loop itself.
guard: $(VENV)/.demo
	$(BIN)/jettison guard --output guard $(ARGS)

# The loop live, in real processes: drift alarm, rollback, mined failures, the next release. Two to three minutes.
loop: $(VENV)/.dev
	rm -rf loop-run
	PYTHON=$(abspath $(BIN))/python examples/loop.sh loop-run

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not guarantee and not slow" $(ARGS)

# Whole runs, load tests and kills in real processes; CI runs them too.
slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow and not guarantee" $(ARGS)

check: lint types layers

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

guarantees: $(VENV)/.dev
	$(BIN)/python -m pytest -m guarantee -s tests $(ARGS)

# make bench NAME=lean_ratio
bench: $(VENV)/.dev
	$(BIN)/python benchmarks/$(or $(NAME),lean_ratio).py $(ARGS)

# Every code block of the README and the docs runs.
docs: $(VENV)/.dev
	$(BIN)/python -m pytest tests/docs $(ARGS)

setup: $(VENV)/.dev

$(VENV)/.core:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt pip setuptools wheel
	touch $@

# PyPI's torch brings CUDA on Linux. `PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make test` takes
# the CPU wheel, which pip prefers to it, being +cpu of the same version.
$(VENV)/.demo: $(VENV)/.core pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/.dev: $(VENV)/.core pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt torch
	$(PIP) install -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-run loop-run build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
