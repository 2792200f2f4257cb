# The development commands of kerve. `make help` prints the lines that begin with two hashes.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv if it is installed; otherwise installed by pip into its own environment
UV := $(shell command -v uv 2>/dev/null || echo .venv-uv/bin/uv)
READY := $(VENV)/.ready
# the native transport, if cargo is installed; without it kerve serves over grpcio
CARGO := $(shell command -v cargo 2>/dev/null)
WIRE := runtime/wire
WIRE_READY := $(VENV)/.wire
WIRE_SOURCES := $(shell find $(WIRE) -name target -prune -o -name '*.rs' -print -o -name '*.toml' -print -o -name '*.lock' -print)

# TensorFlow's warnings and errors, but not its informational messages
export TF_CPP_MIN_LOG_LEVEL ?= 1
# uv uses the machine's certificate store, as pip does, for example for a company's own certificates
export UV_SYSTEM_CERTS ?= 1
# TensorFlow has thousands of modules: compile them to bytecode once, at installation, as pip does. Python images
# often set PYTHONDONTWRITEBYTECODE, and then every process would compile them again.
export UV_COMPILE_BYTECODE ?= 1
unexport PYTHONDONTWRITEBYTECODE

## help: print this list
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## setup: prepare .venv with the locked dependencies, kerve and, if cargo is installed, the native transport
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

# folder of the targets train, compile, serve and evaluate: model, rows, repository
JOURNEY ?= build/journey
## train: train a small CNN on scikit-learn's digits, in build/journey (JOURNEY=FOLDER)
train: setup
	$(BIN)/python examples/train_digits.py $(JOURNEY)

$(JOURNEY)/digits.keras:
	$(MAKE) train

## compile: compile that model into the repository build/journey/models, as the next version
compile: setup $(JOURNEY)/digits.keras
	$(BIN)/kerve compile $(JOURNEY)/digits.keras --repository $(JOURNEY)/models --name digits

$(JOURNEY)/models:
	$(MAKE) compile

## serve: serve that repository until interrupted
serve: setup $(JOURNEY)/models
	$(BIN)/kerve serve --repository $(JOURNEY)/models

## evaluate: evaluate the model served by `make serve` on the held-out rows
evaluate: setup $(JOURNEY)/digits.keras
	$(BIN)/kerve evaluate digits --data $(JOURNEY)/test.npz

## bench: measure its throughput and latency
bench: setup
	$(BIN)/kerve bench digits

## examples: run every workflow in examples/, from training to serving, and the code of the guides
examples: setup
	$(BIN)/python examples
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal docs

# number of parallel test processes; each takes about 2 GB
WORKERS := 2
## test: run every test
test: setup
ifneq ($(CARGO),)
	cargo test --quiet --locked --manifest-path $(WIRE)/Cargo.toml
endif
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

## test-applications: compile every architecture of keras.applications (`make test` covers one of each family)
test-applications: setup
	$(BIN)/python -m pytest -m 'applications or not applications' tests/compiler/lowering/test_applications.py

## test-serve: run the runtime's tests in an environment without TensorFlow and Keras
test-serve: .venv-serve/.ready
	.venv-serve/bin/python -m pytest --numprocesses $(WORKERS) --dist worksteal tests/runtime tests/proto tests/cli

## test-gpu: run the GPU tests with ONNX Runtime's CUDA build; without a GPU, on a stub of one
test-gpu: .venv-serve-gpu/.ready
	.venv-serve-gpu/bin/python -m pytest --numprocesses $(WORKERS) --dist worksteal \
		tests/runtime/devices tests/runtime/evaluation/test_on_device.py tests/runtime/commands/test_doctor.py

.venv-%/.ready: requirements/%.txt pyproject.toml | $(UV)
	@[ -x .venv-$*/bin/python ] || $(UV) venv --quiet --python '>=3.11,<3.14' .venv-$*
	$(UV) pip sync --quiet --python .venv-$*/bin/python --require-hashes requirements/$*.txt
	$(UV) pip install --quiet --python .venv-$*/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

## lint: check formatting, lint rules and types of sources and tests
lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
ifneq ($(CARGO),)
	cargo fmt --check --manifest-path $(WIRE)/Cargo.toml
	cargo clippy --quiet --locked --all-features --all-targets --manifest-path $(WIRE)/Cargo.toml -- -D warnings
endif

## format: format the sources
format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## fuzz-python: fuzz each decoder of the runtime with atheris for MINUTES (1)
MINUTES := 1
DECODERS := tests/runtime/decoders
fuzz-python: setup | $(UV)
	$(UV) pip install --quiet --python $(BIN)/python --target build/atheris atheris
	for name in $$(ls $(DECODERS)/corpus); do \
		mkdir -p build/fuzz/$$name && PYTHONPATH=build/atheris $(BIN)/python $(DECODERS)/fuzz.py $$name \
			-max_total_time=$$(( $(MINUTES) * 60 )) -max_len=8192 -artifact_prefix=build/fuzz/$$name- \
			build/fuzz/$$name $(DECODERS)/corpus/$$name || exit 1; \
	done

## reference: regenerate the pages of docs/ that are generated from the code
reference: setup
	PYTHONPATH=docs $(BIN)/python -m writers

## docs: build the documentation into build/docs; warnings and broken links are errors
docs: | $(UV)
	$(UV) run --quiet --isolated --no-project --with-requirements requirements/docs.txt \
		sphinx-build -a -W --keep-going -n -q docs build/docs

