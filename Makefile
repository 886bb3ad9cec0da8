# From a fresh clone, with Python >= 3.10, a C compiler, Java >= 17 and Maven:
#
#   make demo    build kprod, send a data set to an embedded cluster, read it back, report
#   make test    all tests, real Apache Kafka included (fetched once into .kafka/)
#
#   make build   sdist and wheel into dist/        make bench   benchmarks
#   make lint    ruff and mypy                     make clean   remove everything that was made
#
# PYTHON=python3.13 chooses the interpreter; ARGS="-k murmur2 -x" goes to pytest, `kprod demo` or bench.suite.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PYTHON_VERSION := $(or $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_config_var("SOABI"))' 2>/dev/null),none)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

CORE := src/kprod/_core
NATIVE := setup.py $(wildcard $(CORE)/*.pyx $(CORE)/*.pxd $(CORE)/*.pxi $(CORE)/csrc/*.c $(CORE)/csrc/*.h)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test build bench lint clean kafka develop

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

demo: $(STAMPS)/kprod
	$(BIN)/kprod demo $(ARGS)

test: $(STAMPS)/kprod $(STAMPS)/test kafka
	$(BIN)/python -m pytest $(ARGS)

build: $(STAMPS)/tools
	rm -rf dist
	$(BIN)/python -m build

bench: $(STAMPS)/kprod $(STAMPS)/bench kafka
	$(BIN)/python -m pytest bench/micro --benchmark-only
	$(BIN)/python -m bench.suite $(ARGS)
	$(BIN)/python -m bench.report

lint: $(STAMPS)/kprod $(STAMPS)/test $(STAMPS)/bench $(STAMPS)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint src # runs pycodestyle from PATH
	$(BIN)/mypy

# Everything that tests need, without running them.
develop: $(STAMPS)/kprod $(STAMPS)/test $(STAMPS)/bench $(STAMPS)/lint kafka

# Without Java or Maven the tests that need real Kafka are skipped; KPROD_REQUIRE_KAFKA=1 makes that an error.
kafka: $(STAMPS)/test
	@if $(BIN)/python tools/check_environment.py kafka; then \
	    $(BIN)/python -m tests.kafka.distribution; \
	elif [ "$$KPROD_REQUIRE_KAFKA" = 1 ]; then exit 1; \
	else echo "=> the tests against real Kafka will be skipped"; fi

clean:
	rm -rf $(VENV) .kafka build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f $(CORE)/*.so $(CORE)/*.pyd $(patsubst %.pyx,%.c,$(wildcard $(CORE)/*.pyx)) $(CORE)/*.html
	find src tests bench tools examples -name __pycache__ -type d -exec rm -rf {} +

# An environment that another Python made is made anew: extension modules of the one do not load in the other.
$(STAMPS)/$(PYTHON_VERSION): tools/check_environment.py
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON) on PATH; choose another with: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) tools/check_environment.py build
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	@mkdir -p $(STAMPS) && touch $@

# Cython and setuptools come from the same group that wheels are built with, but live in the environment:
# without build isolation a changed .pyx rebuilds what depends on it and nothing else.
$(STAMPS)/tools: $(STAMPS)/$(PYTHON_VERSION) pyproject.toml
	$(PIP) install --group build
	@touch $@

$(STAMPS)/kprod: $(STAMPS)/tools $(NATIVE)
	$(PIP) install --no-build-isolation --editable .
	@touch $@

$(STAMPS)/test $(STAMPS)/bench $(STAMPS)/lint: $(STAMPS)/$(PYTHON_VERSION) pyproject.toml
	$(PIP) install --group $(@F)
	@touch $@
