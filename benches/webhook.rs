//! How fast the webhook answers with 5,000 pods in its caches: over real TLS on loopback, keep-alive, as the API
//! server calls it. What it asks of the API server goes over HTTP to a stub. Prints a table, writes
//! `target/bench/webhook.json`. The goal is p99 <= 5 ms.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test or an instrument that cannot go on says so

mod figures;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::{get, post};
use jiff::Timestamp;
use serde_json::{Value, json};
use shadow::api::{PodUid, StatefulMigration};
use shadow::kit::Shutdown;
use shadow::kit::tls::{ClientAuth, Credentials, TlsStore};
use shadow::webhook::cache::{
    Cache, MigrationFacts, NodeFacts, OwnerFacts, OwnerKind, OwnerRef, PodFacts, PodPhase,
};
use shadow::webhook::{
    Asked, Facts, KubeCluster, Metrics, Settings, Sight, Webhook, decide_eviction, router,
};
use tokio::net::TcpListener;

use figures::{micros, resident_kib};

const PODS: usize = 5_000;
const NAMESPACES: usize = 50;
const MIGRATIONS: usize = 500;
const REQUESTS: usize = 5_000;
const TLS_NAME: &str = "shadow-webhook.shadow-system.svc";

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(bench())
}

async fn bench() -> Result<(), Error> {
    let before = resident_kib();
    let cache = Arc::new(Cache::default());
    fill(&cache);
    let filled = resident_kib();

    let api = serve_api().await?;
    let webhook = Arc::new(Webhook {
        cache: Arc::clone(&cache),
        cluster: KubeCluster::new(kube::Client::try_from(kube::Config::new(api.parse()?))?),
        settings: Settings::in_namespace("shadow-system", Vec::new()),
        metrics: Metrics::new()?,
    });
    let (client, address) = serve_webhook(router(webhook)).await?;

    let mut series = Vec::new();
    let mut measure =
        async |name: &'static str, path: &str, expect: Expect, body: &dyn Fn(usize) -> Value| {
            let url = format!("https://{TLS_NAME}:{}{path}", address.port());
            let bodies: Vec<Vec<u8>> =
                (0..REQUESTS).map(|i| serde_json::to_vec(&body(i))).collect::<Result<_, _>>()?;
            for body in bodies.iter().take(200) {
                expect.check(&send(&client, &url, body.clone()).await?, name)?;
            }
            let mut took = Vec::with_capacity(REQUESTS);
            for body in bodies {
                let begun = Instant::now();
                let answer = send(&client, &url, body).await?;
                took.push(begun.elapsed());
                expect.check(&answer, name)?;
            }
            series.push(Series::of(name, took));
            Ok::<_, Error>(())
        };
    // Pods that nobody migrates, and one that a migration waits for.
    measure("pod create, ordinary", "/pod", Expect::Allowed, &|i| pod_review(plain(i), false)).await?;
    measure("pod create, replacement", "/pod", Expect::Patched, &|i| pod_review(committed(i), false)).await?;
    measure("pod create, asks API server", "/pod", Expect::Patched, &|i| pod_review(annotated(i), false))
        .await?;
    measure("pod create, of a ReplicaSet", "/pod", Expect::Allowed, &|i| pod_review(i, true)).await?;
    let dry = json!({ "dryRun": ["All"] });
    measure("evict, dry run", "/evict", Expect::Allowed, &|i| evict_review(annotated(i), &dry)).await?;
    measure("evict, under way", "/evict", Expect::Patched, &|i| evict_review(running(i), &json!({}))).await?;
    measure("evict, starts migration", "/evict", Expect::Patched, &|i| {
        evict_review(annotated(i), &json!({}))
    })
    .await?;
    measure("evict, not asked for", "/evict", Expect::Allowed, &|i| evict_review(plain(i), &json!({})))
        .await?;
    series.push(decisions(&cache));

    let after = resident_kib();
    report(&series, [before, filled, after])
}

/// What the answer must be, so that no error is ever measured as a fast success.
#[derive(Clone, Copy)]
enum Expect {
    Allowed,
    Patched,
}

impl Expect {
    fn check(self, answer: &[u8], name: &str) -> Result<(), Error> {
        let answer: Value = serde_json::from_slice(answer)?;
        let response = &answer["response"];
        let patched = response.get("patch").is_some();
        let right = response["allowed"] == json!(true) && patched == matches!(self, Self::Patched);
        if right { Ok(()) } else { Err(format!("{name}: unexpected {answer}").into()) }
    }
}

// Every tenth pod is annotated; of each hundred, number 10 is being migrated and number 20 is past its commit.
fn annotated(i: usize) -> usize {
    (i * 100 + 30) % PODS
}

fn running(i: usize) -> usize {
    (i * 100 + 10) % PODS
}

fn committed(i: usize) -> usize {
    (i * 100 + 20) % PODS
}

fn plain(i: usize) -> usize {
    (i * 10 + 1) % PODS
}

fn namespace(i: usize) -> String {
    format!("team-{}", i % NAMESPACES)
}

