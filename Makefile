# On a fresh machine `make test` alone creates the environment, installs and passes the tests.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS := app,diffusers,ray,dev

# PYTHON=... chooses the interpreter; left alone, the first of these that is 3.10 to 3.12 and can make environments.
CANDIDATES := python3.11 python3.12 python3.10 python3 python
USABLE := import sys, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))

# Every folder of tests/ is a tier; browser and webui_real need more than Python.
QUICK := $(filter-out browser webui_real,$(sort $(foreach file,$(wildcard tests/*/test_*.py),$(notdir $(patsubst %/,%,$(dir $(file)))))))
CHROMIUM := $(firstword $(foreach name,chromium chromium-browser google-chrome,$(shell command -v $(name) 2>/dev/null)))
NODE := $(shell command -v node 2>/dev/null)
PYTEST := $(BIN)/python -m pytest
# The tests are many small computations: more threads only slow them down, especially on a busy machine.
THREADS := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1}

.DEFAULT_GOAL := help
.PHONY: help env test quick js browser comfy real slow lint types format fuzz mutants bench gpu demo clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

env: $(STAMP) ## create .venv and install everything (once)

$(STAMP): pyproject.toml constraints.txt tests/requirements-no-deps.txt
	@if [ ! -x $(BIN)/python ]; then \
		for python in $(or $(PYTHON),$(CANDIDATES)); do \
			if "$$python" -c '$(USABLE)' 2>/dev/null; then found="$$python"; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "No Python 3.10, 3.11 or 3.12 that can make environments among: $(or $(PYTHON),$(CANDIDATES))." >&2; \
			echo "Install one (Debian: apt-get install python3 python3-venv) or name it: make PYTHON=/path/to/python" >&2; \
			exit 1; \
		fi; \
		echo "Creating $(VENV) with $$("$$found" --version)"; \
		"$$found" -m venv $(VENV); \
	fi
	@echo "Installing (a few gigabytes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement tests/requirements-no-deps.txt
	@touch $@

test: quick js browser ## all tests that this machine can run; the real WebUI's only with WEBUI_DIR=...
ifndef COMFYUI_DIR
	@echo "== comfy: without a real one, since COMFYUI_DIR does not name a ComfyUI (see CONTRIBUTING.md)"
endif
ifdef WEBUI_DIR
	@$(MAKE) --no-print-directory real
else
	@echo "== webui_real: skipped, since WEBUI_DIR does not name a WebUI 1.10.1 (see CONTRIBUTING.md)"
endif

quick: $(STAMP) ## tests that need neither a browser nor a WebUI
	@set -e; for tier in $(QUICK); do \
		echo "== $$tier"; \
		$(THREADS) $(PYTEST) tests/$$tier -q -m "not slow" $(ARGS); \
	done

js: $(STAMP) ## the page's modules: node's own test runner, and eslint where it is installed (npm install)
ifeq ($(NODE),)
	@echo "== js: skipped, since there is no node 20 (Debian: apt-get install nodejs)"
else
	@echo "== js"
	@PYTHON=$(abspath $(BIN)/python) $(NODE) --test --test-reporter=dot tests/js/
	@if [ -x node_modules/.bin/eslint ]; then node_modules/.bin/eslint javascript tests/js; \
		else echo "== eslint: skipped, since it is not installed (npm install)"; fi
endif

browser: $(STAMP) ## the page in headless Chromium
ifeq ($(wildcard tests/browser/test_*.py),)
else ifeq ($(CHROMIUM),)
	@echo "== browser: skipped, since there is no Chromium (Debian: apt-get install chromium)"
else
	@echo "== browser"
	@$(THREADS) $(PYTEST) tests/browser -q $(ARGS)
endif

comfy: $(STAMP) ## ComfyUI's nodes, also in a real one: make comfy [COMFYUI_DIR=... COMFYUI_PYTHON=...]
	@$(THREADS) $(PYTEST) tests/comfy -q -m "not slow" $(ARGS)

real: $(STAMP) ## the real WebUI: make real WEBUI_DIR=... [WEBUI_PYTHON=...]
	@echo "== webui_real"
	@$(PYTEST) tests/webui_real -q $(ARGS)

slow: $(STAMP) ## the tests marked slow
	@status=0; $(THREADS) $(PYTEST) $(addprefix tests/,$(QUICK)) -q -m slow $(ARGS) || status=$$?; \
	if [ $$status -eq 5 ]; then echo "no test is marked slow"; else exit $$status; fi

lint: $(STAMP) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict on the library
	@$(BIN)/mypy

format: $(STAMP) ## let ruff repair what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

fuzz: $(STAMP) ## coverage-guided fuzzing of readers and requests: make fuzz [SECONDS=60]
	@$(THREADS) $(BIN)/python -m tests.fuzz.fuzz --seconds $(or $(SECONDS),60) $(ARGS)

$(VENV)/.mutants: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[mutants]'
	@touch $@

mutants: $(VENV)/.mutants ## mutation tests of the core: make mutants [SAMPLE=150] [PATHS="depth2img/depth ..."]
	@$(THREADS) $(BIN)/python -m tools.mutants $(PATHS) --sample $(or $(SAMPLE),0) $(ARGS)

bench: $(STAMP) ## measurements side by side, printed as ratios
	@set -e; for file in $(wildcard benchmarks/bench_*.py) benchmarks/plot.py; do $(BIN)/python $$file; done

gpu: $(STAMP) ## check and measure on a graphics card, or small on the CPU: make gpu [OUT=FILE.json] [SECONDS=200]
	@mkdir -p benchmarks/results
	@$(BIN)/python -m benchmarks.gpu --out $(or $(OUT),benchmarks/results/gpu.json) --seconds $(or $(SECONDS),200) $(ARGS)

demo: $(STAMP) ## pictures from the bundled model, in demo-output/
	@$(BIN)/depth2img demo

clean: ## remove the environment and all caches
	rm -rf $(VENV) build dist demo-output mutants .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
