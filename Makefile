# Two commands matter: `make up` starts Roost, `make test` checks it. Both set up what they need, once.

PYTHON ?= python3
VENV   ?= .venv
CONFIG ?= config.yaml
DATA   ?= data
MODELS ?= models/text-generation
TESTS  ?= tests
PYTEST_ARGS ?=

UV_VERSION := 0.13.9
# How llama.cpp is built; without its image part, which Roost does not use.
LLAMA_CMAKE_ARGS ?= -DLLAVA_BUILD=OFF

BIN := $(VENV)/bin
UV  := $(BIN)/uv
BASE := $(VENV)/.base-done
CORE := $(VENV)/.core-done
LLAMA := $(VENV)/.llama-done

.PHONY: help up core test lint bench model lock clean
.DEFAULT_GOAL := help

help:
	@echo "make up      set up what is missing and start Roost in the foreground"
	@echo "make test    set up, then lint, types and all tests"
	@echo "make core    set up without llama.cpp (no compiler needed)"
	@echo "make bench   measure"
	@echo "make model   fetch the starter model"
	@echo "make lock    pin the dependencies anew"
	@echo "make clean   remove what was set up; data and models stay"

up: $(LLAMA) model
	@$(BIN)/roost --config $(CONFIG) --data $(DATA) up

test: $(LLAMA) model lint
	$(BIN)/python -m pytest $(PYTEST_ARGS) $(TESTS)

lint: $(CORE)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(LLAMA) model
	$(BIN)/python -m benchmarks

core: $(CORE)

model: $(CORE)
	@$(BIN)/python -m ops.starter $(MODELS)

$(BASE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Roost needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }
	@echo "[1/4] virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# Everything but llama.cpp: its block is taken out of the lock, so that this step compiles nothing.
$(CORE): $(BASE) requirements.lock pyproject.toml
	@echo "[2/4] dependencies, as pinned in requirements.lock"
	@awk '/^[^ #]/ { skip = /^llama-cpp-python==/ } !skip' requirements.lock > $(VENV)/core.lock
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r $(VENV)/core.lock
	@echo "[3/4] Roost itself"
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

$(LLAMA): $(CORE)
	@echo "[4/4] llama.cpp"
	@$(BIN)/python -m ops.compile --cmake-args="$(LLAMA_CMAKE_ARGS)"
	@touch $@

lock: $(BASE)
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade \
	  --custom-compile-command "make lock" --extra llama --extra dev -o requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
