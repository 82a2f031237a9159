# make demo       upscale an example photo 8x, from a fresh clone
# make test       run the tests
# make lint       check style and types
# make numerics   run the tests that the instruction set could change, within a minute
#
# Each installs what it needs into .venv on the first run, and again when pyproject.toml changes. With
# PIP_CONSTRAINT=constraints.txt it installs the versions that CI does.

PYTHON ?= python3
PHOTO := examples/colosseum

BIN := .venv/bin
PIP := $(BIN)/python -m pip
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test numerics lint

demo: .venv/.installed
	$(BIN)/gigasr upscale $(PHOTO).png --prompt "$$(cat $(PHOTO).txt)" --scale 8 -o demo.png --overwrite
	@echo "$(PHOTO).png, 8 times larger: $(CURDIR)/demo.png"

test: .venv/.installed-dev
	$(BIN)/python -m pytest -n auto

numerics: .venv/.installed-dev
	$(BIN)/python -m pytest -q -n auto -m numerics

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# basicsr asks for torch, gigabytes of it, in its isolated build environment and does not use it:
# setuptools in .venv and no isolation builds it in seconds.
.venv/.created:
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --upgrade pip "setuptools>=77"
	touch $@

.venv/.installed: pyproject.toml | .venv/.created
	$(PIP) install --no-build-isolation --editable .
	touch $@

.venv/.installed-dev: pyproject.toml | .venv/.created
	$(PIP) install --no-build-isolation --editable ".[dev,eval,export,ray,train,ui]"
	touch $@ .venv/.installed
