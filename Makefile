# Every target makes .venv and installs what it needs there; the second call finds it done.
#
#   make demo    the tour: real data, tables in the terminal, pictures in build/tour/index.html
#   make test    the whole test suite            (make test ARGS="-m 'not slow' -k updating")
#   make lint    ruff and mypy
#   make docs    the documentation, in docs/_build/html
#   make bench   asv benchmarks of this library  (make bench ARGS="--quick --bench linalg")
#   make peers   side by side with other libraries (make peers ARGS="sparse dense --quick")
#
# Another interpreter: make PYTHON=python3.12 demo.  Another environment: make VENV=/tmp/lrla test.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

PY      := $(VENV)/bin/python
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check

.NOTPARALLEL:
.PHONY: help demo test lint docs bench peers clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.demo
	$(PY) examples/tour.py $(ARGS)

test: $(VENV)/.test
	OPENBLAS_NUM_THREADS=1 $(PY) -m pytest -n auto $(ARGS)

lint: $(VENV)/.lint
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: $(VENV)/.docs
	$(PY) -m sphinx -W -E --keep-going --quiet -b html docs docs/_build/html $(ARGS)
	@echo "docs/_build/html/index.html"

bench: $(VENV)/.bench
	$(PY) -m asv --config benchmarks/asv.conf.json machine --yes
	$(PY) -m asv --config benchmarks/asv.conf.json run --python=same --show-stderr $(ARGS)

peers: $(VENV)/.peers
	$(PY) -m benchmarks.peers.svd $(ARGS)

clean:
	rm -rf $(VENV) build dist docs/_build docs/api/generated

# ---- what each target needs; a stamp file remembers that it is there, until pyproject.toml changes

$(PY):
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade "pip>=25.1"

$(VENV)/.demo: pyproject.toml | $(PY)
	$(INSTALL) --editable ".[plot]"
	@touch $@

$(VENV)/.test $(VENV)/.lint $(VENV)/.docs $(VENV)/.bench: $(VENV)/.%: pyproject.toml | $(PY)
	$(INSTALL) --editable . --group $*
	@touch $@

$(VENV)/.peers: pyproject.toml | $(PY)
	$(INSTALL) --editable . --group peers
	@touch $@
