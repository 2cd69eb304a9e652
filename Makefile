# Every command of this page sets up what it needs. `make` alone prints the list.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
PIP_FLAGS := --quiet --disable-pip-version-check
SEED ?= 1
RUNS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench chaos kafka kafka-stop schemas constraints

help: ## Print this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/\1|\2/' | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

setup: .venv/.installed ## Make .venv with all that development needs

demo: .venv-demo/.installed ## See a worker price a generated shop for half a minute: no Docker, Java or GPU
	@.venv-demo/bin/pricetide demo

test: lint ## Run everything: style, types, import contracts, every test (needs Docker, or Java 17 and Maven; and a Chromium)
	$(BIN)/pytest -n 2 --dist worksteal

lint: setup ## Check style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Rewrite the code in the house style
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: setup ## Measure what the README claims, on a real Kafka, and print the table
	$(BIN)/python -m benchmarks

chaos: setup ## Kill workers at random instants and compare with the oracle: SEED=1 RUNS=1 MODEL=DIR
	$(BIN)/python tests/faults/chaos.py --seed $(SEED) --runs $(RUNS) $(if $(MODEL),--model $(MODEL))

kafka: ## Start a Kafka on 127.0.0.1:9092, without Docker (Java 17 and Maven); prints its address
	@deploy/kafka-local/kafka-local.sh start

kafka-stop: ## Stop it; `deploy/kafka-local/kafka-local.sh wipe` removes its data, too
	@deploy/kafka-local/kafka-local.sh stop

schemas: setup ## Write contracts/schemas/ anew from the message types
	$(BIN)/pricetide schema

constraints: setup ## Write deploy/constraints.txt, the versions of the image's packages, from what .venv has
	$(BIN)/python deploy/constraints.py > deploy/constraints.txt.new && mv deploy/constraints.txt.new deploy/constraints.txt

# A stamp per environment: installed again when pyproject.toml changes, and not otherwise.
# GIB: what it takes of the disk while it runs, torch's CUDA wheels and what is in them; pip would find out minutes later.
.venv/.installed: EXTRAS := dev
.venv/.installed: GIB := 10
.venv-demo/.installed: EXTRAS := demo
.venv-demo/.installed: GIB := 2
.venv/.installed .venv-demo/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "pricetide needs Python 3.11, 3.12 or 3.13: install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import shutil, sys; free = shutil.disk_usage(".").free / 2**30; sys.exit(f"$(@D) takes $(GIB) GiB of disk while it is made, and {free:.1f} are free here: make room first" if free < $(GIB) else 0)'
	@echo "setting up $(@D)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install $(PIP_FLAGS) --editable '.[$(EXTRAS)]'
	@touch $@
