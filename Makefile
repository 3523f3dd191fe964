# Everything needs `install`, which needs a Python from 3.11 on. Nothing has to be typed before.
# Each recipe is one script.
.ONESHELL:
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
DAEMON := $(BIN)/twistd --nodaemon --pidfile= lxdsched

# What the tests want of Debian 12, beside make itself.
PACKAGES := busybox-static ca-certificates curl git haproxy iproute2 lxd lxd-client nginx-light openssl python3 python3-venv \
	redis-sentinel redis-server

.PHONY: help install run test check fuzz deps lock audit changelog clean
.PHONY: image image-test dist wheel-test release deb deb-deps system-test

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## Make .venv with the locked dependencies and this checkout

$(LOCKED): requirements-dev.lock
	@python=$$(scripts/python)
	echo "installing the locked dependencies into $(VENV)"
	"$$python" -m venv --clear $(VENV)
	$(PIP) install --quiet --require-hashes --requirement requirements-dev.lock
	touch $@

$(INSTALLED): $(LOCKED) pyproject.toml
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check --quiet
	touch $@

run: $(INSTALLED)  ## Start the daemon: on LXD_MULTI_HOSTS where that is set, else on a sandbox of five hosts
	@if [[ -n $${LXD_MULTI_SCHEDULER_CONFIG:-} ]]; then
	    exec $(DAEMON)
	fi
	address=$${LXD_MULTI_SCHEDULER_INTERFACE:-127.0.0.1}
	[[ $$address != *:* ]] || address="[$$address]"
	url=http://$$address:$${LXD_MULTI_SCHEDULER_PORT:-8080}
	if [[ -n $${LXD_MULTI_SCHEDULER_ENDPOINT:-}$${LXD_MULTI_SCHEDULER_TLS_CERT:-}$${LXD_MULTI_SCHEDULER_CLIENTS_FILE:-} ]]; then
	    echo "lxdsched is about to say where it listens; Ctrl-C ends it."
	else
	    echo "lxdsched is about to answer on $$url; Ctrl-C ends it. To try it, from another terminal:"
	    echo "  curl -d '{\"instance_requirements\": {\"cpu\": 2, \"memory\": 2048}}' $$url/schedule"
	fi
	if [[ -n $${LXD_MULTI_HOSTS:-} ]]; then
	    exec $(DAEMON)
	fi
	exec $(BIN)/lxdsched sandbox --hosts 5 -- $(DAEMON)

test: $(INSTALLED)  ## Run the tests: unit, contract, end-to-end (those on a real LXD need root and `make deps`)
	@$(BIN)/python -m pytest

check: $(INSTALLED)  ## Look at the code: ruff, mypy, import-linter
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(INSTALLED)  ## Feed the parsers with nonsense for long; scripts/fuzz says what else it can do
	@scripts/fuzz

deps:  ## Install what the tests want of Debian 12 (as root, or by sudo)
	@scripts/apt $(PACKAGES)
	scripts/incus || echo "the tests on Incus will be left out" >&2

lock:  ## Write the lock files anew; `make lock LOCK=--upgrade` takes the newest versions
	@python=$$(scripts/python)
	tools=$$(mktemp -d)
	trap 'rm -rf "$$tools"' EXIT
	"$$python" -m venv "$$tools"
	"$$tools/bin/pip" install --quiet uv
	compile=("$$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes)
	compile+=(--custom-compile-command "make lock" $(LOCK))
	"$${compile[@]}" --group dev --output-file requirements-dev.lock pyproject.toml
	"$${compile[@]}" --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml

audit:  ## Ask PyPI for known vulnerabilities of what is locked
	@scripts/audit

image:  ## Build the image lxdsched with Docker
	@docker build --tag lxdsched .

image-test:  ## Build the image without a registry, and try it and compose.yaml (as root, on Debian 12; five minutes)
	@scripts/image-test

changelog: $(INSTALLED)  ## Show what the next release's part of CHANGELOG.md will say
	@$(BIN)/towncrier build --draft

dist: $(INSTALLED)  ## Build the wheel and the sdist into dist/
	@scripts/dist

wheel-test: $(INSTALLED)  ## Install the wheel into an empty environment, with its dependencies from the index, and ask the daemon
	@scripts/wheel-test

release: check  ## Make a release, all but its upload: make release VERSION=1.2.3
	@scripts/release $(VERSION)

deb-deps:  ## Install what the next two want of Debian 12 (as root, or by sudo)
	@scripts/apt debhelper dpkg-dev fakeroot lintian lxd lxd-client man-db mmdebstrap python3 python3-venv systemd

deb:  ## Build the Debian package, dist/lxdsched_VERSION_amd64.deb
	@scripts/deb

system-test: $(INSTALLED)  ## Test the Debian package in a Debian 12 with systemd, on a real LXD (as root; some minutes)
	@scripts/system-test

clean:  ## Remove what was installed and built
	@rm -rf $(VENV) .incus build dist .fuzz .hypothesis .mypy_cache .ruff_cache .import_linter_cache .pytest_cache
	find lxdsched tests twisted -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache
