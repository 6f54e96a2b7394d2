# Everything a newcomer types. Each target that needs the environment makes it; `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Only these make a new install necessary: Python sources are used where they are (an editable install).
SOURCES := pyproject.toml $(shell find sparsify/kernels -name '*.cc' -o -name '*.h' -o -name '*.inc' -o -name CMakeLists.txt)
READY := $(VENV)/.ready

# What depends on versions of onnx, onnxruntime, NumPy and SciPy most, and one of everything else.
CORNER := $(addprefix tests/,test_ops.py test_formats.py test_graph.py test_modelio.py test_leftovers.py \
  test_storage.py test_sensitivity.py runtime kernels passes coverage pipeline/test_run.py audit/test_changes.py \
  cli/test_optimize.py cli/test_audit.py cli/test_bench.py cli/test_inspect.py)
OLDEST = $(BIN)/nox -s oldest-$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

.DEFAULT_GOAL := help
.PHONY: help demo test test-kernels test-all test-oldest test-oldest-all lint format bench fuzz fuzz-python fuzz-native wheel clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## make a real transformer faster, measure its drift, and run the file in a stock onnxruntime
	@$(BIN)/python -m models.demo

test: $(READY) ## the tests (minutes)
	@$(BIN)/python -m pytest

test-kernels: $(READY) ## every kernel of this architecture, AVX-512 emulated where need be, under sanitizers
	@$(BIN)/python -m pytest -m '' tests/kernels/test_driver.py

test-all: $(READY) ## the tests, the slow ones too
	@$(BIN)/python -m pytest -m ''

test-oldest: $(READY) ## tests of what depends on versions most, every dependency at its lower bound
	@$(OLDEST) -- $(CORNER)

test-oldest-all: $(READY) ## all tests, every dependency at its lower bound; `nox` alone tries all versions
	@$(OLDEST)

lint: $(READY) ## ruff, mypy, and the floors that imports must keep to
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## MiniLM against onnxruntime's fp32 and dynamic int8; exits 1 when a target is missed
	@$(BIN)/python -m benchmarks.minilm

fuzz: fuzz-python fuzz-native ## both fuzzers, for hours; findings and what they learn are kept in build/

fuzz-python: $(READY) ## fuzz load, inspect and optimize, SECONDS=3600 long; installs atheris
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet atheris
	@mkdir -p build/fuzz-python/corpus build/fuzz-python/findings
	@$(BIN)/python -m tests.fuzz.search -max_total_time=$(or $(SECONDS),3600) -timeout=600 -rss_limit_mb=8192 -max_len=8192 \
	  -print_final_stats=1 -artifact_prefix=build/fuzz-python/findings/ build/fuzz-python/corpus tests/fuzz/corpus

fuzz-native: $(READY) ## fuzz the operators' packed inputs under sanitizers, RUNS=1000000 times; needs clang
	@PATH=$(abspath $(BIN)):$$PATH sh tests/kernels/run_fuzz.sh build/fuzz $(or $(RUNS),1000000)

wheel: $(READY) ## build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove what make made, fetched models aside
	rm -rf $(VENV) build dist demo benchmarks/results .pytest_cache .mypy_cache .ruff_cache .hypothesis .nox .import_linter_cache

$(READY): $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: $(PYTHON) is older than 3.10; try make PYTHON=python3.12" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || \
	  { echo "error: no C++ compiler; install g++ or clang, or set CXX" >&2; exit 1; }
	@echo "preparing $(VENV): about a minute, once" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
