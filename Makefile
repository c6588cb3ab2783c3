# Everything that a developer or CI runs. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LINT := .venv-lint
PEERS := .venv-bench
STAMP := $(VENV)/.installed
ASSEMBLY := spotrelay/_assembly
LONG ?= long
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION := 20

.PHONY: help install dev demo cloud test test-all check docs mutants model spin sshd assembly synth bench-cold-start bench-storm bench-scale bench-event bench-checkpoint bench-clients acceptance-aws clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'pip>=25.1' --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[torch,hf,jax,deploy,demo,node]' --group dev
	@touch $@

# cfn-lint has a home of its own: its needs and those of the CDK library differ
$(LINT)/.installed: Makefile
	$(PYTHON) -m venv $(LINT)
	$(LINT)/bin/python -m pip install --quiet cfn-lint==1.58.0
	@touch $@

# other checkpoint libraries, with pins of their own
$(PEERS)/.installed: pyproject.toml benchmarks/checkpoint/constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet 'pip>=25.1'
	$(PEERS)/bin/python -m pip install --quiet --constraint benchmarks/checkpoint/constraints.txt --editable '.[torch,bench]'
	@touch $@

install: $(STAMP) ## the virtual environment with everything that development needs

dev: install ## install, and check before each commit
	@printf '#!/bin/sh\nexec make check\n' > .git/hooks/pre-commit && chmod +x .git/hooks/pre-commit

assembly: install ## the stack and its Lambda assets, built for this machine
	@$(BIN)/python -m infra.assembly --out $(ASSEMBLY) --arch host --python host --if-stale

demo: assembly ## reclaim a training run five times on this machine, and prove that nothing was lost
	@$(BIN)/spotrelay demo

cloud: assembly ## AWS on loopback with the stack in it, to try the commands against
	@$(BIN)/python -m spotrelay.localcloud

test: assembly spin sshd ## the tests, with fixed seeds
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not long'

test-all: assembly spin sshd ## the tests with the long histories and races
	SPOTRELAY_HISTORIES=$(LONG) $(BIN)/python -m pytest -n 2 --dist loadgroup

check: install $(LINT)/.installed ## formatting, types, import rules, shell scripts, the stack's rules and its synthesis
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --cache-dir $${XDG_CACHE_HOME:-$$HOME/.cache}/spotrelay-mypy spotrelay handlers trainer_shim infra
	$(BIN)/lint-imports --no-cache
	$(BIN)/shellcheck spotrelay/instance/resume.sh .ci/run
	$(BIN)/python -m pytest tests/infra -m nag
	$(BIN)/python -m infra.assembly --out $(ASSEMBLY) --arch host --python host --if-stale
	$(LINT)/bin/cfn-lint --config-file infra/cfn-lint.yaml $(ASSEMBLY)/*.template.json
	$(MAKE) synth

docs: install ## renew what the documents show of the code
	$(BIN)/python -m tests.docs.drawings
	$(BIN)/python -m tests.model.tables

mutants: install ## break each promise on purpose: its test has to turn red
	$(BIN)/python -m tests.mutants

model: install ## search every history of the protocol's model, and find every seeded bug
	$(BIN)/python -m tests.model

spin: install # installs SPIN where it may; says how to where not
	@$(BIN)/python -m tests.model --tools

sshd: install # installs an SSH server for the tests where it may; says how to where not
	@$(BIN)/python -m tests.hosts

synth: install ## the stack as `cdk deploy` sends it to AWS, with the pinned CLI
	npm ci --no-audit --no-fund
	PATH="$(CURDIR)/$(BIN):$$PATH" npx --no-install cdk synth --quiet

bench-cold-start: assembly ## instructions of each function's start, against bare Python
	$(BIN)/python -m benchmarks.cold_start

bench-scale: install ## requests of 10,000 idle runs and of a storm of 20,000, and what they cost, into docs/scale.md
	$(BIN)/python -m benchmarks.page scale

bench-storm: assembly ## thousands of runs reclaimed at once
	$(BIN)/python -m benchmarks.storm

bench-event: assembly ## from an event to the launch call
	$(BIN)/python -m benchmarks.event_to_launch

bench-checkpoint: $(PEERS)/.installed ## what checkpoints cost, ours and of other libraries; ARGS=--quick for a minute of it
	$(PEERS)/bin/python -m benchmarks.checkpoint $(ARGS)

bench-clients: $(PEERS)/.installed ## which S3 client moves checkpoints best
	$(PEERS)/bin/python -m benchmarks.s3_clients $(ARGS)

acceptance-aws: install ## on a real account, with your credentials: deploys, trains, interrupts, destroys
	$(BIN)/python -m tests.acceptance_aws $(ARGS)

clean: ## everything that was made here
	rm -rf $(VENV) $(LINT) $(PEERS) $(ASSEMBLY) cdk.out node_modules .spotrelay build dist
