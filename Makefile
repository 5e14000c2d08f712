# What people and the pipeline type. `make help` lists it.
TARGET  ?= x86_64-unknown-linux-gnu
IMAGE   ?= localhost/shadow:1
CLUSTER ?= tests/cluster/cluster
OUT     := target/$(TARGET)/release
TAR     := target/image/shadow.tar
PROGRAMS := postgresql,redis-server,memcached,nodejs,default-jre-headless,python3,python3-flask,gunicorn,nginx-light,mosquitto,rabbitmq-server

export CARGO_BUILD_TARGET := $(TARGET)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 16

# --- build ---

# All in one, with the features that the tests ask of the libraries: else everything would be compiled twice.
.PHONY: build
build: ## the three programs and the examples that the cluster runs, static, in release
	cargo build --release --locked --bins --example consumer --example producer --example counter --example carried

.PHONY: image
image: build ## the image as a tar, without an image builder: target/image/shadow.tar
	$(CLUSTER) image $(TAR) $(IMAGE) --entrypoint '["/shadow"]' $(OUT)/shadow=/shadow $(OUT)/shadow-runc=/shadow-runc

.PHONY: examples-image
examples-image: build ## consumer, producer, counter and carried as a tar: target/image/examples.tar
	$(CLUSTER) image target/image/examples.tar localhost/shadow-examples:1 --entrypoint '["/consumer"]' --volume localhost/shadow-carried:1=/volume \
	  $(OUT)/examples/consumer=/consumer $(OUT)/examples/producer=/producer $(OUT)/examples/counter=/counter \
	  $(OUT)/examples/carried=/carried

.PHONY: scheduler-image
scheduler-image: ## the test cluster's own kube-scheduler as a tar, for the second scheduler
	$(CLUSTER) image target/image/scheduler.tar localhost/kube-scheduler:1 --entrypoint '["kube-scheduler"]' \
	  $$($(CLUSTER) program kube-scheduler)=/usr/local/bin/kube-scheduler

.PHONY: programs-image
programs-image: ## real programs from Debian's packages, and the tests' own servers, as a tar: target/image/programs.tar
	mkdir -p $(OUT)
	CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -C tests/programs/image/go -trimpath -ldflags='-s -w' -o $(CURDIR)/$(OUT)/go-counter .
	$(CLUSTER) image target/image/programs.tar localhost/programs:1 --entrypoint '[]' --packages $(PROGRAMS) \
	  --volume localhost/programs-volume:1=/var/lib/postgresql,/home/app \
	  $(OUT)/go-counter=/programs/go-counter tests/programs/image=/programs

.PHONY: crds
crds: build ## writes the CRD that the code speaks into deploy/
	$(OUT)/shadow crd > deploy/base/crd.yaml

# --- check ---

.PHONY: lint
lint: ## formatting, shell scripts, dependencies, clippy; warnings are errors
	tests/lint

.PHONY: unit
unit: ## everything that needs neither cluster nor broker
	cargo test --release --locked --lib --bins --test manifests

.PHONY: crash
crash: ## SHADOW dies, loses its connection or is doubled at each of its calls in turn (make test: at every fourth)
	CRASH_EACH=1 cargo test --release --locked --test crash_at_every_call -- --nocapture

.PHONY: drains
drains: image examples-image scheduler-image ## ten drains back and forth at each rate, exact (make test: three); the operator is killed at each step (make test: every third)
	DRAINS=10 KILLED_EACH=1 cargo test --release --locked --test promises -- --test-threads=1 --nocapture drain_is_exact whole_pod operator_killed

.PHONY: broker
broker: ## the connection is cut at each frame, every prefetch is tried (make test: a third); on a cluster that runs
	BROKER_EACH=1 $(CLUSTER) in cp -- cargo test --release --locked --offline --test broker -- --nocapture cuts:: prefetch::

