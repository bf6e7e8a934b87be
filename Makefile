# make run    real text from the embedded model, at two sizes
# make test   the whole test suite
#
# Both need python3 (3.11 or newer), a C++17 compiler and make. Everything else is installed into $(VENV).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
SOURCES := $(shell find src native -type f -not -name '*.pyc' 2>/dev/null) $(wildcard CMakeLists.txt cmake/*)

.PHONY: run test dev check docs format native clean

run: $(VENV)/.installed
	@$(BIN)/matryo demo

test: $(VENV)/.tested
	@$(BIN)/python -m pytest $(TESTS)

# For work on Matryo itself: editable, rebuilt on import, with every tool.
dev: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet scikit-build-core nanobind ninja cmake
	$(BIN)/python -m pip install --no-build-isolation -Ceditable.rebuild=true -e '.[dev]'

# The native module alone, built into build/native and put beside the Python sources; the move is atomic, so a
# running interpreter keeps the file it has mapped. PYTHON needs nanobind.
native:
	cmake -S . -B build/native -G Ninja -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE=$$($(PYTHON) -c 'import sys; print(sys.executable)') >/dev/null
	cmake --build build/native -j $(JOBS)
	@for module in build/native/_native*.so; do cp $$module src/matryo/.$$(basename $$module).new && mv src/matryo/.$$(basename $$module).new src/matryo/$$(basename $$module); done

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/docs.py --check

format:
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs:
	$(BIN)/python scripts/docs.py

clean:
	rm -rf build dist $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) scripts/preflight.py
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml $(SOURCES)
	$(BIN)/python -m pip install --quiet .
	@touch $@

$(VENV)/.tested: $(VENV)/bin/python pyproject.toml $(SOURCES)
	$(BIN)/python -m pip install --quiet '.[test]'
	@touch $(VENV)/.installed $@
