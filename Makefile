# Two commands matter: `make up` starts Roost, `make test` checks it. Both set up what they need, once.

PYTHON ?= python3
VENV   ?= .venv
CONFIG ?= config.yaml
DATA   ?= data
MODELS ?= models/text-generation
IMAGES ?= models/stable-diffusion
TESTS  ?= tests
PYTEST_ARGS ?=

UV_VERSION := 0.13.9
# How llama.cpp is built; without its image part, which Roost does not use.
LLAMA_CMAKE_ARGS ?= -DLLAVA_BUILD=OFF

# The CPU build where pip finds one. On Linux the one of PyPI brings CUDA along, several gigabytes: right for an NVIDIA card.
TORCH ?= torch==2.13.0
TORCH_ARGS ?=

BIN := $(VENV)/bin
UV  := $(BIN)/uv
BASE := $(VENV)/.base-done
CORE := $(VENV)/.core-done
LLAMA := $(VENV)/.llama-done
DIFFUSION := $(VENV)/.diffusion-done
ENGINES ?= $(LLAMA) $(DIFFUSION)

.PHONY: help up core test lint bench model lock clean
.DEFAULT_GOAL := help

help:
	@echo "make up      set up what is missing and start Roost in the foreground"
	@echo "make test    set up, then lint, types and all tests"
	@echo "make core    set up without llama.cpp and torch (no compiler needed)"
	@echo "make bench   measure"
	@echo "make model   fetch the starter models"
	@echo "make lock    pin the dependencies anew"
	@echo "make clean   remove what was set up; data and models stay"

up: $(ENGINES) model
	@$(BIN)/roost --config $(CONFIG) --data $(DATA) up

test: $(ENGINES) model lint
	$(BIN)/python -m pytest $(PYTEST_ARGS) $(TESTS)

lint: $(CORE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

bench: $(ENGINES) model
	$(BIN)/python -m benchmarks

core: $(CORE)

model: $(CORE)
	@$(BIN)/python -m ops.starter $(MODELS)
	@$(BIN)/python -m ops.doodler $(IMAGES)

$(BASE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Roost needs Python 3.11 or newer; name one with: make PYTHON=python3.12" >&2; exit 1; }
	@echo "[1/5] virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# Everything but llama.cpp: its block is taken out of the lock, so that this step compiles nothing.
$(CORE): $(BASE) requirements.lock pyproject.toml
	@echo "[2/5] dependencies, as pinned in requirements.lock"
	@awk '/^[^ #]/ { skip = /^llama-cpp-python==/ } !skip' requirements.lock > $(VENV)/core.lock
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r $(VENV)/core.lock
	@echo "[3/5] Roost itself"
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

$(LLAMA): $(CORE)
	@echo "[4/5] llama.cpp"
	@$(BIN)/python -m ops.compile --cmake-args="$(LLAMA_CMAKE_ARGS)"
	@touch $@

# Without dependencies: the lock has them all but torch, which is not of the same file everywhere.
$(DIFFUSION): $(CORE) requirements-diffusion.lock
	@echo "[5/5] torch and diffusers"
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements-diffusion.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_ARGS) $(TORCH)
	@touch $@

lock: $(BASE)
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade \
	  --custom-compile-command "make lock" --extra llama --extra dev -o requirements.lock pyproject.toml
	@echo torch > $(VENV)/torch.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade \
	  --custom-compile-command "make lock" --extra diffusion --excludes $(VENV)/torch.txt -c requirements.lock \
	  -o requirements-diffusion.lock pyproject.toml

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
