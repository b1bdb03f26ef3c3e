# Two commands are all there is to know: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PLOTTING := $(VENV)/.plotting
RELEASING := $(VENV)/release/.ready
INSTALL := PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --disable-pip-version-check
# Each file in one process, as its tests may share a network; in the order of tests/conftest.py.
PARALLEL := --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: demo test coverage check format documents docs simulate simulate-mutations faults announcing dist requirements bundle release-check release-notes bench bench-quick bench-core bench-compare bench-scale screenshots clean image

demo: $(READY)
	$(BIN)/uproxy demo $(ARGS)

test: check
	$(BIN)/pytest $(PARALLEL) $(ARGS)

# The tests with each branch noted that they take, in all of their processes; then those they don't.
PACKAGES ?= core dataplane uring
coverage: $(READY)
	$(BIN)/coverage erase
	status=0; $(BIN)/coverage run -m pytest $(PARALLEL) $(ARGS) || status=$$?; \
		$(BIN)/coverage combine --quiet && $(BIN)/coverage json --quiet -o .coverage.json && \
		$(BIN)/python -m tests.branches .coverage.json $(PACKAGES) && exit $$status

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Documents that are written by the code; tests fail if they are not up to date.
documents: $(READY)
	$(BIN)/python -m tests.http.metrics_document > docs/metrics.md
	$(BIN)/python -m uproxy.cli.config_schema > docs/uproxy-config.schema.json
	$(BIN)/python -m tests.deploy.chart_readme > deploy/helm/uproxy/README.md

# The pages as a site, in build/site; a warning (a link that leads nowhere, a page in no table of
# contents) is an error. Nothing on it comes from another server.
docs: $(READY)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --conf-dir docs . build/site
	@echo "build/site/index.html"

# The container image, docs/install/image.md: TARGET=nonroot TAG=uproxy:nonroot for the other variant.
ENGINE ?= $(firstword $(foreach each,podman buildah docker,$(if $(shell command -v $(each)),$(each))))
TARGET ?= root
TAG ?= uproxy
image:
	@test -n "$(ENGINE)" || { echo "Building an image needs podman, buildah or docker"; exit 1; }
	$(ENGINE) build --tag $(TAG) --target $(TARGET) \
		--build-arg VERSION=$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' uproxy/__init__.py) \
		--build-arg REVISION=$(shell git rev-parse HEAD) \
		--build-arg CREATED=$(shell git log -1 --format=%cI) $(ARGS) .

# Simulated kernels: SEEDS=100000 of them on all processors, or SEED=123 MODE=ring with its trace.
simulate: $(READY)
	$(BIN)/python -m tests.simulation $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FIRST),--first $(FIRST)) \
		$(if $(SEED),--seed $(SEED)) $(if $(MODE),--mode $(MODE)) $(ARGS)

# The control process in worlds where everything may fail: SEEDS=10000, or SEED=123 with its trace.
faults: $(READY)
	$(BIN)/python -m tests.faults $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FIRST),--first $(FIRST)) \
		$(if $(SEED),--seed $(SEED)) $(ARGS)

# Clusters that elect who announces which address: SEEDS=10000, SEED=123 with its trace, or
# ARGS=--mutations to put defects in.
announcing: $(READY)
	$(BIN)/python -m tests.announcing $(if $(SEEDS),--seeds $(SEEDS)) $(if $(FIRST),--first $(FIRST)) \
		$(if $(SEED),--seed $(SEED)) $(ARGS)

# Defects put back one by one, and within how many seeds each was noticed; takes some minutes.
simulate-mutations: $(READY)
	$(BIN)/python -m tests.simulation --mutations $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

# Everything that has to be true before a release, one line for each; leaves wheel, sdist and bill of
# materials in dist. Takes some minutes.
release-check: $(RELEASING)
	$(VENV)/release/bin/python -m release check

# What the changelog says about this version.
release-notes: $(RELEASING)
	@$(VENV)/release/bin/python -m release notes

dist: $(RELEASING)
	rm -f dist/uproxy-*.whl dist/uproxy-*.tar.gz
	PIP_CONSTRAINT=constraints.txt $(VENV)/release/bin/python -m build --outdir dist .

# For machines without pip and without a network.
bundle:
	PYTHON=$(PYTHON) deploy/build-bundle.sh dist

# The versions in constraints.txt that a running uproxy needs, with hashes.
requirements: $(RELEASING)
	$(VENV)/release/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-emit-index-url --custom-compile-command "make requirements" \
		--constraint constraints.txt --extra cluster --output-file requirements.txt pyproject.toml

bench: $(PLOTTING)
	$(BIN)/python -m bench.wire --charts $(ARGS)

bench-quick: $(READY)
	$(BIN)/python -m bench.wire --quick $(ARGS)

bench-core: $(READY)
	$(BIN)/python -m bench.wire --core $(ARGS)

# The working tree next to another revision, which must not take over 3 % more CPU: REV=main.
bench-compare: $(READY)
	@test -n "$(REV)" || { echo "Name the revision to compare with: make bench-compare REV=main"; exit 2; }
	$(BIN)/python -m bench.compare $(REV) $(ARGS)

bench-scale: $(READY)
	$(BIN)/python -m bench.scale $(ARGS)

# The pictures of the status page in docs/images, after SECONDS (300) of traffic.
screenshots: $(PLOTTING)
	$(BIN)/python -m tests.browser $(if $(SECONDS),--seconds $(SECONDS))

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "uproxy needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[dev,docs]'
	@touch $(READY)

$(PLOTTING): $(READY)
	$(INSTALL) --editable '.[bench,dev,docs]'
	@touch $(PLOTTING)

$(RELEASING): release/tools.txt
	$(PYTHON) -m venv $(VENV)/release
	$(VENV)/release/bin/pip install --quiet --disable-pip-version-check --requirement release/tools.txt
	@touch $(RELEASING)
