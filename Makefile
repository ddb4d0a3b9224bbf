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

quickstart: .venv  ## Pretrain, classify, instruct, generate and compare, in minutes
	.venv/bin/lit-llm fit --config configs/pretrain.yaml
	.venv/bin/lit-llm fit --config configs/classify_spam.yaml --data.source sample --model.init_from logs/pretrain
	.venv/bin/lit-llm fit --config configs/instruct_alpaca.yaml --data.source sample --data.template plain --data.block_size 128 \
		--model.init_from logs/pretrain --trainer.max_epochs 15 --trainer.val_check_interval 1.0
	@echo; echo "three samples:"
	.venv/bin/lit-llm generate --checkpoint logs/pretrain --prompt "def get" --top_k 50 --num_samples 3 --seed 1
	@echo; echo "an answer:"
	.venv/bin/lit-llm generate --checkpoint logs/instruct_alpaca --chat true --temperature 0 \
		--prompt "Name three primary colours."
	@echo; echo "a message:"
	.venv/bin/lit-llm classify --checkpoint logs/classify_spam "You have won! Call now to claim your prize"
	@echo
	.venv/bin/lit-llm compare logs/pretrain logs/classify_spam logs/instruct_alpaca --settings false --sort_by name \
		--metrics val/loss,val/bits_per_byte,test/balanced_accuracy,test/f1
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
