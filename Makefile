# From a fresh clone, with Python >= 3.10, a C compiler, Java >= 17 and Maven:
#
#   make demo    build kprod, send a data set to an embedded cluster, read it back, report
#   make test    all tests, real Apache Kafka included (fetched once into .kafka/)
#
#   make build      sdist and wheel into dist/     make bench   benchmarks
#   make docs       the documentation, into build/site; a warning is an error
#   make look       the same, and every page looked at in Chromium or Chrome, light and dark
#   make lint       ruff and mypy                  make clean   remove everything that was made
#   make sanitize   unit and mock tests with AddressSanitizer and UndefinedBehaviorSanitizer
#   make fuzz       ten million executions of every parser under the same; ARGS="--executions 1000 produce"
#   make races      threads that give way at the worst moments: mock tests, then everything at once; ARGS="--seconds 600"
#   make tsan       the same under ThreadSanitizer
#   make aarch64    the tests of wheels on an emulated ARM processor     make windows   under Wine; both need more of Debian
#   make leaks      a million records, with connects and errors: LeakSanitizer's verdict, and does memory grow
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
.PHONY: aarch64 windows help demo test build bench docs look lint clean kafka develop sanitize fuzz leaks races tsan constraints

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

# kprod is installed because the reference takes docstrings from the compiled modules.
docs: $(STAMPS)/kprod $(STAMPS)/docs
	$(BIN)/python tools/draw_mermaid.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)
	$(BIN)/python tools/check_site.py build/site

look: docs $(STAMPS)/docs-browser
	$(BIN)/python tools/look_at_site.py build/site

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

# The sanitized build is apart from the usual one. The interpreter is not sanitized: the runtime is loaded before it, and
# Python's own allocator is switched off, so that every object is seen. Only `leaks` looks for leaks.
SANITIZED := build/sanitize
RUNTIMES = $(shell $(CC) -print-file-name=libasan.so) $(shell $(CC) -print-file-name=libubsan.so)
UNDER_SANITIZERS = KPROD_SANITIZE=1 PYTHONPATH=$(SANITIZED)/lib PYTHONMALLOC=malloc LD_PRELOAD="$(RUNTIMES)" \
    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    LSAN_OPTIONS=suppressions=tests/fuzz/leaks.supp:print_suppressions=0

$(SANITIZED)/built: $(STAMPS)/tools $(NATIVE) $(wildcard src/kprod/*.py src/kprod/*/*.py src/kprod/*/*/*.py)
	KPROD_SANITIZE=1 $(BIN)/python setup.py --quiet build --build-temp $(SANITIZED)/temp --build-lib $(SANITIZED)/lib
	@touch $@

# Left out: what builds packages, what sets child processes a time limit that they cannot keep here, and gevent, whose
# greenlets copy whole stacks, with the gaps that AddressSanitizer has put between variables.
sanitize: $(SANITIZED)/built $(STAMPS)/kprod $(STAMPS)/test
	$(UNDER_SANITIZERS) ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 $(BIN)/python -m pytest @tests/fuzz/sanitize.args $(ARGS)

fuzz: $(SANITIZED)/built $(STAMPS)/kprod $(STAMPS)/test
	$(UNDER_SANITIZERS) ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 $(BIN)/python -m tests.fuzz.run $(ARGS)

leaks: $(SANITIZED)/built $(STAMPS)/kprod $(STAMPS)/test
	$(UNDER_SANITIZERS) ASAN_OPTIONS=detect_leaks=1:fast_unwind_on_malloc=0 $(BIN)/python -m tests.fuzz.leaks $(ARGS)
	$(BIN)/python -m tests.fuzz.leaks $(ARGS)

# Preloaded, it makes threads give way after an unlock or before a lock (tests/fuzz/preempt.c), of which it sees those of
# the C library: the build is one that has no others. ARGS are the driver's.
RACES := build/races
PREEMPT := $(RACES)/preempt.so
UNDER_PREEMPTION = PYTHONPATH=$(RACES)/lib LD_PRELOAD=$(PREEMPT)
RACED := tests/mock/test_producer_send.py tests/mock/test_producer_send_many.py tests/mock/test_producer_futures.py \
    tests/mock/test_producer_callback_order.py tests/mock/test_producer_callback_references.py \
    tests/mock/test_producer_close.py tests/mock/test_producer_gapless.py tests/unit/test_sticky_lanes.py

$(PREEMPT): tests/fuzz/preempt.c
	@mkdir -p $(@D)
	$(CC) -O2 -Wall -Wextra -shared -fPIC -o $@ $< -ldl

$(RACES)/built: $(STAMPS)/tools $(NATIVE) $(wildcard src/kprod/*.py src/kprod/*/*.py src/kprod/*/*/*.py)
	KPROD_LATCHES=mutex $(BIN)/python setup.py --quiet build --build-temp $(RACES)/temp --build-lib $(RACES)/lib
	@touch $@

races: $(PREEMPT) $(RACES)/built $(STAMPS)/kprod $(STAMPS)/test
	$(UNDER_PREEMPTION) $(BIN)/python -m pytest -p no:cacheprovider --timeout=600 $(RACED)
	$(UNDER_PREEMPTION) $(BIN)/python -m tests.fuzz.races $(ARGS)

aarch64 windows: $(STAMPS)/kprod
	tools/on_$@.sh $(ARGS)

# The interpreter is not instrumented: TSan sees its locks, and the core's memory.
TSAN := build/tsan
UNDER_TSAN = KPROD_SANITIZE=thread PYTHONPATH=$(TSAN)/lib PYTHONMALLOC=malloc \
    LD_PRELOAD=$(shell $(CC) -print-file-name=libtsan.so) \
    TSAN_OPTIONS=ignore_noninstrumented_modules=1:history_size=4:exitcode=66:suppressions=tests/fuzz/races.supp

$(TSAN)/built: $(STAMPS)/tools $(NATIVE) $(wildcard src/kprod/*.py src/kprod/*/*.py src/kprod/*/*/*.py)
	KPROD_SANITIZE=thread $(BIN)/python setup.py --quiet build --build-temp $(TSAN)/temp --build-lib $(TSAN)/lib
	@touch $@

tsan: $(TSAN)/built $(STAMPS)/kprod $(STAMPS)/test
	$(UNDER_TSAN) $(BIN)/python -m tests.fuzz.races $(ARGS)
	$(UNDER_TSAN) $(BIN)/python -m pytest -p no:cacheprovider --timeout=600 $(RACED)

# Pins the tools that make a release, by hash.
constraints: $(STAMPS)/tools
	$(PIP) install uv
	for name in build:3.10 release:3.11; do \
	    file=tools/constraints/$${name%%:*}; \
	    $(BIN)/uv pip compile --quiet --upgrade --universal --python-version $${name##*:} --generate-hashes --no-header \
	        --no-annotate --no-emit-index-url $$file.in --output-file $$file.pinned && \
	    { echo "# Written by \`make constraints\` from $${file##*/}.in."; cat $$file.pinned; } > $$file.txt; \
	    rm -f $$file.pinned; \
	done

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

$(STAMPS)/test $(STAMPS)/bench $(STAMPS)/docs $(STAMPS)/docs-browser $(STAMPS)/lint: $(STAMPS)/$(PYTHON_VERSION) pyproject.toml
	$(PIP) install --group $(@F)
	@touch $@
