# Everything runs in .venv, which `make setup` builds with the versions of requirements.lock and rebuilds when they change.
.DEFAULT_GOAL := help
.PHONY: help setup pretrain test test-slow test-all check docs audit bench ui
IS_311 := -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null
PYTHON ?= $(shell for p in python3.11 python3 python; do $$p $(IS_311) && echo $$p && break; done)
ACTIVATE := . .venv/bin/activate &&
PYTEST := $(ACTIVATE) python -m pytest -n auto --maxprocesses 4 --dist worksteal
# scale writes 13 GB into the temporary folder (TMPDIR) and leaves out sizes without room. newcomer comes last: it needs
# a package index and Chromium. detect_worth is left out: it needs two registered detectors. So is gpu: it needs a GPU.
BENCHES := speed.features speed.ingest speed.startup speed.commands speed.finetune speed.events speed.roofline speed.step_share speed.rules_cost speed.encoders speed.peers speed.processes speed.tracking speed.sweep speed.serving speed.annotate_page speed.annotate_server 'speed.detect speed' reliability.outage science.pruning science.best_epoch \
           science.sigma_clock science.flip_rates science.tree_baseline science.realism science.pretraining science.labels science.fresh_labels science.rules_gate science.objectives \
           'science.rules_study pretrain out/rules_study 0 1 2 3 path' 'science.rules_study read out/rules_study' 'science.events_study out/rules_study/encoder0' \
           'science.rules_variants pretrain out/rules_variants preset dilated16 dilated32 mingru32 attention16 path shapes wide' 'science.rules_variants pretrain out/rules_variants preset --pairs 2,3,4' 'science.rules_variants read out/rules_variants' 'science.rules_variants later out/rules_variants' 'science.rules_unfrozen out/rules_variants' 'science.rules_unseen out/rules_variants' 'science.rules_averaged out/rules_variants' science.annotate_study \
           speed.five_years 'speed.five_years --preset rules' speed.scale \
           speed.newcomer

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' Makefile

setup: .venv/.ready ## build .venv with the pinned packages; quick when nothing changed

pretrain: .venv/.ready ## pre-train on the sample bars; more with ARGS="-P epochs=2"
	$(ACTIVATE) mlflow run . -e pretrain $(ARGS)

test: .venv/.ready ## the fast tests
	$(PYTEST) -m "not slow" $(ARGS)

# One worker more than there are cores: these tests wait for servers, signals and disks.
test-slow: .venv/.ready ## the slow tests: full size, fault injection; a file by one worker, for its tests share stores
	$(PYTEST) -n $$(( $$(getconf _NPROCESSORS_ONLN) + 1 )) --dist loadfile --no-loadscope-reorder -m slow $(ARGS)

test-all: .venv/.ready ## all tests
	$(PYTEST) $(ARGS)

check: .venv/.ready ## lint, format, types, layers
	$(ACTIVATE) ruff check . && ruff format --check . && mypy && lint-imports

docs: .venv-docs/.ready ## the documentation as a site, in site/; any warning fails
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict $(ARGS)

audit: .venv/.ready .venv-audit/.ready ## known faults in code and packages, licences, bill of materials; in build/audit
	.venv-audit/bin/python tools/audit.py

bench: .venv/.ready ## the benchmarks, hours; results as JSON, and the table of speed that the docs quote
	$(ACTIVATE) for name in $(BENCHES); do echo "== $$name" && python -m benchmarks.$$name || exit 1; done && python -m benchmarks.table

ui: .venv/.ready ## MLflow's web interface on the runs of this folder
	$(ACTIVATE) mlflow ui $(ARGS)

.venv/.ready: pyproject.toml requirements.lock conda.yaml tools/conda_standin.py
	@test -n "$(PYTHON)" || { echo "make setup: Python 3.11 is needed; install it or name one: make PYTHON=/path/to/python3.11"; exit 2; }
	.venv/bin/python $(IS_311) || $(PYTHON) -m venv --clear .venv || \
	    { $(PYTHON) -m venv --without-pip --clear .venv && $(PYTHON) -m pip --python .venv/bin/python install --quiet pip; }
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[dev]'
	.venv/bin/python tools/conda_standin.py install
	@touch $@

# The site needs neither torch nor MLflow: its pages of Python are read as text.
.venv-docs/.ready: requirements-docs.lock
	@test -n "$(PYTHON)" || { echo "make docs: Python 3.11 is needed; install it or name one: make PYTHON=/path/to/python3.11"; exit 2; }
	.venv-docs/bin/python $(IS_311) || $(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.lock
	@touch $@

.venv-audit/.ready: requirements-audit.lock
	@test -n "$(PYTHON)" || { echo "make audit: Python 3.11 is needed; install it or name one: make PYTHON=/path/to/python3.11"; exit 2; }
	.venv-audit/bin/python $(IS_311) || $(PYTHON) -m venv --clear .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-audit.lock
	@touch $@
