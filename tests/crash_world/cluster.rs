//! The rest of the cluster: what there is at the beginning, scheduler, StatefulSet controller, drainer, producer, user.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Request;
use serde_json::{Value, json};
use shadow::api::{LABEL_MIGRATION, StatefulMigration};
use tokio::time::sleep;

use super::World;
use super::api_server::{Call, User, create_object, serve};
use super::app::PRIMARY;
use super::objects::{Key, text, uid};
use super::sidecar::SIDECAR;

pub const NAMESPACE: &str = "shop";
pub const POD: &str = "web-0";
/// The pod is on the first; the scheduler prefers the second to the third.
pub const NODES: [&str; 3] = ["n1", "n2", "n3"];
const PUBLISH: Duration = Duration::from_millis(15);
/// So many at that pace, then less.
const BURST: u64 = 40;
const LATER: Duration = Duration::from_secs(1);
const MOST: u64 = 250;
const WRITE: Duration = Duration::from_millis(25);
const MANY_WRITES: u32 = 200;
/// How long a machine is merely silent before somebody vouches that it is down; by the world's clock.
const SILENT: Duration = Duration::from_secs(3);
/// How long whoever is waited for lets others wait; by the world's clock.
const DECIDES_AFTER: Duration = Duration::from_secs(5);

pub fn pod_key() -> Key {
    Key::new("pods", NAMESPACE, POD)
}

