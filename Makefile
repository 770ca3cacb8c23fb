# A fresh machine needs a Rust toolchain, a C compiler and make; what else is missing is installed or named.

CARGO ?= cargo

.PHONY: help demo test lint bench instructions fuzz regress grammar drivers auth-drivers prometheus parity panels pictures

help:
	@echo "make demo    a primary, two replicas and the pooler before them; Ctrl-C removes everything"
	@echo "make test    all tests, against the PostgreSQL installed here"
	@echo "make lint    formatting, clippy and documentation, warnings are errors"
	@echo "make bench   the pooler beside PgBouncer, HAProxy and a direct connection; ARGS=--quick for a short run"
	@echo "make instructions  instructions of the hot path, by callgrind, to benches/INSTRUCTIONS.md"
	@echo "make regress PostgreSQL's regression suite, directly and through the pooler; MODES and TESTS choose"
	@echo "make grammar the scan of statements beside PostgreSQL's own grammar, over its regression suite"
	@echo "make drivers client drivers at their defaults, through the pooler; DRIVERS=\"psycopg pgx\" for some"
	@echo "make auth-drivers  each driver's logins by each method and mode of TLS, to drivers/AUTH.md"
	@echo "make prometheus  what scrapes of 1000 pools cost, whether clients notice, and a real Prometheus"
	@echo "make panels  the dashboard's panels under load, drawn by chromium from a Prometheus's answers, to docs/panels.png"
	@echo "make parity  the console beside a real PgBouncer: each SHOW, column by column"
	@echo "make pictures  screenshots of the status page under load, to docs/pictures"
	@echo "make fuzz    every fuzz target for FUZZ_SECONDS (60); TARGET=name for one"

demo:
	@sh scripts/check-tools.sh
	@sh scripts/install-postgres.sh
	@$(CARGO) run --release --quiet -- demo

test:
	@sh scripts/check-tools.sh
	@sh scripts/install-postgres.sh
	@sh scripts/install-ldap.sh
	@sh scripts/install-prometheus.sh
	@sh scripts/install-traced-python.sh
	@sh scripts/install-chromium.sh
	$(CARGO) test --workspace --no-fail-fast

lint:
	@sh scripts/check-tools.sh fmt clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

bench:
	@sh scripts/check-tools.sh
	@sh scripts/install-postgres.sh
	@sh scripts/install-bench-peers.sh
	$(CARGO) build --release
	$(CARGO) bench --bench compare -- $(ARGS)

instructions:
	@sh scripts/check-tools.sh
	@sh scripts/install-bench-tools.sh
	@CARGO=$(CARGO) sh scripts/instructions.sh

fuzz:
	@sh scripts/fuzz.sh $(TARGET)

regress:
	@sh scripts/check-tools.sh
	@sh scripts/install-postgres.sh
	@CARGO=$(CARGO) sh scripts/regress.sh

grammar:
	@sh scripts/check-tools.sh
	@sh scripts/install-postgres.sh
	@CARGO=$(CARGO) sh scripts/grammar.sh

drivers:
	@sh scripts/check-tools.sh
	@sh scripts/install-postgres.sh
	@CARGO=$(CARGO) sh scripts/drivers.sh

pictures:
	@sh scripts/check-tools.sh
	@sh scripts/install-postgres.sh
	@sh scripts/install-chromium.sh
	@CARGO=$(CARGO) sh scripts/pictures.sh

auth-drivers:
	@sh scripts/check-tools.sh
	@sh scripts/install-postgres.sh
	@CARGO=$(CARGO) sh scripts/auth-drivers.sh

prometheus:
	@sh scripts/check-tools.sh
	@sh scripts/install-postgres.sh
	@sh scripts/install-prometheus.sh
	$(CARGO) test --release --test watching -- --ignored --nocapture --test-threads 1 thousand::

parity:
	@sh scripts/check-tools.sh
	@sh scripts/install-postgres.sh
	@sh scripts/install-bench-peers.sh
	$(CARGO) test --test console -- --ignored --nocapture parity::

panels:
	@sh scripts/check-tools.sh
	@sh scripts/install-postgres.sh
	@sh scripts/install-prometheus.sh
	@command -v chromium >/dev/null || { echo "panels: put chromium on PATH" >&2; exit 1; }
	$(CARGO) test --release --test watching -- --ignored --nocapture panels::
	cp target/panels.png docs/panels.png
