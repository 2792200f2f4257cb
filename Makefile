# kerve: every command a person needs. `make help` prints the lines that begin with two hashes.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv where it is installed; otherwise in an environment of its own, by pip
UV := $(shell command -v uv 2>/dev/null || echo .venv-uv/bin/uv)
READY := $(VENV)/.ready
# the native transport, where cargo is; kerve serves over grpcio without it
CARGO := $(shell command -v cargo 2>/dev/null)
WIRE := runtime/wire
WIRE_READY := $(VENV)/.wire
WIRE_SOURCES := $(shell find $(WIRE) -name target -prune -o -name '*.rs' -print -o -name '*.toml' -print -o -name '*.lock' -print)

export TF_CPP_MIN_LOG_LEVEL ?= 3
# uv trusts whom the machine trusts, as pip does: a company's own certificates, for one
export UV_SYSTEM_CERTS ?= 1

## help: print this list
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## setup: prepare .venv with the locked dependencies, kerve itself and, where cargo is, the wire
setup: $(READY) $(WIRE_READY)

$(READY): requirements/dev.txt pyproject.toml | $(UV)
	@[ -x $(BIN)/python ] || $(UV) venv --quiet --python '>=3.11,<3.14' $(VENV)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(WIRE_READY): $(READY) $(WIRE_SOURCES)
ifeq ($(CARGO),)
	@echo "cargo is not installed: the native transport is left out, and kerve serves over grpcio"
else
	PATH="$(abspath $(dir $(UV))):$$PATH" VIRTUAL_ENV=$(abspath $(VENV)) \
		$(BIN)/maturin develop --uv --quiet --release --locked --manifest-path $(WIRE)/Cargo.toml
endif
	@touch $@

.venv-uv/bin/uv:
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/pip install --quiet uv

## demo: train, compile, serve and compare a small CNN on scikit-learn's digits
demo: setup
	rm -rf demo
	$(BIN)/python examples/demo.py demo

## examples: run every workflow in examples/, each from training to serving, and the code of the guides
examples: setup
	@for example in $$(grep -l 'start(main)' examples/*.py); do \
		printf '\n%s\n' "$$example"; $(BIN)/python "$$example" || exit 1; \
	done
	$(BIN)/python -m pytest docs

# how many processes share the tests; each takes about 2 GB
WORKERS := 2
## test: run every test
test: setup
ifneq ($(CARGO),)
	cargo test --quiet --locked --manifest-path $(WIRE)/Cargo.toml
endif
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

## test-applications: every architecture of keras.applications, of which `make test` takes one of each family
test-applications: setup
	$(BIN)/python -m pytest -m 'applications or not applications' tests/compiler/lowering/test_applications.py

## test-serve: the runtime's tests in an environment without TensorFlow and Keras
test-serve: .venv-serve/.ready
	.venv-serve/bin/python -m pytest tests/runtime tests/proto tests/cli

.venv-serve/.ready: requirements/serve.txt pyproject.toml | $(UV)
	@[ -x .venv-serve/bin/python ] || $(UV) venv --quiet --python '>=3.11,<3.14' .venv-serve
	$(UV) pip sync --quiet --python .venv-serve/bin/python --require-hashes requirements/serve.txt
	$(UV) pip install --quiet --python .venv-serve/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

## lint: formatting, lint rules and types of sources and tests
lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
ifneq ($(CARGO),)
	cargo fmt --check --manifest-path $(WIRE)/Cargo.toml
	cargo clippy --quiet --locked --all-features --all-targets --manifest-path $(WIRE)/Cargo.toml -- -D warnings
endif

## format: rewrite the sources in the house's format
format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## reference: write the pages of docs/ that tables in the code make
reference: setup
	PYTHONPATH=docs $(BIN)/python -m writers

## docs: build the documentation into build/docs; a warning or a link to nothing is an error
docs: | $(UV)
	$(UV) run --quiet --isolated --no-project --with-requirements requirements/docs.txt \
		sphinx-build -a -W --keep-going -n -q docs build/docs

## proto: write the Python stubs of proto/, and the pages of docs/ that describe it, again
proto: | $(UV)
	PYTHONPATH=docs $(UV) run --quiet --isolated --no-project --with-requirements requirements/proto.txt python proto/generate.py

## proto-check: fail when the committed stubs and pages are not what proto/ gives
proto-check: | $(UV)
	PYTHONPATH=docs $(UV) run --quiet --isolated --no-project --with-requirements requirements/proto.txt python proto/generate.py --check

## check: everything that continuous integration runs
check: lint proto-check docs test

## lock: choose new versions of the dependencies and write requirements/*.txt (UPGRADE= keeps those there are)
UPGRADE := --upgrade
LOCK = $(UV) pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
lock: | $(UV)
	$(LOCK) pyproject.toml requirements/dev.in --extra compile-cpu --extra serve --extra otel --extra data --group build --group lint \
		--group test --group demo --overrides requirements/overrides.txt -o requirements/dev.txt
	$(LOCK) pyproject.toml --extra serve --extra otel --extra data --group build --group test -o requirements/serve.txt
	$(LOCK) --group proto -o requirements/proto.txt
	$(LOCK) --group docs -o requirements/docs.txt

## wheel: build kerve's wheel (and the wire's, where cargo is) into dist/
wheel: setup
	$(UV) build --quiet --wheel --out-dir dist .
ifneq ($(CARGO),)
	$(BIN)/maturin build --quiet --release --locked --out dist --manifest-path $(WIRE)/Cargo.toml
endif

## clean: remove what the other commands made
clean:
	rm -rf $(VENV) .venv-serve .venv-uv build dist demo .mypy_cache .pytest_cache .ruff_cache .hypothesis

.PHONY: help setup demo examples test test-applications test-serve lint format reference docs proto proto-check check lock wheel clean
