# Every target does its own set-up in .venv from a bare clone; Python 3.10 or newer, git and make are all it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-system test-vivid check clean

demo: $(VENV)/installed
	$(BIN)/edgeunip demo

test: $(VENV)/installed
	$(BIN)/python -m pytest

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

# Our V4L2 reader on the kernel's own test driver, in a virtual machine; skipped with a reason where there is none.
test-vivid: $(VENV)/installed
	$(BIN)/python tests/vivid/run.py

# Talks to real servers on loopback: a broker, an RTSP server, a browser, an X server.
test-system: $(VENV)/installed
	tests/system/install.sh
	$(BIN)/python -m pytest -m "system and not slow"

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
