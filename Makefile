# `make demo` and `make test` are all that a newcomer needs: each sets up what it lacks first.

PYTHON ?= python3
BIN := .venv/bin
PACKAGES := python3 python3-dev python3-venv gcc pkg-config libvirt-dev \
  libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils qemu-block-extra libnbd0 nbdkit ovmf seabios \
  swtpm swtpm-tools openssh-client openssh-server strace cpio e2fsprogs util-linux iproute2 xfsprogs openssl procps \
  libnbd-bin fuse3 syslinux mtools \
  libnfs13 nfs-ganesha nfs-ganesha-vfs rpcbind tgt samba ceph-mon ceph-osd radosgw ceph-common \
  golang-go golang-github-vmware-govmomi-dev nbdkit-plugin-dev apache2-bin

# Every worker has a libvirtd of its own where it may mount; else they would only wait for each other. One more than there
# are processors: many tests wait for servers that are away.
WORKERS = $(shell unshare --mount true 2>/dev/null && echo $$(($$(nproc) + 1)) || echo 1)

.PHONY: help setup demo test check format docs bench bench-check clean

help:
	@echo "make demo    back up, change and restore a real, running machine (under 5 minutes)"
	@echo "make test    check the code and run all tests"
	@echo "make setup   install what is missing into this machine and .venv; the others do it by themselves"
	@echo "make check   ruff, mypy and the import rules; make format puts the layout right"
	@echo "make docs    build the documentation into build/docs"
	@echo "make bench   measure; ROUNDS=2 is quicker"
	@echo "make bench-check  compare what does not depend on the machine with the baseline; UPDATE=1 makes a new one"
	@echo "make clean   remove what was made here"

setup: .venv/.ready

demo: setup
	@$(BIN)/python -m tests.demo

test: check
	$(BIN)/pytest -n $(WORKERS) --maxprocesses 4 --dist worksteal

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: setup
	$(BIN)/sphinx-build -W --keep-going -n -q -c vbackup/docs -b html . build/docs
	@echo "see build/docs/index.html"

bench: setup .venv/.bench
	$(BIN)/python -m tests.bench $(if $(ROUNDS),--rounds $(ROUNDS))

bench-check: setup
	@$(BIN)/python -m tests.bench.counts $(if $(UPDATE),--update)

clean:
	rm -rf .venv .lab .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

.venv/.ready: .lab/packages pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "vbackup needs Python 3.11 to 3.13; say which: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing vbackup and its tools into .venv"
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	@$(BIN)/pip install --quiet --editable ".[libvirt,vsphere,s3,sftp,smb]" --group dev
	@touch $@

.venv/.bench: .venv/.ready
	@$(BIN)/pip install --quiet --disable-pip-version-check --group bench
	@touch $@

.lab/packages: Makefile .ci/packages
	@.ci/packages $(PACKAGES)
	@mkdir -p .lab; touch $@
