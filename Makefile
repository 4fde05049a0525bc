# Two commands matter: `make demo` and `make test`. Both install what they need first, into .venv.

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := torch==2.13.0+cpu
TORCH_INDEX := https://download.pytorch.org/whl/cpu

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help install demo test test-unit check format bench-router bench-weights bench-autoscaling bench-scaling bench-coldstart bench-simulator bench-batching demo-model lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Install everything into .venv (a few minutes; instant when nothing changed)

demo: install ## Run the whole fleet on this machine until Ctrl-C (ARGS=--once: check itself, tear down)
	$(BIN)/rayfleet demo $(ARGS)

test: install ## Run all tests, also end to end on a real local fleet (ARGS go to pytest)
	$(BIN)/python -m pytest $(ARGS)

test-unit: install ## Run the tests that start no fleet (ARGS go to pytest)
	$(BIN)/python -m pytest -m "not e2e" $(ARGS)

check: install ## Check format, lint, types and the direction of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

format: install ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench-router: install ## Measure the ingress beside its peers, pinned to a core each (ARGS=--strict: fail on a missed goal)
	$(BIN)/python -m bench.router $(ARGS)

bench-weights: install ## Measure how releases move, beside other clients (ARGS="--gib 8 --strict": more, fail on a missed goal)
	$(BIN)/python -m bench.weights $(ARGS)

bench-autoscaling: install ## Simulate scaling policies at equal service (ARGS="--trace PATH --spot PATH…", or --synthetic)
	$(BIN)/python -m bench.autoscaling $(ARGS)

bench-scaling: install ## Time a real placement of 0 to 3 replicas: up, down, asleep and awake (ARGS=--strict: fail on a missed goal)
	$(BIN)/python -m bench.scaling $(ARGS)

bench-coldstart: install ## Wake a sleeping placement, beside plain vLLM (ARGS="--model DIR --runs 5", --strict: fail on a missed goal)
	$(BIN)/python -m bench.coldstart $(ARGS)

bench-simulator: install ## Replay requests at a real engine and in the simulator (ARGS="--trace PATH", --strict: fail on a missed goal)
	$(BIN)/python -m bench.simulator $(ARGS)

bench-batching: install ## Measure a program of tensors at batch 1 and in batches, on a real Serve deployment (ARGS=--strict)
	$(BIN)/python -m bench.batching $(ARGS)

demo-model: install ## Train the two demo models anew, into weights/demo
	$(BIN)/python -m weights.demo_model $(ARGS)

lock: ## Resolve requirements/cpu.lock anew (ARGS=--upgrade moves every pin)
	PYTHON="$(PYTHON)" requirements/lock $(ARGS)

clean: ## Remove the environment, caches and local state
	rm -rf $(VENV) .rayfleet clusters/local .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment is rebuilt when the lock changes, so that it never holds what the lock does not name. torch comes first,
# from wherever pip is configured to look, else from PyTorch's own index: only that build needs no CUDA.
$(VENV)/.locked: requirements/cpu.lock
	@"$(PYTHON)" -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 15) or sys.exit( \
	  "rayfleet needs Python 3.11 to 3.14, and $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.11 ..." % v)'
	"$(PYTHON)" -m venv --clear $(VENV)
	$(PIP) install --quiet --no-deps $(TORCH) || { \
	  echo "$(TORCH) is not on the configured indexes; trying PyTorch's own"; \
	  $(PIP) install --quiet --no-deps --index-url $(TORCH_INDEX) $(TORCH); }
	$(PIP) install --quiet --no-deps --require-hashes -r requirements/cpu.lock
	touch $@

# The build backend is in the lock: nothing else is fetched.
$(VENV)/.installed: pyproject.toml $(VENV)/.locked
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@
