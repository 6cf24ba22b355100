# `make demo` and `make test` do their own set-up: a virtual environment in .venv.
PYTHON ?= python3
BIN := .venv/bin
# With 2 or more, test files are shared out among so many processes, each with a Ray of its own.
WORKERS ?= 2

.PHONY: demo test test-slow lint install clean

demo: .venv/.demo
	$(BIN)/llmembed demo

test: .venv/.dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-slow: .venv/.dev
	$(BIN)/python -m pytest -m slow

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: .venv/.demo

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet "torch==2.13.0"
	$(BIN)/pip install --quiet -e ".[demo]" -c constraints.txt
	touch $@

.venv/.dev: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet "torch==2.13.0"
	$(BIN)/pip install --quiet -e ".[demo,dev]" -c constraints.txt
	touch $@ .venv/.demo

clean:
	rm -rf .venv build *.egg-info
