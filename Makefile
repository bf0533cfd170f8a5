# SPDX-License-Identifier: BSD-3-Clause
# The front door. Bare make prints what there is.

PYTHON := .venv/bin/python

help:
	@sed -n 's/^\([a-z]*\): *.*## /\1\t/p' Makefile | expand -t 10

run: ## two private hosts share one public address; stays up until Ctrl-C
	./run

test: ## every test there is
	./test

lint: ## style, types and storeys only
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports

bpf: ## compile the eBPF programs
	$(MAKE) -C bpf

fuzz: ## feed mutated octets to the parsers: SECONDS=60
	tools/fuzz.sh $(or $(SECONDS),60)

soak: ## play every scenario again and again: ROUNDS=10
	tools/soak.sh $(or $(ROUNDS),10)

bench: ## measure everything, beside what people use today; an hour, in quiet: ONLY="packet nat"
	$(PYTHON) bench/everything.py $(ONLY)

fresh: ## ./run --once and ./test inside a new Debian 12
	tools/fresh.sh

docs: ## write help texts, tables and plots into the docs again
	$(PYTHON) bench/plot.py
	.venv/bin/cog -r -P -I docs docs/*.md README.md

.PHONY: help run test lint bpf fuzz soak bench fresh docs
