# Two commands on a fresh machine:  make sweep  and  make test.  They need Python 3.11 or later and nothing else;
# everything is installed into $(VENV), with the versions in requirements.lock.

VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.stamp
CUDA    = $(VENV)/.stamp-cuda
# The first of these that is Python 3.11 or later and can make virtual environments is taken.
PYTHONS = $(PYTHON) python3.13 python3.12 python3.11 python3 python
ENGINE_TESTS = $(wildcard tests/test_engine_*.py)
# Comes with the CUDA toolkit.
SANITIZER ?= compute-sanitizer
SWEEP   = --dataset mnist_small --delta-t 0,0.001,0.004,0.008,0.01 --seeds 2 --epochs 3 --out results/sweep

# Where this is set, each process compiles every module it imports anew, which costs seconds.
export PYTHONDONTWRITEBYTECODE =

# Where there is no uv: pip takes versions with checksums only if this project, which lies here, had one, too.
UNHASHED = sed '/--hash/d; s/ *\\$$//' requirements.lock > $(VENV)/versions

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile | awk -F@ '{ printf "%-22s %s\n", $$1, $$2 }'

setup: $(STAMP) ## install everything into .venv

$(STAMP): pyproject.toml requirements.lock
	@python=; \
	for candidate in $(PYTHONS); do \
	  if $$candidate -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    python=$$candidate; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "bats_lab needs Python 3.11 or later with its venv module, and none of these is: $(PYTHONS)." >&2; exit 1; \
	fi; \
	echo "Installing into $(VENV) with $$python; this takes a minute or two, once."; \
	$$python -m venv $(VENV) || exit 1; \
	if $(BIN)/python -m pip install --quiet --disable-pip-version-check uv 2>/dev/null; then \
	  VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --constraints requirements.lock \
	    --editable '.[test]'; \
	else \
	  $(UNHASHED); $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/versions -e '.[test]'; \
	fi
	@$(BIN)/python -c 'from bats_lab.engine.kernels import compile_kernels; compile_kernels("cpu", ["float32", "float64"])'
	@touch $@

sweep: $(STAMP) ## run a small sweep of the time step on real digits, and draw it
	$(BIN)/bats-lab sweep $(SWEEP)

# In as many processes as there are cores; each goes through files as they come, and takes from another once it is done.
PYTEST  = $(BIN)/python -m pytest --numprocesses auto --dist worksteal --durations 10

test: $(STAMP) ## run the tests, and tell which ten took longest
	$(PYTEST) -m "not browser"

test-browser: $(STAMP) ## open notebooks and dashboard in Chromium, move every control, see the pictures change
	$(BIN)/python -m pytest -m browser

# The extra "cuda" on top: CuPy, and the libraries of CUDA it loads.
$(CUDA): $(STAMP)
	@if [ -x $(BIN)/uv ]; then \
	  VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --constraints requirements.lock \
	    --editable '.[cuda,test]'; \
	else \
	  $(UNHASHED); $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/versions -e '.[cuda,test]'; \
	fi
	@touch $@

setup-cuda: $(CUDA) ## install CuPy too, for a machine with a GPU

test-gpu: $(CUDA) ## run every test of the engine on the GPU
	$(BIN)/python -c 'from bats_lab.engine import get_backend; print(get_backend("cuda").device_name())'
	$(BIN)/python -m pytest -m gpu $(ENGINE_TESTS)

# CuPy's memory pool would hide what is read or written past the end of an array.
sanitize: $(CUDA) ## watch the kernels on the GPU with compute-sanitizer (memcheck and racecheck)
	BATS_LAB_NO_POOL=1 $(SANITIZER) --tool memcheck --error-exitcode 1 \
	  $(BIN)/python -m pytest -m gpu tests/test_engine_cuda.py tests/test_engine_group.py
	BATS_LAB_NO_POOL=1 $(SANITIZER) --tool racecheck --error-exitcode 1 \
	  $(BIN)/python -m pytest -m gpu tests/test_engine_cuda.py

test-thorough: $(STAMP) ## run the tests with far more random examples
	HYPOTHESIS_PROFILE=thorough $(PYTEST) -m "not browser"

soak: $(STAMP) ## kill at random through a sweep of 200 short runs, and compare what it leaves with an undisturbed one
	$(BIN)/python tests/soak.py

check: $(STAMP) ## lint, check formatting and types, and that notebooks are stored without outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/nbstripout --verify --keep-id notebooks/*.ipynb

format: $(STAMP) ## format the code and strip the notebooks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout --keep-id notebooks/*.ipynb

bench: $(STAMP) ## measure samples per second, how fast explorers answer, what a run costs; AGAINST=REV: beside another commit
	$(BIN)/python tests/benchmarks/bench_engine.py $(if $(AGAINST),--against $(AGAINST))
	$(if $(AGAINST),,$(BIN)/python tests/benchmarks/bench_group.py)
	$(if $(AGAINST),,$(BIN)/python tests/benchmarks/bench_explore.py)
	$(if $(AGAINST),,$(BIN)/python tests/benchmarks/bench_sweep.py)

bench-model: $(STAMP) ## count what a training step does on a GPU, and predict its time; needs none
	$(BIN)/python tests/benchmarks/bench_model.py

dashboard: $(STAMP) ## open the explorers in a browser, without code
	$(BIN)/bats-lab dashboard

screenshots: $(STAMP) ## take the pictures of the explorers in the README anew, in Chromium
	$(BIN)/python tests/screenshots.py

lab: $(STAMP) ## open JupyterLab on the notebooks
	$(BIN)/bats-lab lab

lock: $(STAMP) ## take the newest versions that pyproject.toml allows into requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --no-header --no-annotate \
	  --generate-hashes --output-file requirements.lock pyproject.toml

clean: ## remove the environment and all caches; results stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find bats_lab tests notebooks -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help setup setup-cuda sweep test test-browser test-gpu test-thorough soak sanitize check format bench bench-model dashboard \
  screenshots lab lock clean
