PYTHON ?= python3
RUN := .venv/run/bin
DEV := .venv/dev/bin
PIP_FLAGS := -q --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-unit test-whole lint soak bench schema clean

# The run-time install has no torch: `make demo` proves that it is enough.
.venv/run/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv/run
	$(RUN)/python -m pip install $(PIP_FLAGS) -e .
	touch $@

# TensorRT-RTX builds engines without a GPU: the tests really build the shipped models.
.venv/dev/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv/dev
	$(DEV)/python -m pip install $(PIP_FLAGS) -e '.[test,tensorrt-rtx]'
	touch $@

demo: .venv/run/.stamp
	$(RUN)/beamside demo --report out/demo

lint: .venv/dev/.stamp
	$(DEV)/ruff check .
	$(DEV)/ruff format --check .
	$(DEV)/mypy
	$(DEV)/lint-imports

# Each half uses one core; what draws and learns is in the second, so that they end together.
test: lint .venv/run/.stamp
	$(MAKE) --jobs 2 --output-sync=target test-unit test-whole

LEARNING := tests/unit/test_train_*.py tests/unit/test_dataset*.py

test-unit:
	$(DEV)/python -m pytest -q -m "not soak" $(patsubst %,--ignore=%,$(wildcard $(LEARNING))) tests/unit

test-whole:
	$(DEV)/python -m pytest -q -m "not soak" $(filter-out tests/unit/,$(sort $(dir $(wildcard tests/*/test_*.py)))) $(wildcard $(LEARNING))

soak: .venv/dev/.stamp
	$(DEV)/python -m pytest -q -m soak -s

bench: .venv/dev/.stamp
	$(DEV)/python -m tests.bench.run

schema: .venv/dev/.stamp
	$(DEV)/python -m agent.wire.schema

clean:
	rm -rf .venv out
