//! The kubelet, the container runtime and `shadow-runc` of one node: starts, restores and stops what is bound to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use shadow::agent::ticket::Verdict;
use shadow::api::{ANNOTATION_TICKET, ClaimRequest, RUNTIME_CLASS, RestoreFault, RestoreOutcome};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::World;
use super::agent::{Agent, bundles};
use super::app::{App, Memory};
use super::objects::{Key, text, uid};
use super::wire::Line;

const SANDBOX: Duration = Duration::from_millis(20);
const RESTORE: Duration = Duration::from_millis(30);
const TEARDOWN: Duration = Duration::from_millis(20);
const PROBE: Duration = Duration::from_millis(50);
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// As `runtime::claim` has them.
const CLAIM_PATIENCE: Duration = Duration::from_secs(95);
const REPORT_PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(50);

/// One pod that this node runs.
struct Run {
    task: JoinHandle<()>,
    app: Arc<Mutex<Option<Arc<App>>>>,
    stopping: bool,
}

/// Runs for ever.
pub async fn kubelet(world: World, node: String) {
    let mut runs: HashMap<String, Run> = HashMap::new();
    let mut changes = world.objects.changes();
    loop {
        changes.borrow_and_update();
        let (pods, _) = world.objects.list("pods", None);
        let mine: Vec<&Value> = pods.iter().filter(|pod| text(pod, "/spec/nodeName") == node).collect();
        for pod in &mine {
            let is_new = !runs.contains_key(uid(pod)) && pod.pointer("/metadata/deletionTimestamp").is_none();
            if is_new {
                let app = Arc::default();
                let task = tokio::spawn(run(world.clone(), node.clone(), (*pod).clone(), Arc::clone(&app)));
                runs.insert(uid(pod).to_owned(), Run { task, app, stopping: false });
            } else if !runs.contains_key(uid(pod)) {
                let key = Key::new("pods", text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
                let _ = world.objects.delete(&key, Some(uid(pod)), true);
            }
        }
        for (pod_uid, run) in runs.iter_mut().filter(|(_, run)| !run.stopping) {
            let there = mine.iter().find(|pod| uid(pod) == pod_uid);
            if there.is_none_or(|pod| pod.pointer("/metadata/deletionTimestamp").is_some()) {
                run.stopping = true;
                let started = run.app.lock().clone();
                if started.is_none() {
                    run.task.abort();
                }
                let object = there.map(|pod| (*pod).clone());
                tokio::spawn(stop(world.clone(), node.clone(), pod_uid.clone(), started, object));
            }
        }
        let _ = changes.changed().await;
    }
}

/// SIGTERM, then nothing of it is left on the node, then its object goes.
async fn stop(world: World, node: String, pod_uid: String, app: Option<Arc<App>>, object: Option<Value>) {
    if let Some(app) = app {
        app.stop();
        app.died().await;
    }
    sleep(TEARDOWN).await;
    let _ = std::fs::remove_dir_all(bundles(world.node(&node).dir()).join(&pod_uid));
    if let Some(object) = object {
        let key = Key::new("pods", text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
        let _ = world.objects.delete(&key, Some(&pod_uid), true);
    }
}

async fn run(world: World, node: String, pod: Value, started: Arc<Mutex<Option<Arc<App>>>>) {
    let (name, pod_uid) = (text(&pod, "/metadata/name").to_owned(), uid(&pod).to_owned());
    let key = Key::new("pods", text(&pod, "/metadata/namespace"), &name);
    sleep(SANDBOX).await;
    let bundle = bundles(world.node(&node).dir()).join(&pod_uid);
    std::fs::create_dir_all(&bundle).unwrap();
    let config = json!({ "annotations": { "io.kubernetes.cri.sandbox-uid": pod_uid,
        "io.kubernetes.cri.container-name": "app" } });
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let ip = format!(
        "10.0.{}.{}",
        node.trim_start_matches('n'),
        pod_uid.trim_start_matches('0').split('-').next().unwrap()
    );
    let ticket = pod.pointer("/metadata/annotations").and_then(|all| all.get(ANNOTATION_TICKET));
    let ticket =
        ticket.and_then(Value::as_str).filter(|_| text(&pod, "/spec/runtimeClassName") == RUNTIME_CLASS);
    let app = match ticket {
        None => App::start(&world, &name, &pod_uid, Memory::default()),
        Some(ticket) => {
            let request = ClaimRequest {
                ticket: ticket.parse().unwrap(),
                pod: pod_uid.as_str().into(),
                container: "app".into(),
                container_id: String::new(),
                pod_ip: Some(ip.clone()),
            };
            let line = world.wire.line(&format!("shadow-runc {node}"), false);
            let mut attempt = 0;
            loop {
                attempt += 1;
                let request =
                    ClaimRequest { container_id: format!("{pod_uid}.{attempt}"), ..request.clone() };
                match create(&world, &line, &node, &name, &request).await {
                    Some(app) => break app,
                    None => sleep(TRY_AGAIN).await,
                }
            }
        }
    };
    *started.lock() = Some(app);
    let status = |ready: &'static str| {
        let ip = ip.clone();
        move |object: &mut Value| {
            object["status"] = json!({ "phase": "Running", "podIP": ip,
                "conditions": [{ "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": ready }] });
        }
    };
    let is_same = || world.objects.get(&key).is_some_and(|object| uid(&object) == pod_uid);
    if is_same() {
        let _ = world.objects.change(&key, None, status("False"));
    }
    sleep(PROBE).await;
    if is_same() {
        let _ = world.objects.change(&key, None, status("True"));
    }
}

/// One `create` by `shadow-runc`; `None` where it fails and the kubelet tries again.
async fn create(
    world: &World,
    line: &Line,
    node: &str,
    pod: &str,
    request: &ClaimRequest,
) -> Option<Arc<App>> {
    let (mut agent, verdict) = claim(world, line, node, request, CLAIM_PATIENCE).await?;
    match verdict {
        Verdict::Restore => {}
        Verdict::Fresh(_) => return Some(App::start(world, pod, request.pod.as_str(), Memory::default())),
        Verdict::Wait | Verdict::Refuse(_) | Verdict::Recorded => return None,
    }
    let archive = agent.store.archive(&request.ticket.migration, request.ticket.epoch);
    let image = std::fs::read_to_string(archive.join("images/pages-1.img"));
    sleep(RESTORE).await;
    let Ok(image) = image else {
        broke_off(&agent, request);
        return None;
    };
    // The process is there from here on, whoever hears of it, and stands still.
    let memory = world.image(image.parse().unwrap());
    let app = App::restore(world, pod, request.pod.as_str(), &request.container_id, memory);
    let deadline = Instant::now() + REPORT_PATIENCE;
    while !report(line, &agent, request).await {
        sleep(RETRY).await;
        let left = deadline.saturating_duration_since(Instant::now());
        let again = if left > RETRY { claim(world, line, node, request, left).await } else { None };
        match again {
            Some((answering, Verdict::Restore)) => agent = answering,
            Some((_, Verdict::Recorded)) => break,
            _ => {
                app.kill(world); // only what the agent has on record may live
                return None;
            }
        }
    }
    Some(app)
}

/// Asks until an agent answers.
async fn claim(
    world: &World,
    line: &Line,
    node: &str,
    request: &ClaimRequest,
    patience: Duration,
) -> Option<(Arc<Agent>, Verdict)> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(agent) = world.node(node).agent() {
            let claim = {
                let (agent, request) = (Arc::clone(&agent), request.clone());
                async move { agent.desk.claim(&request, deadline).await.unwrap() }
            };
            let what = format!("claim {}", request.ticket);
            let waiting = Waiting { agent: &agent, request };
            let claimed = tokio::select! {
                claimed = line.call(&what, claim) => Some(claimed),
                () = agent.stopped.cancelled() => None,
            };
            drop(waiting);
            match claimed {
                Some(Ok(verdict)) => return Some((agent, verdict)),
                Some(Err(_)) => broke_off(&agent, request),
                None => {}
            }
        }
        if Instant::now() + RETRY >= deadline {
            return None;
        }
        sleep(RETRY).await;
    }
}

