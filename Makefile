# Every target makes the virtual environment .venv when it is missing or the requirements have changed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test lint clean

quickstart: $(VENV)/.run
	$(BIN)/python -m pipelines.distill --flagfile=configs/quickstart.cfg

test: $(VENV)/.develop
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

lint: $(VENV)/.develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.run: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.develop: $(VENV)/.run requirements-dev.txt requirements-beam.txt requirements-tfrs.txt requirements-tune.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt \
		-r requirements-beam.txt -r requirements-tfrs.txt -r requirements-tune.txt
	touch $@

# Leaves runs/, datasets/ and saved_models/ alone: they may hold hours of work.
clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