## proto: regenerate the Python stubs of proto/ and the pages of docs/ that describe it
proto: | $(UV)
	PYTHONPATH=docs $(UV) run --quiet --isolated --no-project --with-requirements requirements/proto.txt python proto/generate.py

## proto-check: fail if the committed stubs or pages differ from what proto/ generates
proto-check: | $(UV)
	PYTHONPATH=docs $(UV) run --quiet --isolated --no-project --with-requirements requirements/proto.txt python proto/generate.py --check

## check: run everything that continuous integration runs
check: lint proto-check docs test

## lock: update the locked dependencies in requirements/*.txt (UPGRADE= keeps the present versions)
UPGRADE := --upgrade
LOCK = $(UV) pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
lock: | $(UV)
	$(LOCK) pyproject.toml requirements/dev.in --extra compile-cpu --extra serve --extra otel --extra data --extra ray --group build --group lint \
		--group test --group demo --overrides requirements/overrides.txt -o requirements/dev.txt
	$(LOCK) pyproject.toml --extra serve --extra otel --extra data --group build --group test -o requirements/serve.txt
	$(LOCK) pyproject.toml --extra serve-gpu --extra otel --extra data --group build --group test --group test-gpu \
		--constraints requirements/serve.txt -o requirements/serve-gpu.txt
	$(LOCK) --group proto -o requirements/proto.txt
	$(LOCK) --group docs -o requirements/docs.txt
	$(LOCK) --group build -o requirements/build.txt
	$(LOCK) --group deploy -o requirements/deploy.txt
	$(LOCK) pyproject.toml --extra serve --extra otel --constraints requirements/serve.txt -o requirements/image-serve.txt
	$(LOCK) pyproject.toml --extra serve-gpu --extra otel --constraints requirements/serve.txt -o requirements/image-serve-gpu.txt

## wheel: build kerve's wheel (and, if cargo is installed, that of the native transport) into dist/
wheel: setup
	rm -rf dist
	$(UV) build --quiet --wheel --out-dir dist .
ifneq ($(CARGO),)
	$(BIN)/maturin build --quiet --release --locked --out dist --manifest-path $(WIRE)/Cargo.toml
endif

# EXTRA=serve-gpu for ONNX Runtime's CUDA build
EXTRA := serve
IMAGE := kerve:$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)$(EXTRA:serve%=%)
## image: build the image kerve:VERSION with docker (EXTRA=serve-gpu for kerve:VERSION-gpu)
image:
	docker build --file deploy/Dockerfile --build-arg EXTRA=$(EXTRA) --tag $(IMAGE) .

# size limit of the image's own layers, which hold little besides the installed packages
MOST_BYTES := 250000000
## image-size: install the image's packages into build/image, without docker, and check their size
image-size: wheel
	rm -rf build/image
	$(UV) pip install --quiet --python $(BIN)/python --target build/image --compile-bytecode \
		--require-hashes -r requirements/image-$(EXTRA).txt
	$(UV) pip install --quiet --python $(BIN)/python --target build/image --compile-bytecode --no-deps dist/*.whl
	@# only the packages installed there are importable, so a missing one is noticed
	$(BIN)/python -I -S -c 'import sys; sys.path.insert(0, "build/image"); import kerve.cli; kerve.cli.main()' \
		serve --help >/dev/null
	@bytes=$$(du --bytes --summarize build/image | cut -f1); \
		echo "the image's own layers: $$bytes bytes, of $(MOST_BYTES)"; test $$bytes -lt $(MOST_BYTES)

# helm if it is installed; otherwise built from source, if go is installed
HELM := $(or $(shell command -v helm 2>/dev/null),$(if $(shell command -v go 2>/dev/null),.tools/helm))
.tools/helm:
	GOBIN=$(abspath .tools) go install helm.sh/helm/v3/cmd/helm@v3.19.5

## deploy: install the chart on helm's current cluster (VALUES="--set models.claim=models" or VALUES="-f FILE")
VALUES :=
deploy: $(HELM)
	$(or $(HELM),$(error `make deploy` needs helm, or go to build it)) upgrade --install kerve deploy/helm/kerve $(VALUES)

## manifests: regenerate deploy/kubernetes/ from the chart
manifests: $(READY) $(HELM)
	$(BIN)/python deploy/render.py $(or $(HELM),$(error `make manifests` needs helm, or go to build it))

## deploy-check: check Dockerfile, chart, manifests, systemd unit and alerts with their linters
deploy-check: | $(UV) $(HELM)
	PYTHONPATH=deploy PATH="$(abspath .tools):$$PATH" $(UV) run --quiet --isolated --no-project \
		--with-requirements requirements/deploy.txt python -m pytest deploy

# wheels that the GPU machine cannot download: kerve's, and ONNX Runtime's CUDA build
ADD := $(wildcard dist/*.whl)
## gpu-artifacts: compile the models of benchmarks/gpu.py into build/gpu/parts (ADD="FILE ..." adds files)
gpu-artifacts: setup
	$(BIN)/python benchmarks/gpu_artifacts.py build/gpu --add $(ADD)

MINUTES := 30
## soak: apply load and faults for MINUTES=30, at 80 % of capacity; fail on lost or wrong answers and on leaks
soak: setup
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

## clean: remove everything that the other targets created
clean:
	rm -rf $(VENV) .venv-* .tools build dist demo .mypy_cache .pytest_cache .ruff_cache .hypothesis

.PHONY: help setup demo train compile serve evaluate bench examples fuzz-python test test-applications test-serve test-gpu lint format reference docs proto proto-check check lock wheel clean image image-size deploy manifests deploy-check soak gpu-artifacts
