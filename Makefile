# lobar on one machine. What Debian must bring: make, python3 (3.11 or newer) and python3-venv.
PYTHON ?= python3
PARALLEL ?= 2
BIN := .venv/bin
RUN := runs/file

.DEFAULT_GOAL := help
.PHONY: help install run test check clean lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed ## everything lobar needs, into .venv

.venv/installed: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "lobar needs Python 3.11 or newer as $(PYTHON): apt-get install python3, or make PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python has no venv: apt-get install python3-venv"; exit 2; }
	@echo "installing into .venv; this takes a minute or two"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install -q --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

run: install ## demo data in, one submission CSV and a report out
	@$(BIN)/python -m jobs demo-data --out $(RUN)/data
	@$(BIN)/python -m lobar.workflow workflows/full.yaml --parallel $(PARALLEL) \
		-p root=$(RUN) -p artifacts=$(RUN) -p shards=4 -p valid-fraction=0.22 -p batch-size=8 -p learning-rate=0.002 \
		-p image-size=128 -p channels=12 -p depth=2 -p epochs=6
	@echo "look at: $(RUN)/report.html    $(RUN)/submission.csv"

test: check ## all tests
	$(BIN)/python -m pytest

check: install ## format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove runs/, keep .venv
	rm -rf runs

lock: install ## pin every dependency again, with hashes
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --upgrade --all-extras --no-emit-package lobar pyproject.toml -o requirements/dev.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --constraint requirements/dev.txt --extra train pyproject.toml -o requirements/train.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --constraint requirements/dev.txt pyproject.toml -o requirements/jobs.txt
