# The shop's few commands. `make up` needs Python 3.11-3.13 and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := requirements/run.txt
UP := requirements/up.txt
DEV := requirements/dev.txt
# uv without the user's configuration, so that a lock names no index; the header says how it is made.
COMPILE = $(BIN)/uv pip compile --no-config --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" requirements/build.in setup.cfg
PROTOS := eshop/contracts/proto
CHECKED := eshop gateway tests

.DEFAULT_GOAL := help
.PHONY: help up test compose-test faults check fmt docs lock stubs check-stubs check-lock

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(VENV)/up ## Install what is missing and run the whole shop; Ctrl-C stops it. ARGS="--scale orders=2"
	@$(BIN)/eshop up $(ARGS)

test: $(VENV)/dev ## Run all tests, on a real Kafka, Postgres and Valkey. ARGS="-k wallet"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest $(ARGS)

compose-test: $(VENV)/dev ## Run the shop in containers, order, scale, order again; needs Docker with Compose
	@$(BIN)/python -m pytest -m engine tests/compose $(ARGS)

faults: $(VENV)/dev ## Inject every fault into a whole shop, and audit it. MINUTES=60 ORDERS=200000 KILLS=100 SEED=1 CHAPTER=outages
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.faults $(CHAPTER) $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(ORDERS),--orders $(ORDERS)) $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

check: $(VENV)/dev check-stubs check-lock ## Lint, format, types, imports between rooms, stale stubs and locks
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" lint-imports
	$(BIN)/hadolint docker/Dockerfile

fmt: $(VENV)/dev ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix $(CHECKED)
	$(BIN)/ruff format $(CHECKED)

docs: $(VENV)/dev ## Make docs/settings.md and docs/services.md from the code
	@$(BIN)/python docs/generate.py

# run: what the services need, for the image; up: with the cluster's parts; dev: with all tools.
lock: $(VENV)/dev ## Lock Python packages and Kafka's jars again (needs the network)
	$(COMPILE) --upgrade -o $(RUN)
	$(COMPILE) --upgrade --extra cluster --constraints $(RUN) -o $(UP)
	$(COMPILE) --upgrade --all-extras --constraints $(UP) -o $(DEV)
	$(BIN)/python -m eshop.cluster.lock

stubs: $(VENV)/dev ## Make the gRPC stubs from the .proto files
	@$(call make_stubs,.)

check-stubs: $(VENV)/dev
	@mkdir -p build/stubs && $(call make_stubs,build/stubs)
	@for file in build/stubs/$(PROTOS)/*; do \
		cmp -s "$$file" "$(PROTOS)/$${file##*/}" || { echo "$${file##*/} is stale: make stubs"; exit 1; }; \
	done; rm -r build/stubs

# A lock is fresh if resolving setup.cfg again, with the lock's own versions preferred, changes nothing.
check-lock: $(VENV)/dev
	@mkdir -p build && cp $(RUN) $(UP) $(DEV) build/
	@$(COMPILE) -o build/run.txt >/dev/null && \
		$(COMPILE) --extra cluster --constraints $(RUN) -o build/up.txt >/dev/null && \
		$(COMPILE) --all-extras --constraints $(UP) -o build/dev.txt >/dev/null
	@cmp $(RUN) build/run.txt && cmp $(UP) build/up.txt && cmp $(DEV) build/dev.txt || { echo "the locks are stale: make lock"; exit 1; }

define make_stubs
PATH="$(CURDIR)/$(BIN):$$PATH" python -m grpc_tools.protoc -I . --python_out=$(1) --grpc_python_out=$(1) \
	--mypy_out=$(1) --mypy_grpc_out=$(1) $(PROTOS)/*.proto
endef

# The stamps: an install runs again only if its lock or the packaging has changed. dev has all of up.
$(VENV)/up: $(UP) setup.cfg
	$(call install,$(UP))
	@touch $@

$(VENV)/dev: $(DEV) setup.cfg
	$(call install,$(DEV))
	@touch $@ $(VENV)/up

define install
@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	|| { echo "Python 3.11, 3.12 or 3.13 is needed: make up PYTHON=python3.12"; exit 1; }
@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	|| { rm -rf $(VENV); echo "this Python lacks venv (Debian: apt install python3-venv)"; exit 1; }
@$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r $(1)
@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
endef
