# Every target sets the environment up first; that takes a moment when nothing has changed.
#   make chat ARGS="--model NAME"      PYTHON=python3.12 make test      CMAKE_ARGS=-DGGML_CUDA=ON make chat
.DEFAULT_GOAL := help
.PHONY: help setup chat test test-fast test-slow check format bench guide docs lock clean distclean

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## create or update .venv from the locks
	@sh scripts/setup.sh

chat: setup ## chat with the built-in model
	@.venv/bin/localllm chat $(ARGS)

# A test process for each core, up to four; one that is done takes over what another has still before it.
PYTEST = .venv/bin/pytest -n logical --maxprocesses 4 --dist worksteal

test: setup ## the test suite, all but the tests that take minutes (ARGS="-n 0" for one at a time)
	$(PYTEST) -m "not long" $(ARGS)

test-fast: setup ## the tests that take less than about 20 seconds each
	$(PYTEST) -m "not slow and not long" $(ARGS)

test-slow: setup ## only those that take longer
	$(PYTEST) -m "slow or long" $(ARGS)

check: setup ## style, types and layers
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: setup ## let ruff mend what it can
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: setup ## measure: cold start, then every scripts/bench*.py
	.venv/bin/python scripts/cold_start.py
	@set -e; for script in $(wildcard scripts/bench*.py); do echo ".venv/bin/python $$script"; .venv/bin/python "$$script"; done

guide: setup ## train the built-in model again in build/guide, and measure it; needs PyTorch, takes hours
	@.venv/bin/python -c "import torch" 2>/dev/null || { echo "It needs PyTorch: .venv/bin/pip install torch==2.13.0"; exit 1; }
	.venv/bin/python scripts/train_guide.py --out build/guide --resume
	cd scripts && ../.venv/bin/python -m guide.measure ../build/guide/guide.gguf --corpus ../build/guide/corpus.json --plain ../build/guide/guide-f16.gguf $(ARGS)
	.venv/bin/python scripts/handbook_answers.py --model build/guide/guide.gguf --set blind --questions 0

docs: setup ## the handbook as pages, in build/docs
	.venv/bin/python scripts/make_docs.py

lock: ## resolve the dependencies again (ARGS=--upgrade for the newest); needs uv
	sh scripts/lock.sh $(ARGS)

clean: ## remove what tools and builds leave behind
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache snapshot_report.html
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +

distclean: clean ## and the environment too
	rm -rf .venv