fn owner(i: usize) -> OwnerRef {
    OwnerRef { kind: OwnerKind::StatefulSet, name: format!("set-{i}"), uid: format!("owner-{i}") }
}

fn pod(i: usize) -> PodFacts {
    PodFacts {
        node: Some(format!("n{}", i % 100).as_str().into()),
        phase: PodPhase::Running,
        created: Some(Timestamp::UNIX_EPOCH),
        owner: Some(owner(i)),
        revision: Some(format!("set-{i}-7c9d")),
        ..PodFacts::new(&namespace(i), &format!("set-{i}-0"), pod_uid(i))
    }
}

fn pod_uid(i: usize) -> PodUid {
    format!("00000000-0000-0000-0000-{i:012}").into()
}

fn migration(i: usize, status: &Value) -> MigrationFacts {
    let object: Result<StatefulMigration, _> = serde_json::from_value(json!({
        "apiVersion": "migration.ms2m.io/v1alpha1", "kind": "StatefulMigration",
        "metadata": { "name": format!("evict-{}", pod_uid(i)), "namespace": namespace(i), "uid": format!("abc-{i}") },
        "spec": { "sourcePod": format!("set-{i}-0"), "sourcePodUid": pod_uid(i) },
        "status": status
    }));
    match object {
        Ok(object) => object.into(),
        Err(error) => unreachable!("a literal: {error}"),
    }
}

fn fill(cache: &Cache) {
    let policy = |i: usize| {
        i.is_multiple_of(10).then(|| ("migration.ms2m.io/policy".to_owned(), "MigrateOrEvict".to_owned()))
    };
    cache.pods.replace((0..PODS).map(pod));
    cache.stateful_sets.replace((0..PODS).map(|i| OwnerFacts {
        namespace: namespace(i),
        name: format!("set-{i}"),
        uid: format!("owner-{i}"),
        annotations: policy(i).into_iter().collect(),
        ..OwnerFacts::default()
    }));
    cache.replica_sets.replace((0..PODS).map(|i| OwnerFacts {
        namespace: namespace(i),
        name: format!("web-{i}"),
        uid: format!("replicas-{i}"),
        ..OwnerFacts::default()
    }));
    cache.deployments.replace([]);
    cache.nodes.replace((0..100).map(|i| NodeFacts {
        name: format!("n{i}"),
        hostname: Some(format!("n{i}")),
        leaving: false,
        labels: [("migration.ms2m.io/ready".to_owned(), "true".to_owned())].into(),
        taints: vec![],
    }));
    // 50 run, 50 are past their commit, the rest ended long ago.
    cache.migrations.replace((0..MIGRATIONS).map(|m| {
        let i = m * (PODS / MIGRATIONS);
        let status = |phase: &str, step: &str, committed: bool| {
            json!({ "phase": phase, "step": step, "committed": committed, "epoch": 1, "targetNode": "n7",
                    "ownerUid": format!("owner-{i}") })
        };
        match i % 100 {
            10 => migration(i, &status("Checkpointing", "Dumping", false)),
            20 => migration(i, &status("Finalizing", "Replacing", true)),
            _ => {
                let ended = status("Completed", "Completed", true);
                MigrationFacts { source_uid: Some(format!("gone-{i}").into()), ..migration(i, &ended) }
            }
        }
    }));
}

/// A review of the size that the API server sends: a container with the usual defaults, managed fields.
fn pod_review(i: usize, of_replica_set: bool) -> Value {
    let (kind, name, uid) = if of_replica_set {
        ("ReplicaSet", format!("web-{i}"), format!("replicas-{i}"))
    } else {
        ("StatefulSet", format!("set-{i}"), format!("owner-{i}"))
    };
    let container = json!({
        "name": "app", "image": "registry.example.com/app:1", "resources": { "requests": { "cpu": "100m" } },
        "env": (0..20).map(|n| json!({ "name": format!("V{n}"), "value": "some value" })).collect::<Vec<_>>(),
        "volumeMounts": [{ "name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }],
        "terminationMessagePath": "/dev/termination-log", "imagePullPolicy": "IfNotPresent"
    });
    let mut review =
        review(i, "pods", &Value::Null, "system:serviceaccount:kube-system:statefulset-controller");
    review["request"]["object"] = json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": format!("{name}-0"), "namespace": namespace(i), "labels": { "app": "web" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true }],
            "managedFields": [{ "manager": "kube-controller-manager", "fieldsV1": { "f:metadata": { "f:labels": {} } } }]
        },
        "spec": { "containers": [container], "restartPolicy": "Always", "schedulerName": "default-scheduler",
                  "volumes": [{ "name": "token", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } }] }
    });
    review
}

fn evict_review(i: usize, options: &Value) -> Value {
    let mut review = review(i, "pods", &json!("eviction"), "kubernetes-admin");
    review["request"]["object"] = json!({
        "kind": "Eviction", "apiVersion": "policy/v1", "deleteOptions": options,
        "metadata": { "name": format!("set-{i}-0"), "namespace": namespace(i), "managedFields": [{ "manager": "kubectl" }] }
    });
    review
}