/// A claim that waits: the agent hears when its other side is gone.
struct Waiting<'a> {
    agent: &'a Agent,
    request: &'a ClaimRequest,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.agent.stopped.is_cancelled() {
            let _ = self.agent.desk.left(&self.request.ticket);
        }
    }
}

/// Tells the agent that the process lives; false where it did not answer.
async fn report(line: &Line, agent: &Arc<Agent>, request: &ClaimRequest) -> bool {
    let ended = {
        let (agent, ticket) = (Arc::clone(agent), request.ticket.clone());
        async move {
            agent.stopped.is_cancelled() || agent.desk.ended(&ticket, &RestoreOutcome::Restored).is_err()
        }
    };
    match line.call(&format!("restored {}", request.ticket), ended).await {
        Ok(failed) => !failed,
        Err(_) => {
            broke_off(agent, request);
            false
        }
    }
}

/// Whoever restores and breaks off gives the ticket back; an agent that has recorded the end does not mind.
fn broke_off(agent: &Agent, request: &ClaimRequest) {
    if !agent.stopped.is_cancelled() {
        let fault = RestoreFault::BrokenOff;
        let failed = RestoreOutcome::Failed { reason: "shadow-runc broke off".into(), fault };
        let _ = agent.desk.ended(&request.ticket, &failed);
    }
}
