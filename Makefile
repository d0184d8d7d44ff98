# The one task file. A Python (3.11 to 3.13) and make are all a fresh machine needs.

.DEFAULT_GOAL := help
.NOTPARALLEL:                       # the steps share caches, the coverage file and, often, two cores
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check
READY  := $(VENV)/.ready
# Apart from .venv, as Quix Streams allows only older versions of pydantic than we ship.
BENCH_VENV  := .venv-bench
BENCH_PIP   := $(BENCH_VENV)/bin/python -m pip --quiet --disable-pip-version-check
BENCH_READY := $(BENCH_VENV)/.ready

# Branch coverage in percent: of the rings without services, of all rings, of the pure files.
COVERAGE_FAST ?= 78
COVERAGE_ALL  ?= 90
COVERAGE_PURE ?= 100
PURE := cortex_stream/routing/*,cortex_stream/engine/handover.py
PURE := $(PURE),cortex_stream/scheduling/admission.py,cortex_stream/scheduling/batcher.py
PURE := $(PURE),cortex_stream/scheduling/fair_queue.py,cortex_stream/scheduling/fair_shares.py
PURE := $(PURE),cortex_stream/scheduling/watermarks.py
PURE := $(PURE),cortex_stream/scheduling/crowding.py
PURE := $(PURE),cortex_stream/scheduling/latency_model.py,cortex_stream/inference/tensors.py
PURE := $(PURE),cortex_stream/scheduling/health.py,cortex_stream/inference/device_faults.py
PURE := $(PURE),cortex_stream/kafka/progress.py
PURE := $(PURE),cortex_stream/delivery/retry.py,cortex_stream/delivery/identity.py
PURE := $(PURE),cortex_stream/delivery/attempts.py
PURE := $(PURE),cortex_stream/dedupe/fingerprint.py
PURE := $(PURE),cortex_stream/loadtest/latency.py,cortex_stream/loadtest/traffic.py
PURE := $(PURE),cortex_stream/dead_letters/filters.py,cortex_stream/dead_letters/letter.py
PURE := $(PURE),cortex_stream/dead_letters/mend.py,cortex_stream/dead_letters/redrive.py
PURE := $(PURE),cortex_stream/dead_letters/view.py
PURE := $(PURE),cortex_stream/replay/plan.py,cortex_stream/replay/selection.py
PURE := $(PURE),cortex_stream/replay/pace.py,cortex_stream/replay/compare.py
PURE := $(PURE),cortex_stream/replay/sample.py,cortex_stream/replay/answer.py
PURE := $(PURE),cortex_stream/replay/gate.py
FAST  := tests/unit tests/contract tests/architecture
# The longest first, so that all end together. Most wait for processes and brokers: three files at
# a time keep two cores busy.
RINGS := tests/acceptance tests/integration $(FAST)
FILES_AT_A_TIME ?= 3

UV_LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" \
	$(UPGRADE) pyproject.toml

.PHONY: help
help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# ---- use it --------------------------------------------------------------------------------------

.PHONY: setup demo stack bench bench-setup
setup: $(READY)  ## Create .venv from the lock (another Python: make setup PYTHON=python3.12)

$(READY): lock/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else "setup: $(PYTHON) is Python %d.%d; 3.11, 3.12 or 3.13 is needed: make setup PYTHON=python3.12" % v)'
	@echo "setup: installing $$(grep -c == lock/dev.txt) pinned packages into $(VENV) (a minute or two the first time)"
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --require-hashes --requirement lock/dev.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "setup: ready, try $(BIN)/cortex-stream --help"

demo: $(READY)  ## Start everything, answer real requests, stop (KEEP=1 leaves it running)
	@$(BIN)/cortex-stream demo $(if $(KEEP),--keep)

stack: $(READY)  ## Start Kafka, Redis and PostgreSQL on this machine, without Docker
	@$(BIN)/cortex-stream stack up

bench: $(BENCH_READY)  ## Measure speed against raw ONNX Runtime and peers (ARGS="soak" for others)
	@$(BENCH_VENV)/bin/cortex-stream bench $(or $(ARGS),throughput latency mixed)

bench-setup: $(BENCH_READY)  ## Create .venv-bench, which has the libraries that bench compares with

$(BENCH_READY): lock/bench.txt pyproject.toml $(READY)
	@echo "bench-setup: installing $$(grep -c == lock/bench.txt) pinned packages into $(BENCH_VENV)"
	@test -x $(BENCH_VENV)/bin/pip || $(BIN)/python -m venv --clear $(BENCH_VENV)
	@$(BENCH_PIP) install --require-hashes --requirement lock/bench.txt
	@$(BENCH_PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# ---- change it -----------------------------------------------------------------------------------

.PHONY: check test it chaos fmt docs lock clean
check: static fast  ## Before every commit: format, lint, types, imports, generated files, fast tests

test: static  ## Everything, as continuous integration runs it: check, real services, acceptance
	@echo "== tests: all rings, $(FILES_AT_A_TIME) files at a time, each with services of its own"
	@$(BIN)/pytest $(RINGS) -m "not alone" -n $(FILES_AT_A_TIME) --dist=loadfile --no-loadscope-reorder --cov --cov-report=
	@echo "== tests: what bounds time, with nothing beside it"
	@$(BIN)/pytest $(RINGS) -m alone --cov --cov-append --cov-report=term-missing --cov-fail-under=$(COVERAGE_ALL)
	@$(MAKE) pure

it: $(READY)  ## Only the tests against the real Kafka, Redis and PostgreSQL
	@$(BIN)/pytest tests/integration $(ARGS)

chaos: $(READY)  ## Break a running system on purpose and judge it (FAULT=F01 SEEDS=20; all without FAULT)
	@$(BIN)/python -m tests.chaos $(FAULT) --seeds $(or $(SEEDS),1) $(ARGS)

fmt: $(READY)  ## Format the code and repair what the linter can repair
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

docs: $(READY)  ## Regenerate the reference pages and the schemas
	@$(BIN)/cortex-stream docs

lock:  ## Re-resolve the lock files after a change in pyproject.toml (UPGRADE=--upgrade: newest)
	@test -x $(BIN)/uv || $(MAKE) setup
	$(UV_LOCK) --extra cpu --extra stack --extra dev --output-file lock/dev.txt
	$(UV_LOCK) --extra cpu --constraint lock/dev.txt --output-file lock/worker-cpu.txt
	$(UV_LOCK) --extra gpu --constraint lock/dev.txt --output-file lock/worker-gpu.txt
	cp lock/dev.txt lock/bench.txt      # what is in the output file is kept where it can be
	$(UV_LOCK) --extra cpu --extra stack --extra dev --extra bench --output-file lock/bench.txt

clean:  ## Remove .venv and caches (downloads, models and the stack's data stay)
	rm -rf $(VENV) $(BENCH_VENV) build dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find agents cortex_stream schemas topics tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- the steps of check and test, each on its own ------------------------------------------------

.PHONY: static lint types imports fresh images fast pure
static: lint types imports fresh images

lint: $(READY)
	@echo "== lint: format and rules"
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .

types: $(READY)
	@echo "== types: mypy, strict"
	@$(BIN)/mypy

imports: $(READY)
	@echo "== imports: who may import whom"
	@$(BIN)/lint-imports --no-logo

fresh: $(READY)
	@echo "== fresh: generated files match their sources"
	@$(BIN)/cortex-stream docs --check

images: $(READY)
	@echo "== images: Dockerfile and docker-compose.yml"
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

fast: $(READY)
	@echo "== tests: unit, contract, architecture"
	@$(BIN)/pytest $(FAST) -m "not integration and not slow" --cov --cov-report=term-missing --cov-fail-under=$(COVERAGE_FAST)
	@$(MAKE) pure

pure: $(READY)
	@echo "== pure files: branch coverage in percent, $(COVERAGE_PURE) demanded"
	@$(BIN)/coverage report --include='$(PURE)' --format=total --fail-under=$(COVERAGE_PURE)
