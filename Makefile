# Everything is installed into .venv, once: a stamp file there is older than pyproject.toml or
# constraints.txt only when one of those has changed, and only then does pip run again.
# Another interpreter: make demo PYTHON=/path/to/python

VENV ?= .venv
BIN := $(VENV)/bin
SAMPLE := data/sample
CANDIDATES = $(or $(PYTHON),python3.11 python3.12 python3.13 python3)
FITS := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt --editable
INSTALLING = @echo "Installing $(1) into $(VENV): a minute or a few, and 5 GB, the first time (torch)" >&2

.PHONY: help demo test test-slow test-browser lint format benchmark clean

help:
	@echo "make demo       install, transcribe $(SAMPLE) with the shipped model, print the error rate"
	@echo "make test       install what the tests need and run the fast ones"
	@echo "make test-slow  run the tests that take minutes"
	@echo "make test-browser  the page in Chromium (apt: chromium chromium-driver)"
	@echo "make lint       ruff and mypy"
	@echo "make format     let ruff rewrite the code"
	@echo "make benchmark  training overhead, transcription speed, memory, start-up times"
	@echo "make clean      remove $(VENV) and everything else that was built"

demo: $(VENV)/.installed
	@$(BIN)/speech transcribe $(sort $(wildcard $(SAMPLE)/audio/*))
	@$(BIN)/speech evaluate $(SAMPLE)/manifest.jsonl

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow

test-browser: $(VENV)/.installed-browser
	$(BIN)/python -m pytest -m browser

lint: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict speech

format: $(VENV)/.installed-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(VENV)/.installed
	$(BIN)/python scripts/benchmark.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find speech tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(call INSTALLING,the recogniser)
	@$(PIP_INSTALL) .
	@touch $@

# .installed-test and .installed-lint: the recogniser with the extra of that name
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(call INSTALLING,the recogniser with what $* needs)
	@$(PIP_INSTALL) '.[$*]'
	@touch $(VENV)/.installed $@

$(BIN)/python:
	@for python in $(CANDIDATES); do \
		if $$python -c '$(FITS)' 2>/dev/null; then exec $$python -m venv $(VENV); fi; \
	done; \
	echo "make: no Python 3.11 or newer with the venv module (tried $(CANDIDATES));" \
		"name one with PYTHON=/path/to/python" >&2; \
	exit 1
