# The two commands of a newcomer are `make demo` and `make test`. Everything lands in .venv.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Changes with the locked dependencies and the project's metadata: a second run installs nothing.
STAMP := $(VENV)/installed-$(shell cat requirements/dev.txt pyproject.toml | cksum | tr ' ' '-')
UV_LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header

need_root = if [ "$$(id -u)" != 0 ]; then echo "make $(1) needs root: run 'sudo make $(1)'" >&2; exit 1; fi

# What `make test` leaves to the targets of their own.
OF_THEIR_OWN := service or power or s3 or browser or year or packages or guest or fleet or rules or proxy
ELSEWHERE := root or $(OF_THEIR_OWN)
ifeq ($(shell command -v systemd-analyze),)
ELSEWHERE += or analyze
endif

.PHONY: help demo install packages test test-root test-service test-power test-packages test-guest test-fleet \
	test-rules test-proxy test-s3 test-browser test-postgresql-15 test-year bench bench-overload bench-idle \
	bench-increment bench-gold soak gold-catalogue technician lint format lock clean

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
	@$(BIN)/python -m pytest -m "not ($(ELSEWHERE))" $(TESTS)
	@echo "not run here, each needs root: make test-root, make test-service (a real systemd), make test-power (power cuts),"
	@echo "  make test-packages (Debian packages), make test-guest (an emulated arm64 machine), make test-fleet (Ansible);"
	@echo "nor, each needs Debian's packages or minutes: make test-proxy (nginx), make test-rules (Prometheus), make test-s3"
	@echo "  (Ceph), make test-browser (Chromium), make test-postgresql-15 (Debian's PostgreSQL 15), make test-year (a year)"

test-s3: $(STAMP)  ## the buckets against Ceph's S3 server, which Debian packages
	@for program in radosgw radosgw-admin ceph ceph-mon ceph-osd; do command -v $$program >/dev/null || { \
	echo "make test-s3 needs $$program: apt-get install --no-install-recommends radosgw ceph-mon ceph-osd" >&2; exit 1; }; done
	@$(BIN)/python -m pytest -m s3

test-browser: $(STAMP)  ## the operators' page in Chromium; SCOUT_TEST_SCREENSHOTS=FOLDER keeps what it looked like
	@for program in chromium chromedriver; do command -v $$program >/dev/null || { \
	echo "make test-browser needs $$program: apt-get install --no-install-recommends chromium chromium-driver" >&2; exit 1; }; done
	@$(BIN)/python -m pytest -m browser

test-rules: $(STAMP)  ## the alert rules: promtool's unit tests, and a real Prometheus that scrapes a real server
	@for program in promtool prometheus nginx; do PATH="$$PATH:/usr/sbin" command -v $$program >/dev/null || { \
	echo "make test-rules needs $$program: apt-get install --no-install-recommends prometheus nginx-light" >&2; exit 1; }; done
	@$(BIN)/python -m pytest -m rules

test-proxy: $(STAMP)  ## the proxy example in Debian's nginx, between a real agent and a real server
	@PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || { \
	echo "make test-proxy needs nginx: apt-get install --no-install-recommends nginx-light" >&2; exit 1; }
	@$(BIN)/python -m pytest -m proxy

test-root: $(STAMP)  ## the tests that need root
	@$(call need_root,$@)
	@$(BIN)/python -m pytest -m "root and not ($(OF_THEIR_OWN))"

test-service: $(STAMP)  ## the systemd unit on a real systemd (root; installs systemd's container)
	@$(call need_root,$@)
	@{ command -v systemd-nspawn && command -v systemd-analyze; } >/dev/null || { apt-get update --quiet && \
		apt-get install --yes --no-install-recommends systemd systemd-container; }
	@$(BIN)/python -m pytest -m "service or analyze"

test-packages: $(STAMP)  ## the Debian packages in blank bookworm and trixie machines (root; Debian's mmdebstrap systemd-container)
	@$(call need_root,$@)
	@$(BIN)/python -m pytest -m packages

test-power: $(STAMP)  ## a hundred power cuts under load, and the controls (root, loop devices)
	@$(call need_root,$@)
	@# In a mount namespace of its own: a container that somebody starts meanwhile would hold the card mounted.
	@unshare --mount $(BIN)/python -m pytest -m power

