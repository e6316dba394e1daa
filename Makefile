# Everything a contributor types. `make` alone lists it.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
UV_VERSION := 0.13.8
# More arguments for pytest: make test-unit ARGS='-k locks -x'; or for the bench.
ARGS ?=
# The folder of the pool that `make demo` and `make run` use; without it they make their own.
POOL ?=
# The socket of another driver for `make bench-peer`, such as unix:///run/other/csi.sock.
PEER ?=
# How many seconds `make soak` lasts.
DURATION ?= 600
# How many nodes `make cluster` starts.
NODES ?= 1
# The files of cases that `make test-cluster` runs.
CASES ?= tests/cluster

.DEFAULT_GOAL := help
.PHONY: help env demo run bench bench-peer bench-packages test test-unit test-sanity test-crash soak \
	test-security test-quota test-cluster bench-cluster cluster cluster-down check \
	format proto lock clean system-packages csi-sanity cluster-parts uv
# A recipe that fails halfway must not leave a target that looks finished.
.DELETE_ON_ERROR:

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##### The environment

env: $(STAMP) ## Install system packages and .venv (only what is missing or out of date)

system-packages:
	@PYTHON='$(PYTHON)' tools/system-packages

# The system packages are looked at each time, which is quick; the rest only when its sources change.
$(STAMP): requirements.lock requirements-dev.lock pyproject.toml | system-packages
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
		"$(PYTHON) is Python " + sys.version.split()[0] + "; 3.11 or newer is needed, " \
		"name another one by: make PYTHON=python3.11 ...")'
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "Making the virtual environment .venv"; \
		$(PYTHON) -m venv --clear .venv; \
	fi
	@echo "Installing what requirements-dev.lock names, each file checked by its hash"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet \
		--require-hashes -r requirements-dev.lock
	@echo "Installing csi-local-path itself, to run from this folder"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet \
		--no-deps --no-build-isolation -e .
	@touch $@

##### Using the driver

demo: env ## Take real volumes through their whole life (POOL=folder names a pool)
	@$(BIN)/python -m demo $(if $(POOL),--pool '$(POOL)')

run: env ## Leave the driver serving until it is stopped (POOL=folder names a pool)
	@$(BIN)/python -m demo --serve $(if $(POOL),--pool '$(POOL)')

bench: env bench-packages ## Measure speed, memory and I/O (ARGS='--counts 0,10000'; POOL=folder)
	@$(BIN)/python -m bench $(if $(POOL),--pool '$(POOL)') $(ARGS)

bench-peer: env bench-packages ## The same in turns with another driver (PEER=unix:///its.sock)
	@$(if $(PEER),,echo "name its socket: make bench-peer PEER=unix:///..."; exit 1;) \
	$(BIN)/python -m bench --peer '$(PEER)' $(if $(POOL),--pool '$(POOL)') $(ARGS)

bench-packages:
	@PYTHON='$(PYTHON)' tools/system-packages bench

##### Tests and checks

test: env csi-sanity ## All tests but those in a cluster or a guest: unit, contract, kernel, csi-sanity
	$(BIN)/python -m pytest --ignore tests/cluster/cases --ignore tests/quota/cases $(ARGS)

test-unit: env ## The tests that need neither root nor the kernel
	$(BIN)/python -m pytest tests/unit $(ARGS)

test-sanity: env csi-sanity ## csi-sanity against every kind of volume and pool
	$(BIN)/python -m pytest -v tests/sanity $(ARGS)

test-quota: env csi-sanity ## Project quotas, and I/O limits by cgroup v2, in a kernel of their own
	@tests/quota/system-packages
	$(BIN)/python -m tests.quota $(ARGS)

cluster: env ## Start a real Kubernetes here with the driver in it (NODES=3 for three)
	@$(BIN)/python -m tests.cluster up --nodes $(NODES) --install

cluster-down: env ## Take that Kubernetes away with every trace
	@$(BIN)/python -m tests.cluster down

# Beforehand, so that a long build shows how far it is; a cluster of the user's needs none.
cluster-parts: env
	@$(BIN)/python -m tests.cluster build

test-crash: env ## Kills, faults and power cuts at every step, random calls (many hours); make test has a sample
	CRASH=whole nice $(BIN)/python -m pytest -q tests/crash tests/model $(ARGS)

soak: env ## Many callers at once while the driver is killed at random (DURATION=seconds)
	SOAK_SECONDS=$(DURATION) nice $(BIN)/python -m pytest -q tests/model/test_soak.py $(ARGS)

test-security: env ## Attacks: a million malformed requests, hostile tenants; make test has a sample
	SECURITY=whole nice $(BIN)/python -m pytest -q tests/security $(ARGS)

test-cluster: env $(if $(KUBECONFIG),,cluster-parts) ## The tests in that cluster, or in the one that KUBECONFIG names
	$(BIN)/python -m pytest -v $(CASES) $(ARGS)

bench-cluster: env $(if $(KUBECONFIG),,cluster-parts) ## How long users of that cluster wait: pods, deletes, snapshots, restores, growth
	@$(BIN)/python -m tests.cluster.bench $(ARGS)

# Before the tests, so that a missing Go is told at once and the build shows what it does.
csi-sanity: env
	@$(BIN)/python -m tests.sanity.build

check: env ## Format, lint, import layers, types, generated code, locks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/python proto/generate.py --check
	$(BIN)/python tools/check_locks.py

format: env ## Format the code and apply the linter's safe fixes
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

##### Generated files

proto: env ## Generate csi/v1 from proto/csi/v1/csi.proto
	$(BIN)/python proto/generate.py

# The pins that are there stay, unless UPGRADE=1 asks for the newest.
COMPILE := $(BIN)/uv pip compile pyproject.toml --python-version 3.11 --quiet \
	--generate-hashes --no-emit-index-url --no-header $(if $(UPGRADE),--upgrade)

lock: env uv ## Resolve pyproject.toml into both lock files (UPGRADE=1 renews the pins)
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --group dev --constraint requirements.lock --output-file requirements-dev.lock

uv:
	@$(BIN)/uv --version >/dev/null 2>&1 || { \
		echo "Installing uv $(UV_VERSION) into .venv"; \
		$(BIN)/python -m pip install --disable-pip-version-check --quiet uv==$(UV_VERSION); \
	}

# Pools are data and stay, wherever they are.
clean: ## Remove .venv, caches and build results
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
