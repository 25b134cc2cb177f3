# Two commands: `make run` (the default experiment) and `make test`. Both set everything up first.

PYTHON ?= python3
CORES ?= all
VENV := .venv
BIN := $(VENV)/bin
REQUIREMENTS := envs/requirements.txt envs/requirements-no-deps.txt envs/requirements-dev.txt envs/constraints.txt

.PHONY: run test test-slow test-slurm calibrate check docs status setup clean

run: setup
	$(BIN)/snakemake --cores $(CORES)
	@echo "The report is results/report.html, the verdict results/gate/decision.json."

test: setup check
	$(BIN)/pytest -m "not slow and not slurm" -n 2 --dist loadgroup --durations=10

test-slow: setup
	$(BIN)/pytest -m slow

# Needs Slurm on this host (Debian: apt-get install slurm-wlm munge).
test-slurm: setup
	$(BIN)/pytest -m slurm

# Type-I errors and power of the gates, written into docs/statistics.md: minutes; NIGHTLY=1, an hour.
calibrate: setup
	OMP_NUM_THREADS=1 $(BIN)/python tests/calibration/calibrate.py --sims $(if $(NIGHTLY),200000,20000)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy
	$(BIN)/snakemake --lint

# The stamp holds the hash of the requirements and is written last: set-up is complete or done again.
STAMP := $(VENV)/.requirements.sha256

setup:
	@if [ "$$(cat $(REQUIREMENTS) | sha256sum)" != "$$(cat $(STAMP) 2>/dev/null)" ]; then \
		$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, this is {v[0]}.{v[1]}. Try: make PYTHON=python3.12")' && \
		$(PYTHON) -m venv $(VENV) && \
		$(BIN)/pip install --quiet --constraint envs/constraints.txt -r envs/requirements.txt -r envs/requirements-dev.txt && \
		$(BIN)/pip install --quiet --no-deps -r envs/requirements-no-deps.txt && \
		cat $(REQUIREMENTS) | sha256sum > $(STAMP); \
	fi

# What is done, running and failed, and what it cost: of RUN=runs/x, by default of the default experiment.
RUN ?= .
status: setup
	@$(BIN)/python workflow_scripts/status.py --directory $(RUN)

docs: setup
	$(BIN)/python workflow_scripts/mmie/reference.py

clean:
	rm -rf results logs benchmarks .snakemake
