# Everything a clone needs: `make demo` to see it work, `make test` to check it all.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
REFERENCE := .venv-reference
PEERS := .venv-peers
PDS := .build/pds
DEMO := .venv-demo

SYSTEM := $(VENV)/.system

.PHONY: demo test torture check docs packages ranges release-check lock picture bench clean

# The environment of the project: editable, with what the checks and tests need (servers included).
$(STAMP): pyproject.toml dev.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/pip install --quiet --constraint dev.lock --editable '.[parquet,report,dask]' --group check --group test
	touch $@

# The reference library needs a newer Python than this project, so it lives in an environment of its own.
$(REFERENCE)/.installed: tests/servers/reference.py pyproject.toml
	$(PYTHON) tests/servers/reference.py install $(REFERENCE) .
	touch $@

# A real PDS and PLC directory, in Node: the reference implementation, with SQLite compiled for this machine.
$(PDS)/.installed: tests/servers/pds_node/package.json $(SYSTEM)
	$(PYTHON) tests/servers/pds.py install $(PDS)
	touch $@

# Programs of the system, from Debian where they are missing: a real browser to look at the report, the tars of another
# tool, curl, with which webdataset opens URLs, Node for the PDS, what compiles its SQLite, readers of man pages, shells.
$(SYSTEM): $(STAMP)
	for need in chromium:chromium bsdtar:libarchive-tools curl:curl node:nodejs,libnode-dev npm:npm faketime:faketime make:make g++:g++ \
	  mandoc:mandoc groff:groff zsh:zsh fish:fish sqlite3:sqlite3 jq:jq systemd-analyze:systemd; do \
	  command -v $${need%%:*} >/dev/null || missing="$$missing $$(echo $${need##*:} | tr , ' ')"; \
	done; \
	[ -z "$$missing" ] || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; }
	touch $@

test: check $(REFERENCE)/.installed $(PDS)/.installed $(SYSTEM)
	$(BIN)/python -m pytest -n 2 --dist loadgroup tests/unit tests/contract tests/cli tests/e2e tests/torture

# Kills, faults, full disks and hostile input, by the hundred: what `make test` shows in a small way.
torture: $(REFERENCE)/.installed $(PDS)/.installed $(SYSTEM)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m torture tests

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m man.generate --check
	$(BIN)/python -m completions.generate --check

# Man pages and completions, from the program; they are committed.
docs: $(STAMP)
	$(BIN)/python -m man.generate
	$(BIN)/python -m completions.generate

# What the benchmarks compare with, as far as it can be installed here; several GB where torch comes with CUDA.
$(PEERS)/.installed: tests/benchmarks/environment.py
	$(PYTHON) tests/benchmarks/environment.py $(PEERS)
	touch $@

# The wheel, as pip, pipx and uv install it for every Python at hand; the dependencies' oldest and newest releases.
packages ranges: $(STAMP)
	$(BIN)/python -m tests.packages $(subst packages,installs,$@)

# Whether this commit can be released: version, changelog and tag agree, and all is committed.
release-check: $(STAMP)
	$(BIN)/python .ci/release.py

# The releases that the environment of the project is made of.
lock: $(STAMP)
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-header --no-annotate --all-extras \
	  --group check --group test pyproject.toml --output-file dev.lock

# The picture of the README: real commands on a real terminal.
picture: $(STAMP) demo
	$(BIN)/python -m tests.demo.picture demo-out/data docs/terminal.svg

# Some 25 minutes and 20 GB of disk; `$(BIN)/python -m tests.benchmarks --only NAME` runs one contest.
bench: $(STAMP) $(REFERENCE)/.installed $(PEERS)/.installed $(PDS)/.installed
	$(BIN)/python -m tests.benchmarks --results tests/benchmarks/RESULTS.md

# Real data: scikit-learn's handwritten digits and photographs as images, vega_datasets' weather as a table.
demo:
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --quiet --disable-pip-version-check '.[report]'
	$(DEMO)/bin/pip install --quiet --disable-pip-version-check --no-deps scikit-learn vega_datasets
	$(DEMO)/bin/python tests/demo/prepare.py demo-out/data
	$(DEMO)/bin/atdata-cli write demo-out/data/digits demo-out/digits --max-count 500
	$(DEMO)/bin/atdata-cli write demo-out/data/photos demo-out/photos
	$(DEMO)/bin/atdata-cli write demo-out/data/weather.csv demo-out/weather --key date
	$(DEMO)/bin/atdata-cli inspect demo-out/digits
	$(DEMO)/bin/atdata-cli inspect demo-out/digits --html demo-out/digits.html
	$(DEMO)/bin/atdata-cli inspect demo-out/weather --html demo-out/weather.html
	$(DEMO)/bin/python tests/demo/glance.py demo-out/digits demo-out/photos demo-out/weather

clean:
	rm -rf $(VENV) $(REFERENCE) $(PEERS) $(PDS) $(DEMO) demo-out .mypy_cache .ruff_cache .hypothesis
