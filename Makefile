# make run    the embedded model sees, hears and translates, at two sizes
# make test   the whole test suite
#
# Both need python3 (3.11 or newer), a C++17 compiler and make. Everything else is installed into $(VENV).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
SOURCES := $(shell find src native -type f -not -name '*.pyc' 2>/dev/null) $(wildcard CMakeLists.txt cmake/*)
NATIVE := $(shell find native -name '*.cpp' -o -name '*.h' -o -name '*.inc')

.PHONY: run test dev check docs format native test-native test-avx512 test-arm clean

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

# The native test driver, here and for 64-bit ARM under an emulator
# (apt-get install g++-aarch64-linux-gnu qemu-user).
test-native:
	cmake -S . -B build/tests -G Ninja -DMATRYO_MODULE=OFF -DMATRYO_TESTS=ON >/dev/null
	cmake --build build/tests -j $(JOBS)
	build/tests/matryo_native_tests

# The AVX-512 kernels on a CPU that has only AVX2: their intrinsics computed lane by lane, all kernel tests run
# but the one that builds the native driver, which is not emulated.
# PYTHON needs nanobind and what the tests need.
test-avx512:
	cmake -S . -B build/emulated -G Ninja -DMATRYO_EMULATE_AVX512=ON -DPython_EXECUTABLE=$$($(PYTHON) -c 'import sys; print(sys.executable)') >/dev/null
	cmake --build build/emulated -j $(JOBS)
	rm -rf build/emulated/package && mkdir -p build/emulated/package
	cp -r src/matryo build/emulated/package/ && rm -f build/emulated/package/matryo/_native*.so
	cp build/emulated/_native*.so build/emulated/package/matryo/
	PYTHONPATH=build/emulated/package $(PYTHON) -m pytest tests/kernels --ignore tests/kernels/test_native_driver.py

test-arm:
	cmake -S . -B build/arm -G Ninja -DMATRYO_MODULE=OFF -DMATRYO_TESTS=ON -DCMAKE_SYSTEM_NAME=Linux \
	  -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ >/dev/null
	cmake --build build/arm -j $(JOBS)
	qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max build/arm/matryo_native_tests
	qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu cortex-a53 build/arm/matryo_native_tests

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)
	$(BIN)/mypy
	$(BIN)/python scripts/docs.py --check

format:
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE)

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
