//! The kubelet, the container runtime and `shadow-runc` of one node: starts, restores and stops what is bound to it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use shadow::agent::restore::ticket::Verdict;
use shadow::agent::restore::tickets::NotRecorded;
use shadow::api::{
    ANNOTATION_INIT_CONTAINERS, ANNOTATION_TICKET, ClaimRequest, InitRun, InitRuns, RUNTIME_CLASS,
    RestoreFault, RestoreOutcome, Role,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::World;
use super::agent::{Agent, bundles};
use super::app::{App, Memory};
use super::cluster::INIT;
use super::containers::Process;
use super::mistake::Mistake;
use super::objects::{Key, text, uid};
use super::sidecar::{SIDECAR, Sidecar};
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
    while !world.node(&node).is_lost() {
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
                run.task.abort();
                let started = run.app.lock().clone();
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
        app.stop(&world);
        app.died().await;
    }
    if let Some(sidecar) = world.sidecar(&pod_uid) {
        sidecar.kill();
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
    match ticket {
        None => {
            let app = App::start(&world, &node, &name, &pod_uid, Memory::default());
            *started.lock() = Some(app);
            Sidecar::start(&world, &node, &pod_uid);
        }
        Some(ticket) => {
            let request = ClaimRequest {
                ticket: ticket.parse().unwrap(),
                pod: pod_uid.as_str().into(),
                container: "app".into(),
                container_id: String::new(),
                pod_ip: Some(ip.clone()),
                init: false,
                fresh: false,
                at_once: false,
            };
            let line = world.wire.line(&format!("shadow-runc {node}"), false);
            let mut create_of =
                Create { world: &world, line: &line, node: &node, pod: &name, has_run_init: true };
            while !create_of.init(&pod, &request).await {
                sleep(TRY_AGAIN).await;
                if world.node(&node).is_lost() {
                    return;
                }
            }
            // In a shadow it is a container like the other.
            let is_shadow = request.ticket.role == Role::Shadow;
            let order = if is_shadow { ["app", SIDECAR] } else { [SIDECAR, "app"] };
            for container in order {
                let mut attempt = 0;
                loop {
                    attempt += 1;
                    let container_id = format!("{pod_uid}.{container}.{attempt}");
                    let container = container.to_owned();
                    let at_once = world.scenario.has(Mistake::PartLetGoEarly);
                    let request = ClaimRequest { container, container_id, at_once, ..request.clone() };
                    if create_of.container(&request, &started).await {
                        world.containers.start(&request.container_id);
                        break;
                    }
                    sleep(TRY_AGAIN).await;
                    if world.node(&node).is_lost() {
                        return;
                    }
                }
            }
        }
    }
    let status = |ready: &'static str| {
        let ip = ip.clone();
        move |object: &mut Value| {
            object["status"] = json!({ "phase": "Running", "podIP": ip,
                "conditions": [{ "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": ready }] });
        }
    };
    let is_same = || {
        !world.node(&node).is_lost() && world.objects.get(&key).is_some_and(|object| uid(&object) == pod_uid)
    };
    if is_same() {
        let _ = world.objects.change(&key, None, status("False"));
    }
    sleep(PROBE).await;
    if is_same() {
        let _ = world.objects.change(&key, None, status("True"));
    }
}

/// `create` by `shadow-runc`, container after container of a pod.
struct Create<'a> {
    world: &'a World,
    line: &'a Line,
    node: &'a str,
    pod: &'a str,
    /// Not completed in its place.
    has_run_init: bool,
}

