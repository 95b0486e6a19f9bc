# make install   a virtual environment in .venv, from constraints.txt
# make demo      the whole path on the embedded model, about a minute on two cores
# make test      the tests
# make torture   deaths, kills, flipped bits, full disks, races, signals, and thousands of odd inputs
# make lint      ruff, mypy (also for Windows, which lacks parts of the standard library), and the layers of the imports

PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
STAMP := $(VENV)/.installed
DEMO ?= cictl-demo

.PHONY: install demo test torture lint clean

install: $(STAMP)

# Linux's default torch carries gigabytes of CUDA: without an NVIDIA driver the CPU build of the same version is
# taken, from wherever pip is told to look, or else from PyTorch's own index.
TORCH := torch==$(shell sed -n 's/^torch==//p' constraints.txt)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
	  $(PIP) "$(TORCH)+cpu" 2>/dev/null || $(PIP) "$(TORCH)" --index-url https://download.pytorch.org/whl/cpu; fi
	$(PIP) -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/cictl demo $(DEMO)

# A file's tests stay together, since they share what was made for them; more workers would make it once more each.
test: $(STAMP)
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

torture: $(STAMP)
	$(BIN)/python -m benchmarks.torture

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 --package cictl
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist
