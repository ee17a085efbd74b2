# Everything here works with Python 3.11 or newer (venv included) and make; the rest is fetched into .venv.

PYTHON ?= python3
URL ?= http://127.0.0.1:$(or $(PORT),8000)
COMPOSE ?= docker compose
# Compose wants the secret for every command; those that start nothing new do not use it.
COMPOSE_RUNNING = WEBHOOK_SECRET="$${WEBHOOK_SECRET:-unused}" $(COMPOSE)
MINUTES ?= 10
DEMO_PORT ?= 8001
ARGS ?=
COVERAGE ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Every package comes from a lock, with the hash that stands there; then ours, built by what is there by now.
install_lock = echo "Installing into $(VENV) ..." >&2 && $(PIP) install --require-hashes --requirement $(1) >&2 && \
	$(PIP) install --no-deps --no-build-isolation --editable . >&2

# Tests have their files in memory where there is plenty: half of their time was the disk's.
ROOMY := $(shell [ "$$(df --output=avail -B1G /dev/shm 2>/dev/null | tail -n 1)" -ge 4 ] 2>/dev/null && echo /dev/shm)
# Hundreds of servers start: their bytecode is kept, whatever the environment says.
# More than a small machine has cores: tests wait for a half of their time.
WORKERS = -n 3 --dist worksteal
PYTEST = PYTHONDONTWRITEBYTECODE= $(if $(ROOMY),TMPDIR=$(ROOMY)) $(BIN)/python -m pytest

# READ_TOKEN, when it is in the environment, opens /messages and /stats.
CURL = curl --fail-with-body --silent --show-error
BEARER = $(if $(READ_TOKEN),--header "Authorization: Bearer $$READ_TOKEN")
PRETTY = if command -v jq >/dev/null; then jq .; else $(PYTHON) -m json.tool --no-ensure-ascii; fi
# An answer is shown even when it is a refusal, and then make fails.
SHOW = show() { body=$$($(CURL) "$$@"); status=$$?; \
	if [ -n "$$body" ]; then printf '%s\n' "$$body" | { $(PRETTY); }; fi; return $$status; }; show

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

##@ Start here

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: install
install: $(VENV)/.installed ## Put the locked dependencies and the package into .venv

.PHONY: run
run: install ## Serve on 127.0.0.1:8000 (WEBHOOK_SECRET must be set)
	@exec $(BIN)/python run.py

.PHONY: run-postgres
run-postgres: $(VENV)/.installed-test ## Two servers on one PostgreSQL, at ports 8000 and 8001 (WEBHOOK_SECRET)
	@exec $(BIN)/python -m tests.run_postgres

.PHONY: demo
demo: install ## Look around: a server of its own with data/demo.db and friendly messages (DEMO_PORT)
	@mkdir -p data; export WEBHOOK_SECRET=demo HOST=127.0.0.1 PORT=$(DEMO_PORT) DATABASE_URL=sqlite:///data/demo.db; \
	$(BIN)/lyftr-server serve >data/demo.log & server=$$!; trap 'kill $$server; wait' EXIT; \
	until $(BIN)/lyftr-server healthcheck >/dev/null 2>&1; do \
		kill -0 $$server 2>/dev/null || { cat data/demo.log; exit 1; }; sleep 0.1; done; \
	$(BIN)/lyftr-server send examples/messages.ndjson; \
	echo "Look at http://127.0.0.1:$(DEMO_PORT)/inspector and /docs; Ctrl-C ends it." >&2; wait $$server

##@ Ask a running server (URL)

.PHONY: health
health: ## Is it ready?
	@$(SHOW) "$(URL)/health/ready"

.PHONY: messages
messages: ## The first stored messages
	@$(SHOW) $(BEARER) "$(URL)/messages"

.PHONY: stats
stats: ## Totals and senders
	@$(SHOW) $(BEARER) "$(URL)/stats"

.PHONY: metrics
metrics: ## The metrics that Prometheus reads
	@$(CURL) "$(URL)/metrics"

##@ Container

.PHONY: up
up: ## Build the image and start the service
	$(COMPOSE) up -d --build

.PHONY: down
down: ## Stop the service and DELETE its stored messages
	@if [ -t 0 ]; then printf 'This deletes all stored messages. Type yes: ' >&2; \
		read -r answer && [ "$$answer" = yes ]; fi
	$(COMPOSE_RUNNING) down -v

.PHONY: stop
stop: ## Stop the service; its messages stay
	$(COMPOSE_RUNNING) stop

.PHONY: restart
restart: ## Restart the service; its messages stay
	$(COMPOSE_RUNNING) restart api

.PHONY: logs
logs: ## Follow the service's log
	$(COMPOSE_RUNNING) logs -f api

##@ Work on it

.PHONY: test
test: $(VENV)/.installed-test ## All tests; with COVERAGE=1 also how much they reach (ARGS goes to pytest)
	$(PYTEST) $(if $(COVERAGE),--cov --cov-report=term) $(WORKERS) --durations=10 $(ARGS)

.PHONY: quick-test
quick-test: $(VENV)/.installed-test ## The tests that start no program of their own, up to the first failure
	$(PYTEST) -q -x $(WORKERS) -m "not slow and not program and not browser" $(ARGS)

