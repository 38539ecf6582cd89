# `make demo`, `make test` and `make lint` do all their own set-up, in .venv. `make help` lists the targets.

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
WANTED := import sys; sys.exit(sys.version_info < (3, 11))

# The first Python that is new enough; `make PYTHON=/path/to/python …` chooses another.
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$python -c '$(WANTED)' 2> /dev/null; then echo $$python; break; fi; done)
endif

# The tests and the demo start hundreds of processes: each would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test faults bench plots lint audit format clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed-demo ## See an agent survive the death of its worker; needs no key.
	@$(BIN)/polos demo $(ARGS)

test: $(VENV)/installed-test ## Run the tests; ARGS="tests/unit -k name" runs some.
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

faults: $(VENV)/installed-test ## Run the long fault tests; ARGS="f2 --seconds 300" chooses.
	@$(BIN)/python -m tests.faults $(ARGS)

bench: $(VENV)/installed-test ## Measure polos beside its floors; ARGS="w1 --database sqlite" runs some.
	@$(BIN)/python -m benchmarks $(or $(ARGS),all --quick)

plots: $(VENV)/installed-test ## Draw what `make bench ARGS="all --out figures.jsonl"` measured.
	@$(BIN)/python -m benchmarks.plots $(or $(ARGS),figures.jsonl)

lint: $(VENV)/installed-dev ## Check format, style, types and layers.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

audit: $(VENV)/installed-dev ## Look for known vulnerabilities of what is installed; needs the network.
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet 'pip-audit>=2.7'
	@$(BIN)/pip-audit --skip-editable --progress-spinner off $(ARGS) || { \
		echo "pip-audit found something above, or could not ask its service (then it says which address):"; \
		echo "without the network there is no audit. Nothing was changed."; \
		exit 1; }

format: $(VENV)/installed-dev ## Format the code and mend what can be mended.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Remove the virtual environment, caches and the demo's data.
	rm -rf $(VENV) .polos build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Some systems ship Python without ensurepip; their own pip then fills the environment.
$(BIN)/python:
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(WANTED)'; then \
		echo "polos needs Python 3.11 or newer, and none was found."; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; \
		exit 1; \
	fi
	@rm -rf $(VENV)
	@"$(PYTHON)" -m venv $(VENV) > /dev/null 2>&1 || { \
		rm -rf $(VENV); \
		"$(PYTHON)" -m venv --without-pip $(VENV) \
		&& "$(PYTHON)" -m pip --python $(VENV) install --quiet pip; }

# Quiet, with a dot per package; the whole output is kept, and shown if something fails.
$(VENV)/installed-%: pyproject.toml | $(BIN)/python
	@printf 'Installing polos[$*] into $(VENV) '
	@rm -f $@
	@{ $(BIN)/python -m pip install --disable-pip-version-check --editable '.[$*]' 2>&1 && touch $@; } \
		| tee $(VENV)/install.log \
		| awk '/^(Collecting|Installing)/ { printf "."; fflush() } END { print "" }'
	@[ -f $@ ] || { tail -n 40 $(VENV)/install.log; exit 1; }
