PYTHON ?= python3

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart test lint format

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-zA-Z_.-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.venv: .venv/.stamp  ## Make the environment: this package, editable, with its tools, at the tested versions

# A stamp, because the date of the folder says nothing about what is installed in it.
.venv/.stamp: pyproject.toml constraints.txt | .venv/bin/python
	PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install --quiet -e '.[dev]' -c constraints.txt
	@touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'error: lit_llm needs Python 3.11 or newer; name one with: make PYTHON=python3.11 $(MAKECMDGOALS)' >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv

quickstart: .venv  ## Train, and see text, in minutes
	.venv/bin/lit-llm fit --config configs/pretrain.yaml
	@echo; echo "three samples:"
	.venv/bin/lit-llm generate --checkpoint logs/pretrain --prompt "def get" --top_k 50 --num_samples 3 --seed 1
	@echo; echo "to see the curves and the samples as they grew: .venv/bin/tensorboard --logdir logs"

test: .venv  ## Run the default test suite
	.venv/bin/python -m pytest

lint: .venv  ## Check style, format and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv  ## Rewrite the code to the style
	.venv/bin/ruff check --fix-only --quiet .
	.venv/bin/ruff format .
