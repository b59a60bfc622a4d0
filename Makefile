# One entry for people and for CI. Every target makes its own virtual environment and is instant the
# second time: a stamp file in the environment is newer than what was installed from.
#
#   make run                 serve the demo and its dashboard  PORT=8080 or BIND=127.0.0.1:8080, ADMIN=127.0.0.1:8081
#   make test                the whole suite                   ARGS="-k reload"
#   make bench               ourselves beside our peers        ARGS=--quick (3 minutes), ARGS="http --rounds 3"
#   make chaos               real faults, counted              ARGS="--quick --only kill-workers"
#   make lint types imports  ruff, mypy, import-linter
#   PYTHON=python3.13 VENV=.venv-3.13 make test                another interpreter

VENV ?= .venv
PORT ?= 8080
BIND ?= 127.0.0.1:$(PORT)
ADMIN ?= 127.0.0.1:8081
ARGS ?=
RUN ?= build/bench.json
# Tests at once: most of them wait for processes. JOBS=0 runs them one by one, in this process.
JOBS ?= 4
PYTHONS ?= 3.11 3.12 3.13
LOCK := requirements/dev.txt
AUTOBAHN := .venv-autobahn
STRANGERS := build/strangers/venv
DOCS := .venv-docs

BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-run
TEST_STAMP := $(VENV)/.installed-test
BENCH_STAMP := $(VENV)/.installed-bench

# What is imported from here is compiled beforehand, as pip does with what it installs: the environment may forbid Python to keep
# what it compiles (PYTHONDONTWRITEBYTECODE), and each of the thousands that are started would do it again.
compiled = $(BIN)/python -m compileall -q -j 0 src

is_new_enough = -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
# Recursive on purpose: looked for only when an environment has to be made.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$p $(is_new_enough); then echo $$p; break; fi; done)

# Of the PATH, or of pyenv, for the Autobahn suite alone.
PYTHON2 ?= $(firstword $(shell python2.7 -c 'import sys; print(sys.executable)' 2>/dev/null) \
	$(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/2.7*/bin/python))

.DEFAULT_GOAL := help
.PHONY: help run two-hosts strangers bench bench-http bench-supervision bench-shared bench-page chaos test autobahn lint format types imports docs docs-reference pictures check coverage test-all-pythons lock clean

help: ## say what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 26

run: $(RUN_STAMP) ## serve the demo on http://127.0.0.1:8080, its dashboard on :8081 (PORT=, BIND=, ADMIN=, ARGS=)
	@echo "the demo:      http://$(BIND)"
	@echo "its dashboard: http://$(ADMIN)   (stop with Ctrl-C)"
	@$(compiled)
	@PREFORK_ADMIN=$(ADMIN) exec $(BIN)/prefork --app-dir examples/demo demo:app --bind $(BIND) --workers 4 $(ARGS)

test: $(TEST_STAMP) ## run the whole suite (ARGS= is passed to pytest)
	@$(compiled) tests benchmarks examples
	$(BIN)/python -m pytest --numprocesses $(JOBS) $(ARGS)

autobahn: $(TEST_STAMP) $(AUTOBAHN)/bin/wstest ## the Autobahn suite for WebSockets; it needs a python2.7 (PYTHON2=)
	PATH="$(CURDIR)/$(AUTOBAHN)/bin:$$PATH" $(BIN)/python -m pytest tests/ecosystem/test_http_autobahn.py $(ARGS)

strangers: $(TEST_STAMP) $(STRANGERS)/.installed ## strangers' suites against our server (ARGS=gunicorn, ARGS=--write)
	$(BIN)/python -m strangers $(ARGS)

two-hosts: $(TEST_STAMP) ## two hosts as network namespaces, updated under load: needs root, iproute2, haproxy, redis-server
	$(BIN)/python -m tests.process.two_hosts

bench: $(BENCH_STAMP) ## measure us beside our peers: an hour; ARGS=--quick: 3 minutes (peers are installed once, in build/)
	@$(compiled) tests benchmarks
	$(BIN)/python -m benchmarks $(ARGS)

bench-http: $(BENCH_STAMP) ## the HTTP server alone
	@$(compiled) tests benchmarks
	$(BIN)/python -m benchmarks.http $(ARGS)

bench-supervision: $(BENCH_STAMP) ## the supervisor alone (ARGS="--quick kills")
	@$(compiled) tests benchmarks
	$(BIN)/python -m benchmarks.supervision $(ARGS)

bench-shared: $(BENCH_STAMP) ## state that all workers see, beside Redis, diskcache, gunicorn's stash and Manager
	@$(compiled) tests benchmarks
	$(BIN)/python -m benchmarks.shared $(ARGS)

bench-page: $(BENCH_STAMP) ## write the tables and plots of docs/benchmarks.md anew, from the last run (RUN=build/bench.json)
	$(BIN)/python -m benchmarks.page $(RUN)

