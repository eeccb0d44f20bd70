# Two commands on a fresh machine: `make demo` and `make test`. `make help` lists the rest.
PYTHON  ?= $(shell command -v python3.11 || command -v python3)
VENV    := .venv
BIN     := $(VENV)/bin
RUNTIME := $(VENV)/.installed
DEV     := $(VENV)/.installed-dev
PAGE    := $(VENV)/.installed-page
FUZZ    := $(VENV)/.installed-fuzz
EXAMPLES ?= 100
JS      := build/js/.installed
DEMO    := build/demo
PROMPT  ?= Good morrow, friend. What news from the court?
SOURCES := convert quantize runtime tests bench

.PHONY: help demo test lint format types pytest soak fuzz fuzz-api page-test page-pictures js-test bench clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 15

demo: $(DEMO)/bard-Q8_0.gguf  ## convert and quantize examples/bard, and print its answer to PROMPT
	$(BIN)/ingle run $< "$(PROMPT)" --temp 0 --max-tokens 64 < /dev/null

test: lint types pytest  ## everything a change must pass

lint: $(DEV)  ## ruff: rules and formatting
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: $(DEV)  ## mend what ruff can mend
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: $(DEV)  ## mypy --strict
	$(BIN)/mypy
	$(BIN)/mypy bench

pytest: $(DEV)  ## the tests alone
	$(BIN)/python -m pytest

soak: $(DEV)  ## the long tests: kills at random moments, hours in minutes
	$(BIN)/python -m pytest -m soak

fuzz: $(DEV)  ## the property tests with other examples each time
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=search

fuzz-api: $(FUZZ) $(DEMO)/bard-Q8_0.gguf  ## schemathesis over the server's OpenAPI: EXAMPLES=500 of each route
	$(BIN)/python tests/fuzz_api.py $(DEMO)/bard-Q8_0.gguf $(EXAMPLES)

page-test: $(PAGE)  ## the chat page in headless Chromium, which must be here (Debian: apt install chromium)
	$(BIN)/python -m pytest -m browser

page-pictures: $(PAGE) $(DEMO)/bard-Q8_0.gguf  ## the pictures of docs/page.md anew
	PYTHONPATH=tests $(BIN)/python tests/page_pictures.py $(DEMO)/bard-Q8_0.gguf

js-test: $(DEV) $(JS)  ## the JavaScript clients of OpenAI and Ollama; needs Node.js 20 and npm
	$(BIN)/python -m pytest -m node

bench: $(DEV)  ## speed beside llama-bench and llama-server: see docs/benchmarks.md
	$(BIN)/python -m bench.speed $(BENCH)

clean:  ## remove what was built here (models kept by ingle stay)
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(DEMO)/bard.gguf: $(wildcard examples/bard/*) | $(RUNTIME)
	$(BIN)/ingle convert examples/bard -o $@

$(DEMO)/bard-Q8_0.gguf: $(DEMO)/bard.gguf
	$(BIN)/ingle quantize $< -t Q8_0 -o $@

# llama-cpp-python is compiled for this machine (minutes, once: pip keeps the wheel). It needs a C++ compiler;
# cmake and ninja come as wheels where the system has none. GCC drops most of the tile configuration that llama.cpp
# hands to CPUs with AMX, as a dead store: without these flags its kernels crash there. A wheel that pip kept from an
# earlier build without them is found out and compiled again.
GCC_FLAGS := $(if $(shell $(CXX) --version 2>/dev/null | grep -i 'free software'),-fno-tree-dse -fno-dse)
PROVE_AMX := from ingle.runtime.llama.kernels import extra_buffers_work as works; raise SystemExit(not works())
$(RUNTIME): export CXXFLAGS += $(GCC_FLAGS)

$(RUNTIME): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ingle needs Python 3.11 or newer: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -e .
	$(BIN)/python -c '$(PROVE_AMX)' || { \
	  $(BIN)/python -m pip cache remove llama_cpp_python; \
	  $(BIN)/python -m pip install --force-reinstall --no-deps 'llama-cpp-python>=0.3.36'; }
	@touch $@

$(DEV): $(RUNTIME)
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $@

$(PAGE): $(DEV)
	$(BIN)/python -m pip install -e '.[dev,page]'
	@touch $@

$(FUZZ): $(DEV)
	$(BIN)/python -m pip install -e '.[dev,fuzz]'
	@touch $@

$(JS): tests/js/package.json
	mkdir -p $(@D) && cp $< $(@D)
	npm install --prefix $(@D) --ignore-scripts --no-audit --no-fund
	@touch $@
