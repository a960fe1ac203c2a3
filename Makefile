# lobar on one machine. Needs Debian with make, python3 (3.11 or newer) and python3-venv.
PYTHON ?= python3
PARALLEL ?= 2
BIN := .venv/bin
STORE ?= file
RUN := runs/$(STORE)
ROOT := $(RUN)
ifeq ($(findstring |$(STORE)|,|file|s3|minio|),)
$(error STORE=$(STORE) is unknown: use STORE=file, STORE=s3 or STORE=minio)
endif
ifneq ($(STORE),file)
ROOT := s3://lobar
SERVE := $(BIN)/python -m dev.servers $(STORE) $(RUN)/store
endif

.DEFAULT_GOAL := help
.PHONY: help install run main-job minio test check images push test-images lint-workflows test-cluster deploy bench bench-quality bench-ceiling \
	clean lock

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed ## install lobar and its tools into .venv

.venv/installed: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "lobar needs Python 3.11 or newer as $(PYTHON): apt-get install python3, or make PYTHON=..."; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) has no venv module: apt-get install python3-venv"; exit 2; }
	@echo "installing into .venv; this takes one or two minutes"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install -q --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

run: install $(filter minio,$(STORE)) ## generate synthetic data, train and predict; STORE=file|s3|minio
	@$(if $(SERVE),$(SERVE) --) $(MAKE) --no-print-directory main-job
	@echo "results: $(RUN)/report.html    $(RUN)/submission.csv"
	@$(if $(SERVE),echo "the objects of $(ROOT) are in $(RUN)/store; to start the server again: $(SERVE)")

main-job:
	@$(BIN)/python -m jobs demo-data --out $(ROOT)/data
	@$(BIN)/python -m lobar.workflow workflows/full.yaml --parallel $(PARALLEL) \
		-p root=$(ROOT) -p artifacts=$(RUN) -p recipe=demo -p shards=4 -p valid-fraction=0.22

# $(call build-minio,message if it cannot be built): builds MinIO, whose project no longer publishes binaries
build-minio = command -v minio >/dev/null || test -x .tools/minio || { command -v go >/dev/null && \
	echo "building MinIO with Go into .tools; this takes about 4 minutes, once" && \
	CGO_ENABLED=0 GOBIN="$(CURDIR)/.tools" go install github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c; } || \
	{ echo "MinIO was not found: $(1)" >&2; exit 2; }

minio: ## build MinIO for STORE=minio with Go, unless it is on PATH
	@$(call build-minio,put minio on PATH, install Go to build it, or use STORE=s3)

test: check ## run make check and all tests; PARALLEL=number of processes
	@($(call build-minio,its tests are skipped)) || true
	$(BIN)/python -m pytest -n $(PARALLEL) --dist loadfile

check: install ## check format, lint, types, layers of imports and the Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

# Containers are built with podman or docker, whichever is installed; VERSION is the version of lobar
ENGINE ?= $(firstword $(notdir $(shell command -v podman docker)))
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' lib/lobar/core/version.py)
BUILD = $(or $(ENGINE),$(error images need podman or docker)) build $(if $(BASE),--build-arg BASE=$(BASE)) $(BUILD_OPTIONS)

images: ## build the container images; CUDA=1 for GPU nodes, BASE=another Python image
	$(BUILD) --target jobs -t lobar:$(VERSION) .
	$(BUILD) --target train $(if $(CUDA),--build-arg TRAIN=train-cuda) -t lobar-train:$(VERSION) .

push: ## push the container images to REGISTRY=host/path
	@test -n "$(REGISTRY)" || { echo "push needs REGISTRY=host/path" >&2; exit 2; }
	for name in lobar lobar-train; do $(ENGINE) tag $$name:$(VERSION) $(REGISTRY)/$$name:$(VERSION) && \
		$(ENGINE) push $(REGISTRY)/$$name:$(VERSION) || exit; done
	@echo "submit with: -p image=$(REGISTRY)/lobar:$(VERSION) -p train-image=$(REGISTRY)/lobar-train:$(VERSION)"

test-images: install ## build the images and run every job in them; BASE=another Python image
	BASE=$(BASE) $(BIN)/python -m pytest -m images -v

# Argo's lint, controller and executor are built from its Go module. In Argo's repository signal_linux.go is a symbolic
# link, which a Go module cannot contain, so it is created in the vendored copy.
ARGO := github.com/argoproj/argo-workflows/v4
ARGO_VERSION := $(shell sed -n 's|^require $(ARGO) ||p' dev/argo/go.mod)
ARGO_BUILD = cd .tools/argo && CGO_ENABLED=0 go build -mod=vendor -tags kubernetes_protomessage_one_more_release \
	-ldflags='-s -w -X $(ARGO).version=$(ARGO_VERSION)' -o bin/

