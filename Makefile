# Two commands do everything on a bare Debian 12 or 13: `make demo` and `make check`.

VENV := .venv
PY := $(VENV)/bin/python

.PHONY: demo check check-all check-modules check-zts lint test bench bench-build bench-first bench-zfs bench-hosts bench-formats soak docs setup

# Boots three kernels on two architectures and runs a command in each.
demo: $(VENV)/.ready
	$(VENV)/bin/quizmatrix run quick -- uname -srm
	$(VENV)/bin/quizmatrix runs logs
	@echo
	@echo "It works. To type \`quizmatrix' anywhere:"
	@echo "  mkdir -p ~/.local/bin && ln -s $(CURDIR)/$(VENV)/bin/quizmatrix ~/.local/bin/"
	@echo "Then: docs/tutorial.md, ten minutes."

# The gate: linters and all tests, the ones that boot VMs included.
check: lint test

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: setup
	$(VENV)/bin/pytest

# Speed against bare QEMU and virtme-ng, measured here and now.
bench: setup
	$(PY) tests/bench.py

# How long a kernel takes to build, against what its peers build: some fifteen minutes.
bench-build: setup
	$(PY) tests/bench_build.py

# What OpenZFS's builds cost, against builds by hand: some forty minutes where the kernels are built.
bench-zfs: setup
	$(PY) -m tests.bench_zfs

# The wait before the first sweep, from empty caches: one to two hours. `FOLDER=DIR` keeps them, to go on there later.
bench-first: setup
	$(PY) -m tests.bench_first $(FOLDER)

# Which file system a base image should be: some ten minutes.
bench-formats: setup
	$(PY) tests/bench_formats.py

# What runs on other hosts cost, against local ones: some ten minutes.
bench-hosts: setup
	$(PY) -m tests.bench_hosts

# The gate, real builds of kernels for every architecture, and Debian's modules: hours.
check-all: check
	$(VENV)/bin/pytest tests/builds
	QUIZMATRIX_KILLS=100 $(VENV)/bin/pytest tests/vm/test_warm.py tests/vm/test_hosts_kills.py -k killed
	$(MAKE) check-modules

# What Debian packages for DKMS, built and loaded, beside what dkms itself builds; writes docs/modules-of-debian.md.
check-modules: setup
	$(PY) -m tests.check_modules

# OpenZFS's sanity.run to its end on x86_64 and s390x, in portions of 150 minutes: hours; writes docs/openzfs.md.
check-zts: setup
	$(PY) -m tests.check_zts $(ARGUMENTS)

# A hundred boots and a thousand restores of each architecture, more at a time than a small host has CPUs: some two hours.
soak: setup
	$(PY) tests/soak.py cold 100 4 6.1-x86_64 6.1-s390x $(foreach arch,x86_64 s390x ppc64,debian-source:6.1-$(arch))
	$(PY) tests/soak.py warm 1000 4 6.1-x86_64 6.1-s390x debian-source:6.1-ppc64

# The documentation, as a site: site/index.html, and the man page. Its own tests (tests/docs) build it, too.
docs: setup
	$(PY) -m docs.generate
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo "file://$(CURDIR)/site/index.html"

setup: $(VENV)/.ready-to-develop

$(VENV)/.ready: pyproject.toml .ci/install-packages
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "quizmatrix needs Python 3.11 or newer, and this is $$(python3 --version)" >&2; exit 1; }
	.ci/install-packages
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable .
	@# As pip does for a wheel: Python does not where PYTHONDONTWRITEBYTECODE is set, and each start would.
	$(PY) -m compileall -q quizmatrix
	@touch $@

$(VENV)/.ready-to-develop: $(VENV)/.ready
	.ci/install-packages develop
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
