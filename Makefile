PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Which of locks/: cpu, cuda, none (versions without hashes); auto: what this machine's pip finds.
LOCK ?= auto
INSTALL := $(BIN)/python tools/install.py --lock $(LOCK) --here

# A worker a core, each with one thread (tests/conftest.py). A file's tests stay together, and with them
# the federations and runs that they share; some tests start services of their own, hence at most 8.
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: help demo llm-demo deploy-demo example-tutor example-customer-service example-recommender example-finance-monitor test nightly fuzz check audit bench bench-quick docs reference format lock image clean

help: ## What each target does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/.demo ## Four synthetic hospitals train one model together, at epsilon = 8 (about a minute)
	$(BIN)/cloister simulate

llm-demo: $(VENV)/.llm ## Four clinics' desks teach SmolLM2 their protocol, at epsilon = 8: before and after (about 8 minutes)
	$(BIN)/python demos/llm.py

deploy-demo: $(VENV)/.demo ## A coordinator and three hospitals over TLS on this machine, from invite to certificate (about 10 minutes)
	$(BIN)/python demos/deploy.py

example-tutor: $(VENV)/.demo ## Four schools train a tutor privately: points, hints and material on a page (about 4 minutes)
	$(BIN)/python examples/tutor/run.py --serve

example-recommender: $(VENV)/.demo ## Three shops train a recommender privately: lists with reasons, corrections, and a next study (about 4 minutes)
	$(BIN)/python examples/recommender/run.py --serve

example-finance-monitor: $(VENV)/.demo ## Three banks teach two models to read news privately: a watched stream, alerts and a daily report (about 4 minutes)
	$(BIN)/python examples/finance-monitor/run.py --serve

example-customer-service: $(VENV)/.llm ## Three desks train a chat model privately, which answers from a desk's own pages and cites them (about 4 minutes)
	$(BIN)/python examples/customer-service/run.py --serve

# Where the shell forbids it, each worker would rewrite every test file's asserts anew, and each process
# that a test starts would compile the package: 10 to 15 s a worker, 1 s a process.
test nightly: export PYTHONDONTWRITEBYTECODE :=

test: $(VENV)/.dev ## The tests, but for those that only `make nightly` runs
	$(PYTEST) -m "not nightly"

nightly: $(VENV)/.dev ## Every test, the slow ones too, all examples of each property, and 1,000 connected sites
	HYPOTHESIS_PROFILE=nightly $(PYTEST)
# Alone, after the tests: a second job on two cores makes sites' signs of life late.
	$(BIN)/python -m benchmarks.connected_sites --sites 1000 --rounds 20 --patience 3600 --whole

MINUTES ?= 10
fuzz: $(VENV)/.dev ## Hostile inputs for every parser of what others wrote, for MINUTES=10
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

check: $(VENV)/.dev ## What CI runs: formatting, linting, types, tests, conformance
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test
	$(BIN)/cloister audit run

audit: $(VENV)/.demo ## Put the quickstart's mechanism to its laws, and attack it (about a minute)
	$(BIN)/cloister audit run
	$(BIN)/cloister audit run --level empirical --trials 2000

# FASTDP: the root of a checkout of github.com/awslabs/fast-differential-privacy; absent: not run.
bench: $(VENV)/.dev ## Speed and memory beside other libraries, as ratios within one run: bench.json, bench.html
	$(BIN)/python -m benchmarks --json bench.json --page bench.html $(if $(FASTDP),--fastdp $(FASTDP))

bench-quick: $(VENV)/.dev ## The figures that a user feels most, in about 4 minutes: bench.json, bench.html
	$(BIN)/python -m benchmarks.quick --json bench.json --page bench.html $(if $(FASTDP),--fastdp $(FASTDP))

reference: $(VENV)/.dev ## docs/api.md, docs/commands.md and docs/recipe.md anew, from what they describe
	$(BIN)/python tools/reference.py
	$(BIN)/python tools/recipe_reference.py

docs: .venv-docs/.made ## The documentation as web pages, in site/; nothing is fetched while building
	.venv-docs/bin/zensical build --strict --clean

format: $(VENV)/.dev ## Format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/.dev ## Make locks/ anew from constraints.txt (LINKS: a folder or page with torch's CPU build)
	PATH="$(CURDIR)/$(BIN):$$PATH" python tools/lock.py $(if $(LINKS),--find-links $(LINKS))

image: ## A container image for either side (DIGEST: the base image's, sha256:…)
	sh deploy/build_image.sh "$(DIGEST)"

clean: ## Remove the environment and caches
	rm -rf $(VENV) .venv-docs site .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.venv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cloister needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	touch $@

LOCKS := $(wildcard locks/*.txt) constraints.txt tools/install.py

# Apart from the package's own environment, whose versions it does not touch.
.venv-docs/.made: tools/docs-lock.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes -r $<
	touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml $(LOCKS)
	$(INSTALL) demo
	touch $@

$(VENV)/.llm: $(VENV)/.venv pyproject.toml $(LOCKS)
	$(INSTALL) llm
	touch $@ $(VENV)/.demo

$(VENV)/.dev: $(VENV)/.venv pyproject.toml $(LOCKS)
	$(INSTALL) dev
	touch $@ $(VENV)/.demo
