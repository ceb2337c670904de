# Two commands set everything up on a fresh machine: `make demo` runs the main job, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export ORT_DISABLE_TELEMETRY := 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

.PHONY: demo test slow check format clean

demo: $(VENV)/.installed
	$(BIN)/fl-sim demo

test: $(VENV)/.installed-dev check
	$(BIN)/pytest -m "not slow" -o faulthandler_timeout=300

slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m slow

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it with: make PYTHON=python3.12"; exit 1; }
	@before=$$(test -e $(VENV) && echo yes); $(PYTHON) -m venv $(VENV) || { test "$$before" || rm -rf $(VENV); echo "No virtual environment could be made in $(VENV). On Debian and Ubuntu it takes a package: apt install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV): some minutes and 6 GB, nearly all of it torch."
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV), with the tools of the tests: some minutes and 6 GB, nearly all of it torch."
	$(BIN)/python -m pip install --editable '.[dev]'
	@touch $@ $(VENV)/.installed