.PHONY: lint
lint: $(VENV)/.installed-test ## Style, types, Dockerfile, compose file, shell scripts, Prometheus files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/yamllint --strict docker-compose.yml config
	$(BIN)/shellcheck .ci/run
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --quiet .github
	@if ! command -v actionlint >/dev/null; then \
		echo "lint: actionlint is not here; the workflows are held by their schema and zizmor alone" >&2; \
	else set -x; actionlint; fi
	@if ! command -v promtool >/dev/null; then \
		echo "lint: promtool (Debian: prometheus) is not here; config/*.yml stay unchecked" >&2; \
	else \
		set -ex; \
		promtool check config config/prometheus.yml; \
		promtool test rules config/alerts.test.yml; \
	fi

.PHONY: torture
torture: $(VENV)/.installed-test ## Kill, fill and starve real servers; takes minutes
	LYFTR_TORTURE=1 $(BIN)/python -m pytest -m torture $(ARGS)

.PHONY: attack
attack: $(VENV)/.installed-test ## How long deliveries wait, and what the server takes, beside attacks
	$(BIN)/python -m tests.attack $(ARGS)

.PHONY: soak
soak: $(VENV)/.installed-test ## Run under load for MINUTES and watch memory, files and answers (ARGS="--engine postgres")
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(ARGS)

.PHONY: mutants
mutants: $(VENV)/.installed-test ## Break the code on purpose: does a test notice?
	$(BIN)/python -m tests.mutants $(ARGS)

.PHONY: bench
bench: $(VENV)/.installed-test ## Messages stored a second
	$(BIN)/python -m tests.bench.ingest $(ARGS)

.PHONY: bench-reads
bench-reads: $(VENV)/.installed-test ## Time of each kind of read, over up to ROWS stored messages
	$(BIN)/python -m tests.bench.reads $(if $(ROWS),--rows $(ROWS)) $(ARGS)

.PHONY: hooks
hooks: $(VENV)/.installed-test ## From now on lint before each commit
	printf '#!/bin/sh\nexec make lint\n' >"$$(git rev-parse --git-path hooks)/pre-commit"
	chmod +x "$$(git rev-parse --git-path hooks)/pre-commit"

.PHONY: map
map: $(VENV)/.created ## Draw the map in CONTRIBUTING.md anew, from the imports
	$(BIN)/python -m tests.house_map

.PHONY: dist
dist: $(VENV)/.created ## Build sdist and wheel of HEAD into dist/, check them, and start the wheel as uvx does
	$(PIP) install build twine uv
	$(BIN)/python .ci/dist

.PHONY: bench-writes
bench-writes: $(VENV)/.installed-test ## What a stored message costs the writing thread, and what it writes
	$(BIN)/python -m tests.bench.writes $(ARGS)

.PHONY: bench-postgres
bench-postgres: $(VENV)/.installed-test ## What PostgreSQL costs, beside SQLite
	$(BIN)/python -m tests.bench.postgres $(ARGS)

.PHONY: bench-beside
bench-beside: $(VENV)/.installed-test ## What floods of refused bodies, retention and tombstones cost deliveries
	$(BIN)/python -m tests.bench.beside $(ARGS)

.PHONY: bench-streams
bench-streams: $(VENV)/.installed-test ## What a hundred readers of the stream cost deliveries
	$(BIN)/python -m tests.bench.streams $(ARGS)

.PHONY: man
man: install ## Write the man page, dist/lyftr-server.1, from --help
	@$(PIP) install argparse-manpage
	@mkdir -p dist
	$(BIN)/argparse-manpage --module lyftr_server.__main__ --function command_line \
		--prog lyftr-server --output dist/lyftr-server.1

.PHONY: shell
shell: install ## A Python shell that has the package
	@exec $(BIN)/python

# The database is opened for reading only: whoever looks cannot break it.
.PHONY: db-shell
db-shell: ## An SQL shell on the database, for reading
	@url="$${DATABASE_URL:-sqlite:///data/app.db}"; file="$${url#sqlite*:///}"; \
	if [ ! -e "$$file" ]; then echo "db-shell: there is no database at $$file" >&2; exit 1; fi; \
	if command -v sqlite3 >/dev/null; then exec sqlite3 -readonly -header -column "$$file"; fi; \
	if $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then \
		exec $(PYTHON) -m sqlite3 "file:$$file?mode=ro"; fi; \
	echo "db-shell: needs the sqlite3 program, or Python 3.12 and newer" >&2; exit 1

# setuptools builds the package, so that it is in each of them.
COMPILE = $(BIN)/python -m uv pip compile --no-strip-extras --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet

.PHONY: lock
lock: $(VENV)/.created ## Write the locks anew: requirements.txt, tests/requirements.txt (ARGS=--upgrade for newer versions)
	$(PIP) install uv
	$(COMPILE) setup.cfg --all-extras --output-file tests/requirements.txt $(ARGS)
	echo setuptools | $(COMPILE) setup.cfg - --extra postgres --constraint tests/requirements.txt --output-file requirements.txt

.PHONY: clean
clean: ## Remove .venv and all that tools leave behind; stored messages stay
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written after its step, so that a step that broke off is done again.
# All of this goes to standard error: the first line of `make run | jq` is the server's.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "lyftr-server needs Python 3.11 or newer; name one with make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) >&2
	@touch $@

$(VENV)/.installed: setup.cfg pyproject.toml requirements.txt | $(VENV)/.created
	@$(call install_lock,requirements.txt)
	@touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml tests/requirements.txt | $(VENV)/.created
	@$(call install_lock,tests/requirements.txt)
	@touch $@ $(VENV)/.installed
