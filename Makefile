# gonogo: `make demo` and `make test` set up what they need; `make help` lists the rest.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOC := .venv-protoc
PROTO_FILES := $(wildcard protos/gonogo/v1/*.proto)
UV ?= uv

.DEFAULT_GOAL := help
.PHONY: help setup far-sides demo test long faults cases unprivileged filters check format lint types imports protos check-protos bench lock clean large image image-test

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | column -t -s '|'

setup: $(VENV)/.ready ## Install the system tools and the Python environment

$(VENV)/.ready: requirements/dev.lock pyproject.toml deploy/setup.sh
	@PYTHON="$(PYTHON)" deploy/setup.sh $(VENV)
	@touch $@

$(PROTOC)/.ready: requirements/protoc.lock
	@$(PYTHON) -m venv $(PROTOC)
	@$(PROTOC)/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/protoc.lock
	@touch $@

demo: setup ## Run the main job on a copy of this checkout, from chat message to receipt, and the refusals
	@$(BIN)/python -m tests.e2e.demo

test: setup ## Run the whole test suite
	@GONOGO_EXAMPLES=$${GONOGO_EXAMPLES:-0.3} $(BIN)/python -m pytest -q -n 2 --dist loadfile --ignore tests/cases

faults: setup ## Cut commits, undos, recoveries and missions at every system call; race an editor; lose power
	@$(BIN)/python -m pytest -q -m "" tests/faults

far-sides: setup ## Install what the long suites speak to: PostgreSQL, and an MCP server from npm
	@deploy/far-sides.sh build/far-sides

long: far-sides ## Run the longer suites: roles, secrets, proofs and attacks over the wire end to end, all examples of the properties
	@$(BIN)/python -m pytest -q -m long -n 2 --dist loadfile --ignore tests/property/test_control_deaths.py
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/property

kills: setup ## Kill both services at 200 random moments, and at each act of what ends a wait; print the figures
	@GONOGO_KILL_ROUNDS=$${GONOGO_KILL_ROUNDS:-200} $(BIN)/python -m pytest -q -m long tests/e2e/test_kills.py
	@GONOGO_RANDOM=1 $(BIN)/python -m pytest -q -m long tests/property/test_control_machine.py tests/property/test_control_deaths.py

cases: setup ## Run the adversarial cases, each by its id
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/cases

unprivileged: setup ## Run the executor's suites as an ordinary user
	@deploy/unprivileged.sh $(BIN)/python -m pytest -q -p no:cacheprovider -n 2 --dist loadfile \
		tests/unit/executor tests/conformance tests/property tests/cases

check: setup lint types imports check-protos ## Format, lint, types, import rules, contract

format: setup ## Rewrite the code in the house format
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix . && $(BIN)/buf format -w protos

lint: setup
	@$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: setup
	@$(BIN)/mypy protos/gonogo orchestrator executor client tests bench

imports: setup
	@$(BIN)/lint-imports --no-cache

protos: setup $(PROTOC)/.ready ## Generate the contract's code again
	@deploy/generate-protos.sh $(PROTOC) protos

check-protos: setup $(PROTOC)/.ready
	@$(BIN)/buf format -d --exit-code protos
	@$(BIN)/buf lint protos
	@$(BIN)/buf breaking protos --against protos/baseline.binpb
	@deploy/check-protos.sh $(PROTOC)

large: setup ## Run the long suites: 1,000 changed files, a 1 GiB file, the replay of 1,000,000 events
	@GONOGO_REPLAY_EVENTS=1000000 $(BIN)/python -m pytest -q -m slow --override-ini timeout=900

bench: setup ## Measure, as ratios against a floor of the same run
	@$(BIN)/python -m bench

image: setup ## Build the services' images (docker, or podman; installs what is missing where it may)
	@deploy/image.sh

image-test: image ## Run the pair from its images: missions under control, live steps, attacks on the boundary
	@deploy/image-test.sh

filters: ## Build the shipped system call filters again (needs libseccomp)
	@$(PYTHON) deploy/seccomp/build.py

lock: ## Resolve the lock files again (needs uv)
	@deploy/lock.sh $(UV)

clean: ## Remove environments and caches
	@rm -rf $(VENV) $(PROTOC) .mypy_cache .ruff_cache .pytest_cache .hypothesis build
