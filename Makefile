# What people type. Every target brings along what it needs, on a machine that has no more than
# Python, git and make; a second run finds the stamps of the first one and is quick.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# Each step uses all processors by itself, and two installations would disturb each other.
.NOTPARALLEL:

PYTHON ?= python3
JOBS ?= $(shell nproc)
# Seeds per world for `make seeds`.
N ?= 1000
# Further arguments of the demo, the benchmark or pytest.
ARGS ?=

BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
CORE := $(shell find csrc cmake CMakeLists.txt -type f -not -name '*.md' 2>/dev/null)
TESTS := $(shell find tests -name '*.[ch]pp' -o -name CMakeLists.txt)

# Address randomization beyond what the thread sanitizer can place its shadow in ends every program
# at once on some kernels, so it runs without, where that may be switched off.
STILL := $(shell setarch -R true 2>/dev/null && echo setarch -R)

# The simulator over seeds 0 to $(2) - 1 in all worlds, out of build folder $(1), in JOBS processes.
simulate = for world in protocol byte state; do for job in $$(seq $(JOBS)); do \
  echo "--seeds $$(($(2) * (job - 1) / $(JOBS))):$$(($(2) * job / $(JOBS))) --world $$world"; done; done \
  | xargs -P $(JOBS) -L 1 $(STILL) $$(find $(1) -name pyccl_sim -type f)

.PHONY: help demo test core-tests python-tests sanitize seeds lint format bench clean
.PHONY: sanitize-address sanitize-thread bench-torch bench-optim bench-links

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/.with-demo ## train over peers that come, go and crash; about half a minute
	pyccl demo $(ARGS)

test: core-tests python-tests ## every test of the default selection

core-tests: build/.built ## the C++ tests
	ctest --test-dir build --output-on-failure -j $(JOBS)

python-tests: .venv/.with-test build/.built ## the Python tests
	python -m pytest $(ARGS)

seeds: build/.built ## the simulator, N=1000 seeds in each of its worlds
	$(call simulate,build,$(N))

sanitize: sanitize-address sanitize-thread ## core tests and simulator under the sanitizers

sanitize-address: build-address/.built
	ctest --test-dir build-address --output-on-failure -j $(JOBS)
	$(call simulate,build-address,100)

sanitize-thread: build-thread/.built
	$(STILL) ctest --test-dir build-thread --output-on-failure -j $(JOBS)
	$(call simulate,build-thread,50)

lint: .venv/.with-test .venv/.with-lint ## shape, types and the rules of the tree
	ruff check .
	ruff format --check .
	mypy
	git ls-files -co --exclude-standard '*.[ch]pp' '*.[ch]' | xargs clang-format -n -Werror
	python -m pytest -q tests/tidy

format: .venv/.with-lint ## give every file its shape
	ruff check --fix .
	ruff format .
	git ls-files -co --exclude-standard '*.[ch]pp' '*.[ch]' | xargs clang-format -i

bench: .venv/.with-bench ## collectives beside Gloo, OpenMPI and the machine's limits; half an hour
	python bench/collectives.py --limits $(ARGS)

bench-torch: .venv/.with-bench ## through torch.distributed, beside Gloo; a quarter of an hour
	python bench/torch_collectives.py
	python bench/torch_ddp.py

bench-optim: .venv/.with-bench ## optimizers on a language model of known entropy; five minutes
	python bench/markov_lm.py $(ARGS)

bench-links: .venv/.with-bench build/.built ## outer optimizers over shaped links (root); a quarter of an hour
	python bench/outer_steps.py links --turns 3
	python bench/outer_steps.py overhead --turns 3
	python bench/outer_steps.py pairs

clean: ## remove all that was built
	rm -rf build build-* .venv

# Stamps. The system's packages first, then the virtual environment, then what goes into it.

.venv/.created:
	PYTHON=$(PYTHON) .ci/install_tools
	$(PYTHON) -m venv .venv || $(PYTHON) -m virtualenv .venv
	sed -n 's/^requires = \[\(.*\)\]/\1/p' pyproject.toml | tr -d '",' \
	  | xargs $(BIN)/python -m pip install -q
	touch $@

# Editable and without isolation: the next build recompiles only what has changed.
INSTALL := CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(BIN)/python -m pip install -q --no-build-isolation

# The package, with one of the extras of pyproject.toml.
.venv/.with-%: .venv/.created pyproject.toml $(CORE)
	$(INSTALL) -e '.[$*]'
	touch $@

build/.built: SANITIZER :=
build-address/.built: SANITIZER := address,undefined
build-thread/.built: SANITIZER := thread

build/.built build-address/.built build-thread/.built: .venv/.created $(CORE) $(TESTS)
	cmake -S . -B $(@D) -G Ninja -DPYCCL_TESTS=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DPYCCL_SANITIZE=$(SANITIZER)
	cmake --build $(@D) -j $(JOBS)
	touch $@
