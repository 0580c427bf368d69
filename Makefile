# Every target sets up what it needs in .venv and does nothing twice: each step leaves a stamp file there, and
# runs again only when something it read is newer. `make help` lists the targets.
#
# An interpreter that is named has an environment of its own: `make test PYTHON=python3.13` works in .venv-3.13. Extensions
# and object files have the version in their names, so builds of several versions stand side by side.
PYTHON ?= python3
FUZZ_SECONDS ?= 30
FUZZ_CC ?= $(shell for name in clang clang-19 clang-18 clang-17 clang-16 clang-15 clang-14; do command -v $$name && break; done)

TAG = import sys, sysconfig; print("%d.%d" % sys.version_info[:2] + "t" * bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
ifeq ($(origin PYTHON),file)
VENV := .venv
else
VENV := .venv-$(shell $(PYTHON) -c '$(TAG)' 2>/dev/null)
endif
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
# What pip, setuptools and Cython print is kept for when they fail; of a success only compiler warnings are shown.
quietly = @mkdir -p build && { $(1) >build/$(@F)$(VENV).log 2>&1 || { cat build/$(@F)$(VENV).log; exit 1; }; } \
  && { grep -A3 'warning: ' build/$(@F)$(VENV).log || true; }
CSRC := $(filter-out gobanfast/csrc/bpf/%,$(wildcard gobanfast/csrc/*/*.c))
BPF := gobanfast/csrc/bpf/gbf_xdp.bpf.c
HEADERS := $(wildcard gobanfast/csrc/*/*.h)
GLUE := $(wildcard gobanfast/_core/*.pyx gobanfast/_core/*.pxd gobanfast/_core/native/*.pxd)
STUBS := $(wildcard gobanfast/_core/*.pyi)
FUZZERS := $(wildcard tests/fuzz/*.c)
FUZZ_HEADERS := $(wildcard tests/fuzz/*.h)
RACERS := $(wildcard tests/race/*.c)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: demo test test-ft spark lint format bench fuzz race bpf wheel clean help

help:
	@echo 'make demo    decide the bundled access log, then live requests, with the bundled rules'
	@echo 'make test    build in place, run the tests; ARGS="-k prefix" goes to pytest'
	@echo 'make test-ft builds and tests without the GIL; FT_PYTHON=python3.13t'
	@echo 'make lint    ruff, mypy, stubtest, import-linter, cython-lint, clang-format, codespell, C warnings'
	@echo 'make format  rewrite Python and C as lint wants them'
	@echo 'make bench   run the benchmarks, record them; ARGS="prefix --rounds 3"; GOBANFAST_DATA=DIR adds real tables'
	@echo 'make fuzz    libFuzzer + ASan + UBSan on the C kernels (clang), FUZZ_SECONDS=30 for each target'
	@echo 'make race    threads that read and write live state, under TSan (clang)'
	@echo 'make bpf     compile the XDP program into the object that is shipped (clang)'
	@echo 'make wheel   sdist and checked wheels into wheels/dist; ARGS="--only cp311 --targets manylinux_x86_64"'
	@echo 'make clean   remove all that make made, .venv included'
	@echo 'PYTHON=python3.13 works with that interpreter, in .venv-3.13; CC=clang chooses the compiler'

# ---- what the machine must have, said before anything fails half-way

define MACHINE_CHECK
import os, shutil, sys, sysconfig
missing = []
compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
if shutil.which(compiler) is None:
    missing.append("C compiler %r is not on PATH; install gcc (Debian: apt-get install gcc libc6-dev) or set CC" % compiler)
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    missing.append("Python.h is not in %s; install the Python headers (Debian: apt-get install python3-dev)" % sysconfig.get_path("include"))
try:
    import ensurepip, venv
except ImportError:
    missing.append("module venv or ensurepip is missing; install it (Debian: apt-get install python3-venv)")
sys.exit("\n".join("gobanfast: " + line for line in missing) or None)
endef
export MACHINE_CHECK

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || { echo 'gobanfast: $(PYTHON) is not on PATH; name one: make PYTHON=python3.11'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "gobanfast: needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c "$$MACHINE_CHECK"
	@echo 'gobanfast: $(PYTHON) gets the environment $(VENV)'
	$(call quietly,$(PYTHON) -m venv $(VENV))
	$(call quietly,$(PIP) --upgrade 'pip>=25.1')   # the first that knows --group
	@touch $@

# ---- stamps: dependency groups of pyproject.toml, the extensions, the package itself

$(VENV)/.group-%: pyproject.toml $(VENV)/.python
	@echo 'gobanfast: installing what the group "$*" of pyproject.toml names'
	$(call quietly,$(PIP) --group $*)
	@touch $@

# The editable install makes the first build; later ones compile only what changed. Time stamps of sources do not show
# other compiler flags or directives: when the lines of setup.py that have them differ, all is built anew.
$(VENV)/.installed: pyproject.toml $(VENV)/.group-build
	@echo 'gobanfast: compiling $(words $(wildcard gobanfast/_core/*.pyx)) extensions, about 2 minutes on 2 cores'
	$(call quietly,$(PIP) --no-build-isolation --editable '.[cli]')
	@touch $@

FLAGS := $(shell sed -n '/^CFLAGS = \[/,/^\]/p; /FLAGS\.\|DIRECTIVES\|SIGNATURES/p' setup.py | cksum | tr -d ' ')
FORCED = $(filter-out $(FLAGS),$(file <$(VENV)/.flags))
$(VENV)/.built: $(VENV)/.installed setup.py $(GLUE) $(CSRC) $(HEADERS)
	$(call quietly,$(if $(FORCED),CYTHON_FORCE_REGEN=1) $(BIN)/python setup.py --quiet build_ext --inplace $(if $(FORCED),--force))
	@echo $(FLAGS) >$(VENV)/.flags
	@touch $@

READY := $(VENV)/.built

# ---- targets

demo: $(READY)
	$(BIN)/gobanfast scan gobanfast/demo/access.log.gz --rules gobanfast/demo/rules.yaml
	$(BIN)/python -m gobanfast.demo

test: $(READY) $(VENV)/.group-test
	$(BIN)/python -m pytest $(ARGS)

# Spark in a session of its own: 500 MB of wheel, a JRE, and a minute to start. 180 s are its budget.
spark: $(READY) $(VENV)/.group-test $(VENV)/.group-spark
	GOBANFAST_SPARK=1 timeout 180 $(BIN)/python -m pytest tests/spark $(ARGS)

# pyre2, which the rules import, and this rival of ours both are module re2
build/rivals: $(VENV)/.group-bench
	$(BIN)/python -m pip install --quiet --no-deps --target $@ google-re2==1.1.20251105

# A build without the GIL has no RE2 to install, so it runs the tests that need none.
FT_PYTHON ?= python3.13t
FT_TESTS := ban_feed ban_table ban_threads trackers score prefix set
test-ft:
	@command -v $(FT_PYTHON) >/dev/null || { echo 'gobanfast: $(FT_PYTHON) is not on PATH; name one: make test-ft FT_PYTHON=PATH'; exit 1; }
	$(FT_PYTHON) -m venv .venv-ft
	.venv-ft/bin/python -m pip install --quiet --only-binary=:all: 'setuptools>=77' 'cython>=3.3,<3.4' pytest hypothesis idna netaddr numpy xxhash
	.venv-ft/bin/python setup.py --quiet build_ext --inplace
	PYTHON_GIL=0 .venv-ft/bin/python -m pytest $(FT_TESTS:%=tests/core/test_%.py) $(ARGS)

bench: $(READY) $(VENV)/.group-bench build/rivals
	$(BIN)/python -m benchmarks.build_floor
	$(BIN)/python -m benchmarks.run $(ARGS)

wheel: $(VENV)/.group-wheels
	$(BIN)/python wheels/build.py $(ARGS)
	@$(BIN)/python wheels/check_wheel.py wheels/dist/*.whl

C_WARNINGS := -std=c11 -O2 -Wall -Wextra -Wconversion -Wsign-compare -Werror -Igobanfast/csrc
C_COMPILERS := $(shell command -v gcc 2>/dev/null) $(FUZZ_CC)

format: $(VENV)/.group-lint
	-$(BIN)/ruff check --quiet --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CSRC) $(BPF) $(HEADERS) $(FUZZERS) $(FUZZ_HEADERS) $(RACERS)

lint: export PATH := $(CURDIR)/$(BIN):$(PATH)
lint: $(READY) $(VENV)/.group-test $(VENV)/.group-lint
	ruff check .
	ruff format --check .
	codespell
	mypy
	python -m mypy.stubtest --concise --mypy-config-file pyproject.toml --ignore-disjoint-bases --ignore-unused-allowlist \
	  --allowlist tests/stubtest-allowlist.txt $(subst /,.,$(STUBS:.pyi=))
	lint-imports --no-cache
	cython-lint gobanfast
	clang-format --dry-run -Werror $(CSRC) $(BPF) $(HEADERS) $(FUZZERS) $(FUZZ_HEADERS) $(RACERS)
	@for compiler in $(C_COMPILERS); do for source in $(CSRC); do \
	  echo "$$compiler $$source"; $$compiler $(C_WARNINGS) -c $$source -o /dev/null || exit 1; done; done
	@[ -n '$(FUZZ_CC)' ] || echo 'lint: SKIPPED: C warnings of clang (no clang on PATH)'

FUZZ_FLAGS := -std=c11 -g -O1 -Wall -Wextra -Werror -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -Igobanfast/csrc
FUZZ_OBJECTS := $(CSRC:gobanfast/csrc/%.c=build/fuzz/%.o)

build/fuzz/%.o: gobanfast/csrc/%.c $(HEADERS)
	@mkdir -p $(@D)
	@$(FUZZ_CC) $(FUZZ_FLAGS) -c $< -o $@

build/fuzz/%: tests/fuzz/%.c $(FUZZ_HEADERS) $(FUZZ_OBJECTS)
	@$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer $(filter-out %.h,$^) -o $@

ifneq ($(FUZZ_CC),)
fuzz: $(FUZZERS:tests/fuzz/%.c=build/fuzz/%)
	@for target in $^; do \
	  mkdir -p $$target.corpus; \
	  $$target -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$$target- -print_final_stats=1 $$target.corpus >$$target.log 2>&1 \
	    || { cat $$target.log; exit 1; }; \
	  echo "$$target: $$(grep -o 'number_of_executed_units.*' $$target.log), no finding in $(FUZZ_SECONDS) s"; done
else
fuzz:
	@echo 'fuzz: needs clang with libFuzzer; nothing was fuzzed (Debian: apt-get install clang-14 libclang-rt-14-dev; or set FUZZ_CC)'; exit 1
endif

RACE_FLAGS := -std=c11 -g -O1 -Wall -Wextra -Werror -pthread -fsanitize=thread -Igobanfast/csrc

build/race/%: tests/race/%.c $(CSRC) $(HEADERS)
	@mkdir -p $(@D)
	@$(FUZZ_CC) $(RACE_FLAGS) $< $(CSRC) -o $@

ifneq ($(FUZZ_CC),)
race: $(RACERS:tests/race/%.c=build/race/%)
	@for target in $^; do $$target || exit 1; done
else
race:
	@echo 'race: needs clang with TSan; nothing was run (Debian: apt-get install clang-14 libclang-rt-14-dev; or set FUZZ_CC)'; exit 1
endif

# The object is in the tree and in every wheel and sdist, because users have no clang. It says what source it was built of;
# tests/frontends/test_kernel_object.py compares, and builds it again where the same clang is.
BPF_OBJECT := gobanfast/frontends/kernel/gbf_xdp.bpf.o
BPF_FLAGS := -target bpfel -mcpu=v3 -O2 -Wall -Wextra -Werror

ifneq ($(FUZZ_CC),)
bpf:
	$(FUZZ_CC) $(BPF_FLAGS) -DGBF_SOURCE='"'"$$(b2sum <$(BPF) | cut -c-64) $$($(FUZZ_CC) -dumpversion)"'"' -c $(BPF) -o $(BPF_OBJECT)
else
bpf:
	@echo 'bpf: needs clang; nothing was compiled (Debian: apt-get install clang-14; or set FUZZ_CC)'; exit 1
endif

clean:
	rm -rf .venv .venv-* build wheels/dist *.egg-info gobanfast/_core/*.c .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find gobanfast tests benchmarks -name '*.so' -delete -o -name __pycache__ -prune -exec rm -rf {} +