fn review(i: usize, resource: &str, sub_resource: &Value, user: &str) -> Value {
    json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": format!("705ab4f5-6393-11e8-b7cc-{i:012}"), "operation": "CREATE", "dryRun": false,
            "resource": { "group": "", "version": "v1", "resource": resource }, "subResource": sub_resource,
            "name": format!("set-{i}-0"), "namespace": namespace(i),
            "userInfo": { "username": user, "groups": ["system:authenticated"] }
        }
    })
}

/// Facts from the cache and the decision on them, without HTTP.
fn decisions(cache: &Cache) -> Series {
    let mut took = Vec::with_capacity(REQUESTS);
    for i in 0..REQUESTS {
        let at = [annotated(i), running(i), plain(i)][i % 3];
        let (namespace, name) = (namespace(at), format!("set-{at}-0"));
        let asked = Asked { namespace: namespace.clone(), name: name.clone(), ..Asked::default() };
        let begun = Instant::now();
        let pod = cache.pod(&namespace, &name);
        let known = pod.as_deref();
        let facts = Facts {
            workload: cache.workload(&namespace, known.and_then(|p| p.owner.as_ref())),
            leaving_by: known.and_then(|p| cache.migration_from(&p.uid)),
            came_by: known.and_then(|p| cache.migration_to(p)),
            of_name: cache.migrations.read().of_pod_name(&namespace, &name),
            node: known.and_then(|p| p.node.as_ref()).and_then(|node| cache.node(node.as_str())),
            now: Timestamp::now(),
            pod: pod.map_or(Sight::Unseen, Sight::Cached),
        };
        std::hint::black_box(decide_eviction(&asked, &facts));
        took.push(begun.elapsed());
    }
    Series::of("evict, facts and decision alone", took)
}

/// An API server that has no migration for anybody and accepts every new one.
async fn serve_api() -> Result<String, Error> {
    const PATH: &str = "/apis/migration.ms2m.io/v1alpha1/namespaces/{namespace}/statefulmigrations";
    let list = json!({ "apiVersion": "migration.ms2m.io/v1alpha1", "kind": "StatefulMigrationList",
                       "metadata": { "resourceVersion": "1" }, "items": [] });
    let lists = get(move || {
        let list = list.clone();
        async move { axum::Json(list) }
    });
    let creates = post(async |body: axum::Json<Value>| (http::StatusCode::CREATED, body));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new().route(PATH, lists.merge(creates));
    tokio::spawn(shadow::kit::serve_plain(listener, router, Shutdown::with_lag(Duration::ZERO)));
    Ok(format!("http://{address}"))
}

async fn serve_webhook(router: Router) -> Result<(reqwest::Client, std::net::SocketAddr), Error> {
    let made = rcgen::generate_simple_self_signed([TLS_NAME.to_owned()])?;
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = TlsStore::new(Credentials::from_pem(certificate.as_bytes(), key.as_bytes(), b"")?)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let shutdown = Shutdown::with_lag(Duration::ZERO);
    tokio::spawn(shadow::kit::serve_tls(listener, router, tls, ClientAuth::None, shutdown));
    let roots = shadow::kit::tls::root_store(certificate.as_bytes())?;
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(shadow::kit::tls::anonymous_client_config(roots)?)
        .no_proxy()
        .tcp_nodelay(true)
        .resolve(TLS_NAME, address)
        .build()?;
    Ok((client, address))
}

async fn send(client: &reqwest::Client, url: &str, body: Vec<u8>) -> Result<bytes::Bytes, Error> {
    let answer = client.post(url).header("content-type", "application/json").body(body).send().await?;
    Ok(answer.error_for_status()?.bytes().await?)
}

/// One line of the table.
struct Series {
    name: &'static str,
    p50: Duration,
    p99: Duration,
    worst: Duration,
}

impl Series {
    fn of(name: &'static str, mut took: Vec<Duration>) -> Self {
        took.sort_unstable();
        let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
        Self { name, p50: at(50), p99: at(99), worst: at(100) }
    }
}

fn report(series: &[Series], [before, filled, after]: [u64; 3]) -> Result<(), Error> {
    println!("{PODS} pods, {MIGRATIONS} migrations, {REQUESTS} requests a line, TLS, one connection");
    println!("{:<34} {:>10} {:>10} {:>10}", "", "p50 us", "p99 us", "max us");
    for Series { name, p50, p99, worst } in series {
        println!("{name:<34} {:>10.1} {:>10.1} {:>10.1}", micros(*p50), micros(*p99), micros(*worst));
    }
    println!("resident: {before} KiB empty, {filled} KiB with full caches, {after} KiB after all requests");
    let lines: Vec<Value> = series
        .iter()
        .map(|s| json!({ "name": s.name, "p50_us": micros(s.p50), "p99_us": micros(s.p99), "max_us": micros(s.worst) }))
        .collect();
    let all = json!({
        "pods": PODS, "migrations": MIGRATIONS, "requests": REQUESTS, "series": lines,
        "resident_kib": { "empty": before, "cached": filled, "after": after }
    });
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("webhook.json"), serde_json::to_vec_pretty(&all)?)?;
    Ok(())
}