.PHONY: explore
explore: ## all interleavings around the protocol (ARGS=thorough: larger bounds; ARGS=mistakes: what it catches; or part of a name)
	cargo run --release --locked --example explore -- $(ARGS)

# --- real cluster on this machine (needs root) ---

.PHONY: cluster-up
cluster-up: ## two nodes, control plane, RabbitMQ
	$(CLUSTER) up

.PHONY: cluster-down
cluster-down: ## takes it away
	$(CLUSTER) down

.PHONY: install
install: image scheduler-image ## into the cluster that runs
	$(CLUSTER) load $(TAR) target/image/scheduler.tar
	$(CLUSTER) kubectl apply -k deploy/overlays/test
	$(CLUSTER) kubectl -n shadow-system rollout status --timeout=120s \
	  deployment/shadow-operator deployment/shadow-webhook deployment/shadow-scheduler daemonset/shadow-agent

.PHONY: uninstall
uninstall: ## out of it again; migrations first, while the operator can still end them; pods of its RuntimeClass are made anew
	$(CLUSTER) kubectl delete --ignore-not-found --wait --timeout=120s --all --all-namespaces statefulmigrations
	$(CLUSTER) kubectl delete --ignore-not-found mutatingwebhookconfiguration shadow
	$(CLUSTER) kubectl get pods --all-namespaces \
	  -o jsonpath='{range .items[?(@.spec.runtimeClassName=="shadow")]}{.metadata.namespace} {.metadata.name}{"\n"}{end}' | \
	  while read -r namespace pod; do $(CLUSTER) kubectl -n "$$namespace" delete --timeout=120s pod "$$pod" < /dev/null || exit; done
	$(CLUSTER) kubectl delete --ignore-not-found --wait -k deploy/overlays/test

# --- see it, test it, measure it (need root; bring the cluster up themselves) ---

.PHONY: demo
demo: image examples-image scheduler-image ## drains a node under load and tells what happens; leaves the cluster up
	cargo run --release --locked --example demo

.PHONY: demo-down
demo-down: cluster-down ## removes what the demo left

.PHONY: test
test: ## everything, on the real cluster too; the last line counts
	tests/run

.PHONY: test-v2
test-v2: build ## dumps and restores on a stock kernel with systemd and cgroup v2, in a virtual machine (a part of make test; tests/v2/README.md)
	tests/v2/v2 runtime

.PHONY: programs
programs: image examples-image scheduler-image programs-image ## real programs, drained there and back: a row a drain, with its ms (ARGS=redis: part of a name)
	cargo test --release --locked --test programs -- --test-threads=1 --nocapture $(ARGS)

.PHONY: soak
soak: image examples-image scheduler-image ## N=100 SEED=1: drains while faults drawn from the seed strike; target/soak/result.json
	cargo build --release --locked --example soak
	N="$(N)" SEED="$(SEED)" $(OUT)/examples/soak

.PHONY: bench-drain
bench-drain: image examples-image scheduler-image ## RATES="10 60 120" RUNS=10 BESIDE=0 (more containers): target/bench/drain.json
	RATES="$(RATES)" RUNS="$(RUNS)" BESIDE="$(BESIDE)" cargo bench --locked --bench drain

.PHONY: bench-rehearsal
bench-rehearsal: image examples-image scheduler-image ## MEGABYTES="20 200 1000" RUNS=6: target/bench/rehearsal.json
	MEGABYTES="$(MEGABYTES)" RUNS="$(RUNS)" cargo bench --locked --bench rehearsal

.PHONY: bench-webhook
bench-webhook: image examples-image scheduler-image ## how fast the webhook answers: target/bench/webhook.json, webhook-cluster.json
	cargo bench --locked --bench webhook
	cargo bench --locked --bench webhook_cluster

.PHONY: bench-extender
bench-extender: ## how fast the extender answers for 500 and 5,000 nodes: target/bench/extender.json
	cargo bench --locked --bench extender
