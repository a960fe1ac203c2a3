# lobar on one machine. Needs Debian with make, python3 (3.11 or newer) and python3-venv.
PYTHON ?= python3
PARALLEL ?= 2
BIN := .venv/bin
STORE ?= file
RUN := runs/$(STORE)
ROOT := $(RUN)
ROOT.s3 := s3://lobar
ROOT.minio := s3://lobar
ROOT.gcs := gs://lobar
ROOT.azure := abfs://lobar
ifneq ($(STORE),file)
ROOT := $(or $(ROOT.$(STORE)),$(error STORE=$(STORE) is unknown: use file, s3, minio, gcs or azure))
SERVE := $(BIN)/python -m dev.servers $(STORE) $(RUN)/store
endif

.DEFAULT_GOAL := help
.PHONY: help install run main-job minio gcs azure test check images push test-images lint-workflows test-cluster deploy bench bench-quality bench-systems bench-transfer bench-ceiling \
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

run: install $(filter minio gcs azure,$(STORE)) ## generate synthetic data, train and predict; STORE=file|s3|minio|gcs|azure
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

# $(call build-gcs,message): builds an emulator of Google Cloud Storage; install-azure: Microsoft's of Azure Blob Storage
build-gcs = command -v fake-gcs-server >/dev/null || test -x .tools/fake-gcs-server || { command -v go >/dev/null && \
	echo "building fake-gcs-server with Go into .tools; this takes about 4 minutes, once" && \
	CGO_ENABLED=0 GOBIN="$(CURDIR)/.tools" go install github.com/fsouza/fake-gcs-server@v1.56.1; } || \
	{ echo "fake-gcs-server was not found: $(1)" >&2; exit 2; }
