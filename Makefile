# Shortcuts; scripts/ does the work. Tests of the tunnel itself need root: sudo make test
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:

.PHONY: build test lint check docker clean

build: ## a wheel in dist/
	. scripts/bootstrap test
	python -m pip wheel --quiet --no-deps --wheel-dir dist .

lint: ## style and types
	. scripts/bootstrap test
	ruff check .
	ruff format --check .
	mypy

check: lint ## lint, and the tests that need no root
	. scripts/bootstrap test
	pytest -m "not root" -n auto

test: ## everything, as CI runs it
	./scripts/test

docker: ## the images exit, client and lab (compose.yaml), with podman or docker
	./scripts/images

clean: ## what tools leave behind; .venv stays
	rm -rf build dist .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