/// Everything but the migration.
pub fn furnish(world: &World) {
    let create = |key: Key, object: Value| drop(world.objects.create(&key, object).unwrap());
    for node in NODES {
        let ready = json!([{ "type": "Ready", "status": "True" }]);
        let object = json!({ "metadata": { "labels": { "kubernetes.io/hostname": node,
            "migration.ms2m.io/ready": "true" } }, "spec": {},
            "status": { "conditions": ready, "allocatable": { "cpu": "64", "memory": "64Gi", "pods": "110" } } });
        create(Key::new("nodes", "", node), object);
    }
    let url = "YW1xcDovL21lbW9yeQ=="; // amqp://memory
    create(Key::new("secrets", NAMESPACE, "broker"), json!({ "metadata": {}, "data": { "url": url } }));
    let service = json!({ "metadata": {}, "spec": { "clusterIP": "None", "selector": { "app": "web" },
        "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] } });
    create(Key::new("services", NAMESPACE, "web"), service);
    let annotations = json!({ "migration.ms2m.io/policy": world.scenario.policy(), "migration.ms2m.io/queue": PRIMARY,
        "migration.ms2m.io/broker-secret": "broker", "migration.ms2m.io/deadline": world.scenario.deadline(),
        "migration.ms2m.io/state-from": world.scenario.state_from() });
    let set = json!({ "metadata": { "annotations": annotations }, "spec": { "replicas": 1,
        "selector": { "matchLabels": { "app": "web" } }, "serviceName": "web",
        "template": { "metadata": { "labels": { "app": "web" } } } } });
    create(Key::new("statefulsets", NAMESPACE, "web"), set);
    world.broker.declare(PRIMARY);
}

/// The pod's init container.
pub const INIT: &str = "fill";

/// Makes the pod whenever there is none.
pub async fn stateful_set_controller(world: World) {
    let owner = Key::new("statefulsets", NAMESPACE, "web");
    let set = world.objects.get(&owner).unwrap();
    let template = json!({
        "metadata": { "name": POD, "namespace": NAMESPACE, "labels": { "app": "web" }, "ownerReferences": [
            { "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": uid(&set), "controller": true }] },
        "spec": { "hostname": POD, "subdomain": "web", "restartPolicy": "Always",
            "initContainers": [{ "name": INIT, "image": "fill:1" },
                { "name": SIDECAR, "image": "log:1", "restartPolicy": "Always" }],
            "containers": [{ "name": "app", "image": "shop:1", "ports": [{ "containerPort": 8080 }],
            "resources": { "requests": { "cpu": "1", "memory": "1Gi" } } }] },
    });
    let mut changes = world.objects.changes();
    let mut pause = Duration::from_millis(200);
    loop {
        changes.borrow_and_update();
        let Some(set) = world.objects.get(&owner) else { return };
        if set["spec"]["replicas"] != json!(0) && world.objects.get(&pod_key()).is_none() {
            sleep(Duration::from_millis(5)).await;
            match create_object(&world, User::StatefulSetController, "pods", template.clone()).await {
                Ok(_) => pause = Duration::from_millis(200),
                Err(_) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(10));
                    continue;
                }
            }
        }
        let _ = changes.changed().await;
    }
}

/// Binds pods to the first node that they may go to.
pub async fn scheduler(world: World) {
    let mut changes = world.objects.changes();
    loop {
        changes.borrow_and_update();
        let (pods, _) = world.objects.list("pods", None);
        for pod in pods.iter().filter(|pod| text(pod, "/spec/nodeName").is_empty()) {
            let key = Key::new("pods", NAMESPACE, text(pod, "/metadata/name"));
            let fits = NODES.iter().find(|node| fits(&world, pod, node));
            let _ = world.objects.change(&key, None, |pod| match fits {
                Some(node) => pod["spec"]["nodeName"] = json!(node),
                None => {
                    pod["status"]["conditions"] =
                        json!([{ "type": "PodScheduled", "status": "False", "message": "no node is available" }]);
                }
            });
        }
        let _ = changes.changed().await;
    }
}

fn fits(world: &World, pod: &Value, node: &str) -> bool {
    let object = world.objects.get(&Key::new("nodes", "", node)).unwrap();
    let tolerations = pod.pointer("/spec/tolerations").and_then(Value::as_array);
    let tolerates = tolerations.into_iter().flatten().any(|t| t["key"] == "node.kubernetes.io/unschedulable");
    let cordoned = object.pointer("/spec/unschedulable") == Some(&json!(true)) && !tolerates;
    let wanted = pod.pointer("/spec/nodeSelector/kubernetes.io~1hostname").and_then(Value::as_str);
    let terms =
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let terms = pod.pointer(terms).and_then(Value::as_array);
    let kept_away = terms.into_iter().flatten().any(|term| {
        let fields = term["matchFields"].as_array();
        fields
            .into_iter()
            .flatten()
            .any(|field| field["values"].as_array().is_some_and(|v| v.contains(&json!(node))))
    });
    !cordoned && !kept_away && wanted.is_none_or(|wanted| wanted == node)
}

/// `kubectl drain`: cordons, evicts until the pod is gone or its migration was refused for good.
pub async fn drainer(world: World, source: String) {
    let node = Key::new("nodes", "", NODES[0]);
    world.objects.change(&node, None, |node| node["spec"]["unschedulable"] = json!(true)).unwrap();
    let is_there = || world.objects.get(&pod_key()).is_some_and(|pod| uid(&pod) == source);
    while is_there() && !world.has_ended() {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{POD}/eviction");
        let request = Request::post(path).body(()).unwrap();
        let body = json!({ "kind": "Eviction", "apiVersion": "policy/v1",
            "metadata": { "name": POD, "namespace": NAMESPACE } });
        let call = Call::read(User::Drainer, &request, body.to_string().as_bytes());
        let response = serve(world.clone(), call).await;
        if response.status().as_u16() == 201 {
            while is_there() && !world.has_ended() {
                sleep(Duration::from_secs(1)).await; // of the world's clock, which stands while anything can run
            }
            return;
        }
        sleep(Duration::from_secs(5)).await; // as kubectl, of the world's clock
    }
}

/// Publishes numbers, first many, then few, until nothing moves any more.
pub async fn producer(world: World) {
    loop {
        let number = world.published.load(Ordering::SeqCst);
        sleep(if number < BURST { PUBLISH } else { LATER }).await;
        if world.has_ended() && number >= BURST || number >= MOST {
            return;
        }
        publish(&world);
    }
}

pub fn publish(world: &World) {
    let number = world.published.fetch_add(1, Ordering::SeqCst) + 1;
    world.broker.publish(PRIMARY, number.to_string().into_bytes());
}

/// Writes over HTTP to whoever has the pod's name and is ready, as a Service would: first often, then seldom, until the
/// end and a little longer.
pub async fn writer(world: World) {
    for tries in 0.. {
        if tries >= MANY_WRITES && world.has_ended() {
            return;
        }
        let pod = world.objects.get(&pod_key()).filter(is_ready);
        if let Some(app) = pod.and_then(|pod| world.app(uid(&pod))) {
            app.write(&world);
        }
        sleep(if tries < MANY_WRITES { WRITE } else { LATER }).await;
    }
}

/// What a Service sends requests to.
pub fn is_ready(pod: &Value) -> bool {
    pod.pointer("/status/conditions/1/status") == Some(&json!("True"))
}

/// Asks to go back as soon as the migration is in that step.
pub async fn user_who_aborts(world: World, step: &'static str) {
    let migration = until_step(&world, step).await;
    let key = Key::new("statefulmigrations", NAMESPACE, text(&migration, "/metadata/name"));
    world.objects.change(&key, None, |migration| migration["spec"]["abort"] = json!(true)).unwrap();
    world.wire.note(format!("user aborts in {step}"));
}

/// The second node loses its power once the migration is in this step; somebody vouches for that a little later.
pub async fn power_cut(world: World, step: &'static str) {
    until_step(&world, step).await;
    world.lose(NODES[1]);
    sleep(SILENT).await;
    let node = Key::new("nodes", "", NODES[1]);
    let taint = json!([{ "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute" }]);
    world.objects.change(&node, None, |node| node["spec"]["taints"] = taint).unwrap();
    world.wire.note(format!("{} is out of service", NODES[1]));
}

/// Whoever is waited for says so, some time later.
pub async fn user_who_decides(world: World, field: &'static str, value: Value) {
    let migration = until_step(&world, "Stranded").await;
    sleep(DECIDES_AFTER).await;
    world.decided.store(true, Ordering::SeqCst);
    let key = Key::new("statefulmigrations", NAMESPACE, text(&migration, "/metadata/name"));
    world.objects.change(&key, None, |migration| migration["spec"][field] = value).unwrap();
    world.wire.note(format!("user says {field}"));
}

/// Whoever is waited for tries again while the owner is scaled down; then he scales it up, mends, and tries once more.
pub async fn user_who_scales(world: World) {
    let migration = until_step(&world, "Stranded").await;
    sleep(DECIDES_AFTER).await;
    let migration = Key::new("statefulmigrations", NAMESPACE, text(&migration, "/metadata/name"));
    let tries = |time: u32, replicas: u32| {
        let set = Key::new("statefulsets", NAMESPACE, "web");
        world.objects.change(&set, None, |set| set["spec"]["replicas"] = json!(replicas)).unwrap();
        if replicas == 0 {
            let _ = world.objects.delete(&pod_key(), None, false); // as its controller does
        }
        world.objects.change(&migration, None, |migration| migration["spec"]["retry"] = json!(time)).unwrap();
        world.wire.note(format!("user has {replicas} pods, and says retry"));
    };
    tries(1, 0);
    let mut changes = world.objects.changes();
    loop {
        changes.borrow_and_update();
        let status = world.objects.get(&migration).map(|migration| migration["status"].clone());
        let Some(status) = status else { return };
        if status["step"] == "Stranded" && status["retries"] == 1 {
            break;
        }
        let _ = changes.changed().await;
    }
    sleep(DECIDES_AFTER).await;
    world.decided.store(true, Ordering::SeqCst);
    tries(2, 1);
}

/// Whoever is waited for does not come: the namespace is deleted, some time later, and the broker was in it.
pub async fn user_who_deletes_the_namespace(world: World) {
    let migration = until_step(&world, "Stranded").await;
    sleep(DECIDES_AFTER).await;
    world.broker_is_gone.store(true, Ordering::SeqCst);
    let migration = ("statefulmigrations", text(&migration, "/metadata/name"));
    for (plural, name) in [("secrets", "broker"), ("services", "web"), ("statefulsets", "web"), migration] {
        world.objects.delete(&Key::new(plural, NAMESPACE, name), None, false).unwrap();
    }
    world.wire.note("user deletes the namespace".to_owned());
}

async fn until_step(world: &World, step: &str) -> Value {
    let mut changes = world.objects.changes();
    loop {
        changes.borrow_and_update();
        let (migrations, _) = world.objects.list("statefulmigrations", None);
        if let Some(migration) = migrations.into_iter().find(|m| text(m, "/status/step") == step) {
            return migration;
        }
        let _ = changes.changed().await;
    }
}

/// Pods of `shadow-agent`, as the operator's cache has them.
pub fn agent_pods() -> Vec<Value> {
    let pod = |(index, node): (usize, &&str)| {
        json!({ "metadata": { "name": format!("agent-{node}"), "namespace": "shadow-system" },
            "spec": { "nodeName": node, "containers": [] },
            "status": { "hostIP": format!("192.168.0.{}", index + 1),
                "conditions": [{ "type": "Ready", "status": "True" }] } })
    };
    NODES.iter().enumerate().map(pod).collect()
}

/// The one migration, if it was begun.
pub fn migration(world: &World) -> Option<StatefulMigration> {
    let (found, _) = world.objects.list("statefulmigrations", None);
    found.into_iter().next().and_then(|object| serde_json::from_value(object).ok())
}

/// Pods made for a migration.
pub fn shadows(world: &World) -> Vec<String> {
    let (pods, _) = world.objects.list("pods", None);
    let of_migration = |pod: &&Value| pod["metadata"]["labels"].get(LABEL_MIGRATION).is_some();
    pods.iter().filter(of_migration).map(|pod| text(pod, "/metadata/name").to_owned()).collect()
}