install-azure = command -v azurite-blob >/dev/null || test -x .tools/azurite/node_modules/.bin/azurite-blob || { \
	command -v npm >/dev/null && echo "installing Azurite with npm into .tools; this takes about 2 minutes, once" && \
	mkdir -p .tools/azurite && cp dev/azurite/*.json .tools/azurite && \
	npm ci --prefix .tools/azurite --ignore-scripts --no-audit --no-fund --loglevel=error; } || \
	{ echo "Azurite was not found: $(1)" >&2; exit 2; }

gcs: ## build the emulator for STORE=gcs with Go, unless it is on PATH
	@$(call build-gcs,put fake-gcs-server on PATH or install Go to build it)

azure: ## install the emulator for STORE=azure with npm, unless it is on PATH
	@$(call install-azure,put azurite-blob on PATH or install Node.js with npm)

test: check ## run make check and all tests; PARALLEL=number of processes
	@($(call build-minio,its tests are skipped)) || true
	@($(call build-gcs,its tests are skipped)) || true
	@($(call install-azure,its tests are skipped)) || true
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

# Argo is built from its Go modules, whose content dev/argo/go.sum pins. They lack two files that the build needs: the
# page that the argo command embeds, and a symbolic link.
ARGO_VERSIONS := $(shell cut -d ' ' -f 2 dev/argo/go.sum)
ARGO_MODULE = github.com/argoproj/argo-workflows/$(firstword $(subst ., ,$*))
ARGO_BUILD = cd .tools/argo/$*/src && mkdir -p ui/dist/app && touch ui/dist/app/index.html && \
	ln -sf signal_darwin.go workflow/executor/osspecific/signal_linux.go && \
	CGO_ENABLED=0 go build -tags kubernetes_protomessage_one_more_release -ldflags='-s -w -X $(ARGO_MODULE).version=$*' -o ..

.tools/argo/%/src: dev/argo/go.mod dev/argo/go.sum
	@command -v go >/dev/null || { echo "Go was not found: install it to build Argo" >&2; exit 2; }
	@rm -rf $(@D) && mkdir -p $(@D)
	@go mod download -C dev/argo $(ARGO_MODULE)@$*
	@cp -r "$$(go env GOMODCACHE)/$(ARGO_MODULE)@$*" $@.new && chmod -R u+w $@.new
	@mv $@.new $@

.tools/argo/%/argo: .tools/argo/%/src
	@echo "building the argo command $*; this takes 5 minutes, once"
	@$(ARGO_BUILD) ./cmd/argo

.tools/argo/%/workflow-controller: .tools/argo/%/src
	@echo "building Argo's controller and executor $*; this takes a few minutes, once"
	@$(ARGO_BUILD) ./cmd/argoexec ./cmd/workflow-controller

WORKFLOWS := $(filter-out workflows/kustomization.yaml,$(wildcard workflows/*.yaml)) k8s/overlays/minio/demo-data.yaml
# Of Argo 3.6, only the schemas are tested. Without Go, the argo command on PATH lints.
LINTS := $(if $(shell command -v go),$(patsubst %,.tools/argo/%/argo,$(filter-out v3.6.%,$(ARGO_VERSIONS))),$(shell command -v argo))

lint-workflows: $(if $(shell command -v go),$(ARGO_VERSIONS:%=.tools/argo/%/src)) $(LINTS) ## lint all workflow files with Argo's own command
	@test -n "$(LINTS)" || { echo "lint-workflows needs Go, which builds Argo's command, or argo on PATH" >&2; exit 2; }
	@for argo in $(LINTS); do $$argo version --short && $$argo lint --offline $(WORKFLOWS) || exit; done

.tools/kubernetes/kubelet: dev/kubernetes/go.mod dev/kubernetes/go.sum
	@command -v go >/dev/null || { echo "Go was not found: install it to build Kubernetes" >&2; exit 2; }
	@echo "building Kubernetes; this takes 10 minutes, once"
	@cd dev/kubernetes && CGO_ENABLED=0 go build -ldflags="-s -w -X k8s.io/component-base/version.gitVersion=$$( \
		go list -m -f '{{.Version}}' k8s.io/kubernetes)" -o $(CURDIR)/.tools/kubernetes/ $$(go list tool)

.tools/kubernetes/kube-router:
	@echo "building kube-router, which enforces network policies; this takes 2 minutes, once"
	@CGO_ENABLED=0 GOBIN="$(CURDIR)/.tools/kubernetes" go install github.com/cloudnativelabs/kube-router/v2/cmd/kube-router@v2.1.0

LOBAR_ARGO ?= $(lastword $(ARGO_VERSIONS))
test-cluster: install minio $(addprefix .tools/argo/$(LOBAR_ARGO)/,argo workflow-controller) .tools/kubernetes/kubelet .tools/kubernetes/kube-router images ## run workflows on a real Kubernetes with Argo on this machine
	$(BIN)/python -m dev.cluster runs/cluster -- $(BIN)/python -m pytest -m cluster -v --tb=short

KUBECTL ?= $(BIN)/kubectl
OVERLAYS := $(notdir $(wildcard k8s/overlays/*))

deploy: install ## apply an overlay to the cluster of kubectl's context; OVERLAY=minio|gke|eks|aks
	@test -n "$(filter $(OVERLAY),$(OVERLAYS))" || { echo "deploy needs OVERLAY, one of: $(OVERLAYS)" >&2; exit 2; }
	@$(KUBECTL) get crd workflowtemplates.argoproj.io >/dev/null || \
		{ echo "Argo Workflows was not found in the cluster (see above): install it first" >&2; exit 2; }
	$(KUBECTL) apply -k k8s/overlays/$(OVERLAY)
ifeq ($(OVERLAY),minio)
	@$(KUBECTL) -n lobar get secret lobar-store >/dev/null 2>&1 || { $(PYTHON) -c 'import secrets; \
		print(f"AWS_ACCESS_KEY_ID={secrets.token_hex(10)}\nAWS_SECRET_ACCESS_KEY={secrets.token_hex(20)}\n" \
		"AWS_ENDPOINT_URL=http://minio.lobar:9000\nAWS_DEFAULT_REGION=us-east-1")' | \
		$(KUBECTL) -n lobar create secret generic lobar-store --from-env-file=/dev/stdin; }
	$(KUBECTL) -n lobar rollout status deployment/minio --timeout=5m
endif

.venv/bench: .venv/installed requirements/bench.txt
	@echo "installing the libraries that lobar is compared with"
	@$(BIN)/pip install -q --require-hashes -r requirements/bench.txt
	@touch $@

QUIET := TF_CPP_MIN_LOG_LEVEL=3

bench: .venv/bench ## measure speed, memory and scale, and write them to docs/benchmarks.md
	@# TensorFlow's own choice, because its speed is compared
	@$(QUIET) TF_NUM_INTEROP_THREADS=$$(nproc) $(BIN)/python -m bench

bench-quality: install ## compare the recipe demo with the notebook, and write docs/quality.md
	@$(QUIET) $(BIN)/python -m bench.quality

bench-systems: install ## compare metric and speed with the notebook's in one run, and write them to docs/benchmarks.md
	@$(QUIET) $(BIN)/python -m bench.systems

bench-transfer: install ## compare pretrained with random weights on real images; DATA=folder with labels.csv, groups.csv, images/
	@$(QUIET) $(BIN)/python -m bench.transfer $(DATA)

bench-ceiling: install ## compute the highest metric of each network's output grid; LABELS=table.csv
	@$(BIN)/python -m bench.ceiling $(LABELS)

clean: ## remove runs/; .venv and .tools are kept
	rm -rf runs

PIN := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

lock: install ## update and pin all dependencies with their hashes
	$(PIN) --upgrade --extra azure --extra gcs --extra train --extra test --extra lock --no-emit-package lobar pyproject.toml -o requirements/dev.txt
	$(PIN) --constraint requirements/dev.txt --extra azure --extra gcs pyproject.toml -o requirements/jobs.txt
	$(PIN) --constraint requirements/dev.txt --extra azure --extra gcs --extra train pyproject.toml -o requirements/train.txt
	$(PIN) --constraint requirements/dev.txt --extra azure --extra gcs --extra cuda pyproject.toml -o requirements/train-cuda.txt
	$(PIN) --constraint requirements/dev.txt --extra train --extra bench pyproject.toml -o requirements/bench.txt