chaos: $(TEST_STAMP) ## real faults against a real fleet under load; fails if a promise breaks (ARGS=--quick)
	@$(compiled) tests benchmarks
	$(BIN)/python -m benchmarks.chaos $(ARGS)

lint: $(TEST_STAMP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(TEST_STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(TEST_STAMP) ## mypy, strict
	$(BIN)/mypy

imports: $(TEST_STAMP) ## import-linter: imports run downward only
	$(BIN)/lint-imports

docs: $(DOCS)/.installed ## make the site of docs/ in build/site: a broken link or anchor is an error
	$(DOCS)/bin/python -m sphinx -W --keep-going -q -b html docs build/site
	@echo "open build/site/index.html"

docs-reference: $(TEST_STAMP) ## write docs/options.md, the pictures of docs/img/drawn and drawn tables anew, from the code
	$(BIN)/python -m prefork.cli.reference > docs/options.md.new && mv docs/options.md.new docs/options.md
	$(BIN)/python -m tests.docs.drawing

check: lint types imports test ## everything that CI holds

coverage: $(TEST_STAMP) ## the suite with coverage of forked and started processes too
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-all-pythons: ## the suite on each of PYTHONS that this machine has
	@set -eu; tried=0; for version in $(PYTHONS); do \
		python=; \
		for candidate in python$$version "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version*/bin/python; do \
			if "$$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$$version')" \
				>/dev/null 2>&1; then python=$$candidate; break; fi; \
		done; \
		if [ -z "$$python" ]; then echo "== Python $$version: not on this machine, skipped"; continue; fi; \
		echo "== Python $$version: $$python"; \
		$(MAKE) --no-print-directory test PYTHON="$$python" VENV=.venv-$$version; tried=$$((tried + 1)); \
	done; \
	if [ $$tried = 0 ]; then echo "none of Python $(PYTHONS) was found"; exit 1; fi

pictures: $(TEST_STAMP) ## take the screenshots of docs/img anew; needs chromium
	$(BIN)/python -m tests.ecosystem.pictures

lock: ## write requirements/dev.txt anew, from pyproject.toml
	@rm -rf .venv-lock && $(MAKE) --no-print-directory .venv-lock/bin/python VENV=.venv-lock
	.venv-lock/bin/pip install --quiet --upgrade pip
	.venv-lock/bin/pip install --quiet --group dev --editable '.[all]'
	@{ grep '^#' $(LOCK); .venv-lock/bin/pip freeze --exclude-editable; } > $(LOCK).new && mv $(LOCK).new $(LOCK)
	@rm -rf .venv-lock

clean: ## remove what was made here, environments too
	rm -rf .venv .venv-* build dist .coverage .coverage.* htmlcov .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@if [ -z "$(PYTHON)" ] || ! $(PYTHON) $(is_new_enough); then \
		echo "prefork needs Python 3.11 or newer; '$(or $(PYTHON),python3)' is $$( \
			{ $(or $(PYTHON),python3) --version 2>&1 || echo missing; } | head -n 1)." >&2; \
		echo "Say which to use: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; fi
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "no virtual environment could be made: on Debian, install python3-venv" >&2; exit 1; }

# The last virtualenv that makes environments for Python 2.7 is 20.21.
$(AUTOBAHN)/bin/wstest: | $(TEST_STAMP)
	@if [ -z "$(PYTHON2)" ]; then \
		echo "the Autobahn suite is written for Python 2.7, and there is none here: make autobahn PYTHON2=/path" >&2; \
		exit 1; fi
	@rm -rf $(AUTOBAHN) && $(BIN)/python -m venv $(AUTOBAHN)-maker
	$(AUTOBAHN)-maker/bin/pip install --quiet --disable-pip-version-check 'virtualenv<20.22'
	$(AUTOBAHN)-maker/bin/virtualenv --quiet --python $(PYTHON2) $(AUTOBAHN)
	$(AUTOBAHN)/bin/pip install --quiet autobahntestsuite
	@rm -rf $(AUTOBAHN)-maker

$(STRANGERS)/.installed: requirements/strangers.txt pyproject.toml | $(BIN)/python
	@rm -rf $(STRANGERS) && $(BIN)/python -m venv $(STRANGERS)
	$(STRANGERS)/bin/pip install --quiet --disable-pip-version-check --requirement $< --editable '.[websocket]'
	@touch $@

# What makes the site, and nothing else: the group `docs`, pinned by the same lock.
$(DOCS)/.installed: $(LOCK)
	@$(MAKE) --no-print-directory $(DOCS)/bin/python VENV=$(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(LOCK) sphinx furo myst-parser
	@touch $@

$(RUN_STAMP): pyproject.toml $(LOCK) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(LOCK) --editable .
	@touch $@

$(TEST_STAMP): pyproject.toml $(LOCK) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement $(LOCK) --editable '.[all]'
	@touch $(RUN_STAMP) $@

# Groups are known to pip since 25.1.
$(BENCH_STAMP): $(TEST_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(LOCK) --group bench
	@touch $@
