# Two commands matter: `make run` shows the vault at work, `make test` tests all of it.
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
TEST_PROCESSES ?= 2
COMPILE := $(PY) -m uv pip compile pyproject.toml --generate-hashes --no-header --no-annotate --quiet --upgrade
PROTOS := $(sort $(wildcard protos/vault/v1/*.proto))

.PHONY: help run dev test soak lint prove-memory bench generate check-generated wheel lock clean
.DEFAULT_GOAL := help

help: ## Show the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.ready: requirements-dev.lock pyproject.toml deploy/setup.sh
	deploy/setup.sh python

run: $(VENV)/.ready ## Set everything up and show the main job at work.
	deploy/setup.sh system run
	$(VENV)/bin/strongroom dev --tour

dev: $(VENV)/.ready ## Set everything up and leave a development vault running.
	deploy/setup.sh system run
	$(VENV)/bin/strongroom dev

test: $(VENV)/.ready ## Set everything up and run the whole test suite.
	deploy/setup.sh system test
	$(PY) -m pytest -m 'not soak and not alone' -n $(TEST_PROCESSES) --dist loadscope $(PYTEST_ARGS)
	$(PY) -m pytest -m 'alone and not soak' $(PYTEST_ARGS)

soak: $(VENV)/.ready ## Run the long tests: kills by the hundred and the like.
	deploy/setup.sh system test
	$(PY) -m pytest -m soak $(PYTEST_ARGS)

lint: $(VENV)/.ready ## Run every linter.
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/buf lint
	deploy/breaking.sh $(VENV)/bin/buf

generate: $(VENV)/.ready ## Make vault/v1 from protos/.
	$(PY) -m grpc_tools.protoc -Iprotos --python_out=. --pyi_out=. $(PROTOS)

check-generated: generate ## Fail if vault/v1 is not what protos/ say.
	git diff --exit-code -- vault/v1
	@test -z "$$(git ls-files --others --exclude-standard vault/v1)" || { echo "vault/v1 has files that are not committed"; exit 1; }

prove-memory: $(VENV)/.ready ## Prove that no copy of a secret is left in memory, with 1,000 sessions.
	deploy/setup.sh system test
	$(PY) -m tests.memory.proof

bench: $(VENV)/.ready ## Measure, as ratios within one run; writes bench/results.json.
	deploy/setup.sh system test
	$(PY) -m bench
	$(PY) -m bench.audit
	$(PY) -m bench.hsm

wheel: $(VENV)/.ready ## Make dist/strongroom-VERSION.whl, to be installed where there is no checkout.
	$(PY) -m hatchling build --target wheel --directory dist

lock: ## Choose the newest dependencies that fit; write requirements.lock (the vault) and requirements-dev.lock (tools too).
	$(PY) -m pip install --quiet uv
	$(COMPILE) --extra vault -o requirements.lock
	$(COMPILE) --all-extras --constraints requirements.lock -o requirements-dev.lock

clean: ## Remove what was set up here.
	rm -rf $(VENV) dist .strongroom .mypy_cache .pytest_cache .ruff_cache .hypothesis
