# The two commands of a newcomer are `make demo` and `make test`. Everything lands in .venv.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Changes with the locked dependencies and the project's metadata: a second run installs nothing.
STAMP := $(VENV)/installed-$(shell cat requirements/dev.txt pyproject.toml | cksum | tr ' ' '-')
UV_LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header pyproject.toml

.PHONY: help demo test test-s3 test-root install lint format lock clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) deploy/check_python.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV)"
	@$(PIP) --require-hashes -r requirements/dev.txt
	@PYTHONWARNINGS=ignore $(PIP) --no-deps --no-build-isolation --editable .
	@rm -f $(VENV)/installed-*
	@touch $@

install: $(STAMP)  ## .venv with everything, both programs included

demo: $(STAMP)  ## three tills, an outage, a kill: every sale in gold, to the cent
	@$(BIN)/python deploy/demo/demo.py

test: $(STAMP)  ## unit, integration on a real PostgreSQL, end to end
	@$(BIN)/python -m pytest -m "not root and not s3"
	@echo "not run here: make test-s3 (needs Ceph's S3 server)"
	@if [ "$$(id -u)" != 0 ]; then echo "not run here: make test-root (needs root)"; fi

test-s3: $(STAMP)  ## the buckets against Ceph's S3 server, which Debian packages
	@for program in radosgw radosgw-admin ceph ceph-mon ceph-osd; do command -v $$program >/dev/null || { \
	echo "make test-s3 needs $$program: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd" >&2; exit 1; }; done
	@$(BIN)/python -m pytest -m s3

test-root: $(STAMP)  ## the tests that need root
	@if [ "$$(id -u)" != 0 ]; then echo "make test-root needs root: run 'sudo make test-root'" >&2; exit 1; fi
	@$(BIN)/python -m pytest -m root

lint: $(STAMP)  ## ruff, mypy --strict, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP)  ## what `make lint` wants of the layout
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

lock:  ## the locked dependencies anew (needs uv)
	$(UV_LOCK) --extra server --group dev --output-file requirements/dev.txt
	$(UV_LOCK) --constraint requirements/dev.txt --extra server --output-file requirements/server.txt
	$(UV_LOCK) --constraint requirements/dev.txt --output-file requirements/agent.txt

clean:  ## remove what was installed or made
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
