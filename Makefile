# The commands of this project. `make` lists them.
# Only Python 3.11 or newer (with venv) and make are needed; everything else is installed into .venv.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run test check bench chaos format secrets screenshots lock wheel clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run ## start the whole local stack and say where to go (Ctrl-C stops it)
	@exec $(BIN)/python -m bff dev

test: $(VENV)/.test ## run all tests that can run on this machine
	@$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.test ## lint, types and import rules, without the tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test ## measure the proxy beside others, and say what to install (QUICK=1: about a minute)
	@$(MAKE) --no-print-directory VENV=build/bench-venv build/bench-venv/.run
	$(BIN)/python -m benchmarks.proxy --python $(CURDIR)/build/bench-venv/bin/python $(if $(QUICK),--quick) $(if $(DOCS),--docs)

chaos: $(VENV)/.test ## kill and slow everything under load, and say what users noticed (QUICK=1: about a minute)
	$(BIN)/python -m benchmarks.chaos $(if $(QUICK),--quick)

format: $(VENV)/.test ## format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

secrets: ## make the secrets that `docker compose up --build` needs (once; what is there stays)
	@sh deploy/compose/make-secrets.sh

screenshots: $(VENV)/.test ## take the pictures of the README anew, from the browser tests
	SCREENSHOTS=build/screenshots $(BIN)/python -m pytest -q tests/e2e/test_looks.py
	cp build/screenshots/signed_in-1280.png docs/images/signed-in.png

lock: $(VENV)/.test ## resolve the dependencies anew and write the two lock files
	@$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--upgrade -q pyproject.toml --group build -o requirements.lock
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--upgrade -q pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock

wheel: $(VENV)/.run ## build the wheel into dist/
	$(BIN)/python -m pip wheel -q --no-deps --no-build-isolation -w dist .

clean: ## remove what was installed and built here
	rm -rf $(VENV) dist build *.egg-info

$(VENV)/.venv:
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed, and none was found. Install one, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "Python's venv module is missing. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version) …"
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }
	@touch $@

$(VENV)/.run: $(VENV)/.venv requirements.lock pyproject.toml
	@echo "installing what the program needs (once, about half a minute) …"
	@$(BIN)/python -m pip install --require-hashes -r requirements.lock | \
		sed -un 's/^Collecting \([a-z][^ ]*\).*/  \1/p;s/^Installing collected.*/  … and unpacking them/p'
	@$(BIN)/python -m pip install -q --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements-dev.lock
	@echo "installing what the tests need (once) …"
	@$(BIN)/python -m pip install -q --require-hashes -r requirements-dev.lock
	@touch $@
