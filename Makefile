# Every target does its own set-up: a .venv in the repo, made anew when pyproject.toml changes.
PYTHON ?= python3
# More of them test what needs other packages, like EXTRAS=dev,transformers.
EXTRAS ?= dev
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check types docs gallery clean

demo: $(READY)
	$(BIN)/trainscope demo --output demo

# One process a core, each on one thread; what a file's tests share is made once, and what Python
# compiles is kept for the many processes that tests start.
test: $(READY)
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) types

# mypy follows one package tree, so the three rooms are linked into one.
types: $(READY)
	rm -rf build/typing && mkdir -p build/typing/trainscope
	ln -s $(CURDIR)/trainscope/* build/typing/trainscope/
	ln -s $(CURDIR)/probes build/typing/trainscope/probes
	ln -s $(CURDIR)/cli build/typing/trainscope/cli
	cd build/typing && MYPYPATH=. $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p trainscope

# The pictures of docs/gallery, made anew by the scripts beside them.
gallery: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python docs/gallery/run.py

docs: $(READY)
	$(BIN)/python -m pip install --quiet -e '.[docs]' --config-settings editable_mode=lenient
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[$(EXTRAS)]' --config-settings editable_mode=lenient
	touch $@

clean:
	rm -rf $(VENV) build/typing build/lib dist docs/_build demo .pytest_cache .mypy_cache .ruff_cache