test-guest: $(STAMP)  ## the package on an emulated arm64 machine, its power cut again and again (root, ten minutes)
	@$(call need_root,$@)
	@for program in qemu-system-aarch64 mmdebstrap arch-test update-binfmts busybox mke2fs mkfs.vfat mcopy; do \
	command -v $$program >/dev/null || { echo "make test-guest needs $$program: apt-get install --no-install-recommends" \
	"qemu-system-arm qemu-user-static binfmt-support mmdebstrap arch-test busybox-static e2fsprogs dosfstools mtools" >&2; exit 1; }; done
	@$(BIN)/python -m pytest -m guest

test-fleet: $(STAMP)  ## deploy/ansible on four booted machines (root; installs Ansible; some ten minutes)
	@$(call need_root,$@)
	@for program in systemd-nspawn mmdebstrap arch-test ssh; do command -v $$program >/dev/null || { \
	echo "make test-fleet needs $$program: apt-get install --no-install-recommends systemd-container mmdebstrap qemu-user-static binfmt-support arch-test openssh-client" >&2; exit 1; }; done
	@$(PIP) --require-hashes -r requirements/fleet.txt
	@$(BIN)/python -m pytest -m fleet tests/fleet

bench: $(STAMP)  ## the ingest endpoint at 200 sales a second; finding new objects beside a million loaded ones
	@$(BIN)/python bench/ingest.py
	@$(BIN)/python bench/ledger_size.py

bench-increment: $(STAMP)  ## 10,000 sales from landing to gold, beside 100,000 and beside 2,000,000 (half an hour)
	@$(BIN)/python bench/increment.py

bench-overload: $(STAMP)  ## twice what the server can take, for a minute
	@SCOUT_TEST_OVERLOAD_S=60 $(BIN)/python -m pytest --quiet --capture=no tests/server/test_overload.py -k twice

bench-idle: $(STAMP)  ## ten idle minutes: wake-ups, bytes written, memory by module
	@SCOUT_TEST_IDLE_S=600 $(BIN)/python -m pytest --quiet tests/agent/test_idle.py

bench-gold: $(STAMP)  ## how long each view of gold takes over 155,000 sales and 1.5 million items
	@$(BIN)/python bench/gold.py

soak: $(STAMP)  ## ten minutes of 1,000 simulated devices, then every sale accounted for
	@$(BIN)/python bench/soak.py

test-year: $(STAMP)  ## gold of a whole year of real sales against DuckDB; installs some 100 MB more, takes minutes
	@$(PIP) --require-hashes -r requirements/year.txt
	@$(BIN)/python -m pytest -m year

packages: $(STAMP)  ## Debian packages of both programs, for amd64 and arm64, into build/packages
	@for program in scout-agent scout-server; do for architecture in amd64 arm64; do \
		$(BIN)/python deploy/packages/build.py --program $$program --architecture $$architecture || exit 1; done; done

test-postgresql-15: $(STAMP)  ## the server's tests on Debian's PostgreSQL 15 (package postgresql-15)
	@test -x /usr/lib/postgresql/15/bin/postgres || { echo "install Debian's package postgresql-15" >&2; exit 1; }
	@SCOUT_POSTGRES_BIN=/usr/lib/postgresql/15/bin $(BIN)/python -m pytest -m "not ($(ELSEWHERE))" tests/server

lint: $(STAMP)  ## ruff, mypy --strict, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP)  ## what `make lint` wants of the layout
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

gold-catalogue: $(STAMP)  ## docs/gold.md from the comments of the models
	@$(BIN)/python deploy/gold_catalogue.py

technician: $(STAMP)  ## build/technician.html, one sheet of A4 to be printed, from docs/technician.md
	@$(BIN)/python deploy/technician_page.py

lock:  ## the locked dependencies anew (needs uv)
	$(UV_LOCK) pyproject.toml --extra server --group dev --output-file requirements/dev.txt
	$(UV_LOCK) pyproject.toml --constraint requirements/dev.txt --extra server --output-file requirements/server.txt
	$(UV_LOCK) pyproject.toml --constraint requirements/dev.txt --output-file requirements/agent.txt
	$(UV_LOCK) --constraint requirements/dev.txt --group year --output-file requirements/year.txt
	$(UV_LOCK) --constraint requirements/dev.txt --group fleet --output-file requirements/fleet.txt

clean:  ## remove what was installed or made
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