impl Create<'_> {
    /// Of the init container; false where it fails and the kubelet tries again.
    async fn init(&mut self, pod: &Value, request: &ClaimRequest) -> bool {
        let runs = pod["metadata"]["annotations"][ANNOTATION_INIT_CONTAINERS].as_str().unwrap_or("{}");
        let runs: InitRuns = serde_json::from_str(runs).unwrap();
        if runs.get(INIT) != Some(&InitRun::Skip) {
            return true;
        }
        let (container, container_id) = (INIT.to_owned(), format!("{}.init", request.pod));
        let request = ClaimRequest { container, container_id, init: true, ..request.clone() };
        match claim(self.world, self.line, self.node, &request, CLAIM_PATIENCE).await {
            Some((_, Verdict::Complete)) => self.has_run_init = false,
            Some((_, Verdict::Fresh(_))) => {}
            _ => return false,
        }
        true
    }

    /// Of one that stays; false where it fails and the kubelet tries again.
    async fn container(&self, request: &ClaimRequest, started: &Mutex<Option<Arc<App>>>) -> bool {
        let Self { world, line, node, pod, .. } = *self;
        let Some((mut agent, verdict)) = claim(world, line, node, request, CLAIM_PATIENCE).await else {
            return false;
        };
        match verdict {
            Verdict::Restore => {}
            Verdict::Refuse(_) if !world.scenario.has(Mistake::FreshWithoutInit) => return false,
            Verdict::Fresh(_) | Verdict::Refuse(_) => {
                if !self.has_run_init {
                    world.invariants.fresh_without_init(world, request.pod.as_str());
                }
                world.invariants.starts_fresh(world, request.pod.as_str());
                if request.container == SIDECAR {
                    Sidecar::start(world, node, request.pod.as_str());
                } else {
                    let app = App::start(world, node, pod, request.pod.as_str(), Memory::default());
                    *started.lock() = Some(app);
                }
                return true;
            }
            Verdict::Wait | Verdict::Fill | Verdict::Complete | Verdict::Recorded => return false,
        }
        let mut restoring = Restoring { agent: Arc::clone(&agent), request, ended: false };
        let ticket = &request.ticket;
        let handed_out = agent.tickets.handed_out(ticket, &request.container);
        let Ok((part, _)) = handed_out else { return false };
        let image = std::fs::read_to_string(part.join("images/pages-1.img"));
        sleep(RESTORE).await;
        let Ok(image) = image else { return false };
        let decided = world.decided.load(Ordering::SeqCst);
        let is_app = request.container != SIDECAR;
        if is_app
            && ticket.role == Role::Replacement
            && world.scenario.restore_fails(node, ticket.life, decided)
        {
            let failed = RestoreOutcome::Failed { reason: "CRIU: no".into(), fault: RestoreFault::Criu };
            restoring.ended = report(line, &agent, request, failed).await.is_some();
            return false;
        }
        if world.node(node).is_lost() {
            return false;
        }
        // The process is there from here on, whoever hears of it, and stands still.
        let process = if is_app {
            let memory = if ticket.role == Role::Shadow && world.scenario.has(Mistake::FreshShadow) {
                Memory::default()
            } else {
                world.image(image.parse().unwrap())
            };
            let app = App::restore(world, node, pod, request.pod.as_str(), memory);
            *started.lock() = Some(Arc::clone(&app));
            Process::App(app)
        } else {
            Process::Sidecar(Sidecar::restore(world, node, request.pod.as_str()))
        };
        world.containers.add(&request.container_id, &process);
        let deadline = Instant::now() + REPORT_PATIENCE;
        loop {
            match report(line, &agent, request, RestoreOutcome::Restored).await {
                Some(true) => break,
                Some(false) => return only_on_record(world, &process),
                None => {}
            }
            sleep(RETRY).await;
            let left = deadline.saturating_duration_since(Instant::now());
            let again = if left > RETRY { claim(world, line, node, request, left).await } else { None };
            match again {
                Some((answering, Verdict::Restore)) => agent = answering,
                Some((_, Verdict::Recorded)) => break,
                _ => return only_on_record(world, &process),
            }
        }
        restoring.ended = true;
        true
    }
}

/// Only what the agent has on record may live.
fn only_on_record(world: &World, process: &Process) -> bool {
    process.kill(world);
    false
}

/// A restore under way: whoever breaks off gives the ticket back.
struct Restoring<'a> {
    agent: Arc<Agent>,
    request: &'a ClaimRequest,
    ended: bool,
}

impl Drop for Restoring<'_> {
    fn drop(&mut self) {
        if !self.ended {
            broke_off(&self.agent, self.request);
        }
    }
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
                async move { agent.tickets.claim(&request, deadline).await.unwrap() }
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
            let _ = self.agent.tickets.left(&self.request.ticket);
        }
    }
}

/// Tells the agent how it ended. Whether that is on record; nothing where it did not answer.
async fn report(
    line: &Line,
    agent: &Arc<Agent>,
    request: &ClaimRequest,
    outcome: RestoreOutcome,
) -> Option<bool> {
    let what = if outcome == RestoreOutcome::Restored { "restored" } else { "not restored" };
    let ended = {
        let (agent, ticket, container) =
            (Arc::clone(agent), request.ticket.clone(), request.container.clone());
        async move {
            if agent.stopped.is_cancelled() {
                return None;
            }
            match agent.tickets.ended(&ticket, &container, &outcome) {
                Ok(()) => Some(true),
                Err(NotRecorded::Spent) => Some(false),
                Err(NotRecorded::Store(_)) => None,
            }
        }
    };
    match line.call(&format!("{what} {}", request.ticket), ended).await {
        Ok(recorded) => recorded,
        Err(_) => {
            broke_off(agent, request);
            None
        }
    }
}

/// Whoever restores and breaks off gives the ticket back; an agent that has recorded the end does not mind.
fn broke_off(agent: &Agent, request: &ClaimRequest) {
    if !agent.stopped.is_cancelled() {
        let failed =
            RestoreOutcome::Failed { reason: "shadow-runc broke off".into(), fault: RestoreFault::BrokenOff };
        let _ = agent.tickets.ended(&request.ticket, &request.container, &failed);
    }
}
