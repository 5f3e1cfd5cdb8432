# make demo: a survey from Kafka messages to a validated catalogue. make test: everything that CI runs.
# Options go into ARGS, as in: make demo ARGS=--exit
SHELL := /bin/bash
.DEFAULT_GOAL := help
UV := $(shell command -v uv 2>/dev/null || echo .boot/bin/uv)
RUN := .venv/bin
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

.PHONY: help env services demo test lint types unit bench soak docs clean

help:
	@grep -hE '^# make |^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^# //; s/:.*## /: /'

.boot/bin/uv:
	python3 -m venv .boot
	.boot/bin/pip install --quiet --disable-pip-version-check uv

.venv/.ready: pyproject.toml uv.lock | $(if $(shell command -v uv),,.boot/bin/uv)
	$(UV) sync --quiet --frozen
	@touch $@

env: .venv/.ready ## the environment, in .venv

services: env ## packages that the services and tests need besides Python's (root)
	@$(RUN)/python -m services.installation chromium

demo: env ## the whole release on embedded defaults
	$(RUN)/drp demo $(ARGS)

lint: env ## style
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

types: env ## types
	$(RUN)/mypy

# A test that fails is tried once more, and the summary names it (RERUN): real servers now and then answer late.
# One of a promise, such as that nothing is lost, is so only where the machine was too slow (tests/promises.py).
test: env services lint types ## everything that CI runs
	$(RUN)/pytest --reruns 1 -n 2 --dist loadgroup -m "not e2e and not slow" $(ARGS)
	$(RUN)/pytest --reruns 1 -n 2 --dist loadgroup -m "e2e or slow" $(ARGS)

unit: env ## what needs no service and no survey
	$(RUN)/pytest -m "not integration and not e2e" $(ARGS)

bench: env ## one benchmark: make bench NAME=overhead
	$(RUN)/python -m benchmarks.$(NAME) $(ARGS)

soak: env services ## one long fault run: make soak NAME=arrivals (exit 1: a promise is broken)
	$(RUN)/python -m benchmarks.soak.$(NAME) $(ARGS)

docs: env ## the documentation, in site/
	$(RUN)/mkdocs build --strict

clean: ## end the services that run here, and remove what was made
	@if [ -d .state/services ] && [ -x $(RUN)/drp ]; then DRP_STATE=.state $(RUN)/drp services down; fi
	rm -rf .venv .boot .state site .pytest_cache .mypy_cache .ruff_cache