.tools/argo/vendored: dev/argo/go.mod dev/argo/go.sum
	@command -v go >/dev/null || { echo "Go was not found: install it to build Argo" >&2; exit 2; }
	@rm -rf .tools/argo && mkdir -p .tools/argo && cp -r dev/argo/. .tools/argo
	cd .tools/argo && go mod vendor
	@ln -s signal_darwin.go .tools/argo/vendor/$(ARGO)/workflow/executor/osspecific/signal_linux.go
	@touch $@

.tools/argo/bin/lint: .tools/argo/vendored dev/argo/lint/main.go
	@cp dev/argo/lint/main.go .tools/argo/lint
	@echo "building Argo's lint; this takes a few minutes, once"
	@$(ARGO_BUILD) ./lint

.tools/argo/bin/workflow-controller: .tools/argo/vendored
	@echo "building Argo's controller and executor; this takes a few minutes, once"
	@$(ARGO_BUILD) $(ARGO)/cmd/workflow-controller $(ARGO)/cmd/argoexec

WORKFLOWS := $(filter-out workflows/kustomization.yaml,$(wildcard workflows/*.yaml)) k8s/overlays/minio/demo-data.yaml

lint-workflows: $(if $(shell command -v argo),,.tools/argo/bin/lint) ## lint all workflow files with Argo's own linter
	@$(if $(shell command -v argo),argo lint --offline,.tools/argo/bin/lint) $(WORKFLOWS)

.tools/kubernetes/kubelet: dev/kubernetes/go.mod dev/kubernetes/go.sum
	@command -v go >/dev/null || { echo "Go was not found: install it to build Kubernetes" >&2; exit 2; }
	@echo "building Kubernetes; this takes 10 minutes, once"
	@cd dev/kubernetes && CGO_ENABLED=0 go build -ldflags="-s -w -X k8s.io/component-base/version.gitVersion=$$( \
		go list -m -f '{{.Version}}' k8s.io/kubernetes)" -o $(CURDIR)/.tools/kubernetes/ $$(go list tool)

.tools/kubernetes/kube-router:
	@echo "building kube-router, which enforces network policies; this takes 2 minutes, once"
	@CGO_ENABLED=0 GOBIN="$(CURDIR)/.tools/kubernetes" go install github.com/cloudnativelabs/kube-router/v2/cmd/kube-router@v2.1.0

test-cluster: install minio .tools/argo/bin/workflow-controller .tools/kubernetes/kubelet .tools/kubernetes/kube-router images ## run workflows on a real Kubernetes with Argo on this machine
	$(BIN)/python -m dev.cluster runs/cluster -- $(BIN)/python -m pytest -m cluster -v

KUBECTL ?= $(BIN)/kubectl
OVERLAYS := $(notdir $(wildcard k8s/overlays/*))

deploy: install ## apply an overlay to the cluster of kubectl's context; OVERLAY=minio|gke|eks
	@test -n "$(filter $(OVERLAY),$(OVERLAYS))" || { echo "deploy needs OVERLAY, one of: $(OVERLAYS)" >&2; exit 2; }
	@$(KUBECTL) get crd workflowtemplates.argoproj.io >/dev/null || \
		{ echo "Argo Workflows was not found in the cluster (see above): install it first" >&2; exit 2; }
	$(KUBECTL) apply $(APPLY_OPTIONS) -k k8s/overlays/$(OVERLAY)
ifeq ($(OVERLAY),minio)
	@$(KUBECTL) -n lobar get secret lobar-store >/dev/null 2>&1 || { $(PYTHON) -c 'import secrets; \
		print(f"AWS_ACCESS_KEY_ID={secrets.token_hex(10)}\nAWS_SECRET_ACCESS_KEY={secrets.token_hex(20)}\n" \
		"AWS_ENDPOINT_URL=http://minio.lobar:9000\nAWS_DEFAULT_REGION=us-east-1")' | \
		$(KUBECTL) -n lobar create secret generic lobar-store --from-env-file=/dev/stdin; }
	$(KUBECTL) -n lobar rollout status deployment/minio --timeout=5m
endif

bench: install ## measure speed, memory and scale, and write them to docs/benchmarks.md
	@TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m bench

bench-quality: install ## compare the recipe demo with the notebook, and write docs/quality.md
	@TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m bench.quality

bench-ceiling: install ## compute the highest metric of each network's output grid; LABELS=table.csv
	@$(BIN)/python -m bench.ceiling $(LABELS)

clean: ## remove runs/; .venv and .tools are kept
	rm -rf runs

PIN := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

lock: install ## update and pin all dependencies with their hashes
	$(PIN) --upgrade --extra gcs --extra train --extra test --extra lock --no-emit-package lobar pyproject.toml -o requirements/dev.txt
	$(PIN) --constraint requirements/dev.txt --extra gcs pyproject.toml -o requirements/jobs.txt
	$(PIN) --constraint requirements/dev.txt --extra gcs --extra train pyproject.toml -o requirements/train.txt
	$(PIN) --constraint requirements/dev.txt --extra gcs --extra cuda pyproject.toml -o requirements/train-cuda.txt
