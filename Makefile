# Two commands matter: `make search` and `make test`. Each sets up what it needs, once.

VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
# Any Python can start the set-up; it looks for one that suits paploss by itself.
START := $(firstword $(foreach name,$(PYTHON) python3 python3.12 python3.11 python3.10 python, \
	$(shell command -v $(name) 2>/dev/null)))
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup search test check clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## make .venv with everything in it (compiles mmcv's ops where no wheel is found)
	@echo "$(VENV) is complete."

$(READY): pyproject.toml constraints.txt scripts/setup.py scripts/steps.py
	@test -n "$(START)" || { echo "No Python was found: paploss needs 3.10 to 3.12." >&2; exit 1; }
	@$(START) scripts/setup.py
	@touch $@

search: $(READY)  ## draw a small data set, search a loss on it, show the result
	@$(BIN)/paploss doctor
	@$(BIN)/paploss data shapes --out data/shapes
	@$(BIN)/paploss search configs/search/shapes.yaml --or-resume

# By several processes: unit tests first, then, a file at a time, those that start services. Of the
# latter's time most is waiting, so that three keep two cores busy.
test: $(READY)  ## run all tests, the slow ones too
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 3 --dist loadfile

check: $(READY)  ## formatting, lint, types, walls between the packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:  ## remove .venv, data/shapes and caches; experiments stay
	rm -rf $(VENV) data/shapes .pytest_cache .mypy_cache .ruff_cache .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
