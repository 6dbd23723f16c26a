# make demo   train, measure and sample a small AU-Net on this machine (about 6 minutes)
# make test   ruff, mypy, pytest
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

# Modules are compiled when they are first used: pip would compile 28,000 of which few ever are.
unexport PYTHONDONTWRITEBYTECODE
USED := aunet.cli, aunet.evals.bpb, aunet.infer.engine, aunet.serve, aunet.train.run, torch._dynamo

.PHONY: demo test lint types pytest install clean

demo: install
	$(VENV)/bin/aunet demo

# One after the other; with -j side by side, as mypy keeps one core busy for a minute.
test: lint types pytest

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: install
	$(VENV)/bin/mypy

pytest: install
	$(VENV)/bin/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "aunet needs Python 3.11 or newer; $(PYTHON) is older. Use: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv --upgrade-deps $(VENV)  # an old pip takes three times as long to choose versions
	$(VENV)/bin/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@$(VENV)/bin/python -c 'import $(USED)'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) demo
