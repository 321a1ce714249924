# Two commands do everything on a bare Debian: `make demo` and `make check`.

VENV := .venv
PY := $(VENV)/bin/python

.PHONY: check setup lint test

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable '.[dev]'
	touch $@

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: setup
	$(VENV)/bin/pytest tests

check: lint test
