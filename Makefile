# On a machine with Python 3.11+ and make, `make demo` and `make test` do everything, the environment included.
PYTHON ?= python3
BIN := .venv/bin
DONE := .venv/installed

.PHONY: install demo test test-all lint bench clean

install: $(DONE)

$(DONE): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Real digits, 1 % of their labels, SimCLR against what a sceptic would demand; ends with demo/report.html.
demo: $(DONE)
	$(BIN)/kontrast study --recipe recipes/demo.yaml --out demo
	@echo "Open demo/report.html in a browser."

test: $(DONE)
	$(BIN)/python -m pytest

test-all: $(DONE)
	$(BIN)/python -m pytest -m ''

lint: $(DONE)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Speed and memory beside peers; those that `pip install -e '.[bench]'` brings are left out where they are missing.
bench: $(DONE)
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/train_step.py --size 224 --batch-size 16
	$(BIN)/python benchmarks/train_step.py --quality
	$(BIN)/python benchmarks/methods.py --batch-size 32 --rounds 5
	$(BIN)/python benchmarks/augment.py
	$(BIN)/python benchmarks/loss_memory.py
	$(BIN)/python benchmarks/clip_memory.py
	$(BIN)/python benchmarks/evaluate.py
	$(BIN)/python benchmarks/audit.py
	$(BIN)/python benchmarks/start.py

clean:
	rm -rf .venv demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
