# Every target sets up what it needs first; a machine needs Rust, cc, make and a package manager.

CARGO ?= cargo
KILLS ?= 200
CALLS ?= 10000000

.PHONY: help demo test check unit e2e recipes chaos crossed bench bridge schema setup clients fmt clean

help: ## This list
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: setup ## The main job on loopback: three processes, every step shown, then URLs to try
	$(CARGO) run --release --example demo

test: setup check unit e2e ## Everything that decides whether a change is good
	$(MAKE) --no-print-directory chaos KILLS=20 SEED= PROFILE=

check: ## Formatting and lints, without running anything
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

# What must not compile comes last and alone: it builds for minutes, and tests that look at the clock want a calm machine.
unit: setup clients ## Unit and integration tests
	$(CARGO) test --workspace --locked -- --skip compile_fail::
	$(CARGO) test --locked --test it compile_fail::

e2e: setup ## Unmodified MCP servers and an OAuth server nobody here wrote, driven by the official MCP client
	$(CARGO) build --workspace --bins --locked
	e2e/run

# Not a part of `test`: it takes what the registries have today.
recipes: setup ## Try the recipes of published MCP servers with the real packages, and write down which work
	$(CARGO) build --workspace --bins --locked
	e2e/run recipes

# A debug build: it is there already, and what is slow dies in more places.
chaos: setup ## Kill Sidekey again and again, and see whether it loses anything: KILLS=200 SEED= PROFILE=
	$(CARGO) build --locked --bin sidekey
	$(CARGO) run --quiet --locked --example chaos -- --kills $(KILLS) $(if $(SEED),--seed $(SEED)) $(if $(PROFILE),--profile $(PROFILE))

crossed: setup ## Ten million calls of many users at once: nobody's carries somebody else's token. CALLS=10000000
	SIDEKEY_CROSSED_CALLS=$(CALLS) $(CARGO) test --release --locked --test it -- crossed_tokens --nocapture

bench: setup ## Injection beside a bare Pingora pass-through, interception beside mitmproxy, in one run
	$(CARGO) build --release --locked --bin sidekey --example bare --example load
	$(CARGO) build --release --locked -p sidekey-simulator
	benches/run

bridge: setup ## What the bridge adds to a call of a server that speaks stdio, and what an idle child costs
	$(CARGO) build --release --locked --bin sidekey
	SIDEKEY_BIN=$(CURDIR)/target/release/sidekey e2e/run bridge-cost

schema: setup ## Regenerate config/*.schema.json and docs/configuration.md
	SIDEKEY_WRITE_SCHEMA=1 $(CARGO) test --lib is_current

setup: ## Install what is missing (Pingora needs cmake, tests of what a kill or a broken disk leaves need strace)
	@scripts/setup cmake strace

# What a client makes of our certificates is for the clients to say.
clients: setup
	@scripts/setup openssl python3 javac

fmt: ## Format the code
	$(CARGO) fmt --all

clean: ## Remove everything that was built or installed here
	$(CARGO) clean
	rm -rf benches/.venv e2e/.venv e2e/.venv-v1 e2e/.venv-clients e2e/.venv-api e2e/.venv-uv e2e/.built e2e/.recipes
	rm -rf e2e/node_modules e2e/unmodified/node_modules e2e/manifests/node_modules
