//! A stage for one test: a namespace and a virtual host of its own on the cluster, with the product installed. Before
//! and after, also when the test failed, everything is as it was: nodes run and are uncordoned, the stage is gone.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;
use shadow::api::StatefulMigration;

use super::app::{STAGE_LABEL, surroundings};
use super::pods::{self, Snapshot};
use super::{
    App, Broker, Cluster, Drain, DrainOptions, Drained, Kind, Result, Watch, eventually, fail, product,
};

const START: Duration = Duration::from_secs(90);
const GONE: Duration = Duration::from_secs(90);
const PARTS: &str =
    "app.kubernetes.io/name in (shadow-operator,shadow-webhook,shadow-scheduler,shadow-agent)";
/// The cluster is one: no two tests at a time, whatever the number of threads.
static TURN: Mutex<()> = Mutex::new(());
/// Virtual hosts of tests that have ended.
static PAST: Mutex<Vec<Broker>> = Mutex::new(Vec::new());
/// The test before has left everything as it was.
static WHOLE: AtomicBool = AtomicBool::new(false);

/// What a test works with.
pub struct Lab {
    pub cluster: Cluster,
    pub client: Client,
    pub broker: Broker,
    pub namespace: String,
}

/// Runs a test on the real cluster, which is brought up and given the product where that is not done yet.
pub fn on_cluster<T>(name: &str, test: impl AsyncFnOnce(&Lab) -> Result<T>) -> Result<T> {
    stage(name, true, test)
}

/// The same, but what the test made stays.
pub fn on_cluster_leaving_it<T>(name: &str, test: impl AsyncFnOnce(&Lab) -> Result<T>) -> Result<T> {
    stage(name, false, test)
}

fn stage<T>(name: &str, tidy: bool, test: impl AsyncFnOnce(&Lab) -> Result<T>) -> Result<T> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let outside = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cluster = outside.block_on(Cluster::ready())?;
    cluster.enter_network()?;
    // A new one: its threads are born in that network.
    let inside = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    inside.block_on(async {
        let begun = Instant::now();
        let lab = Lab::open(cluster, name).await?;
        let opened = Instant::now();
        let outcome = AssertUnwindSafe(test(&lab)).catch_unwind().await;
        let tested = Instant::now();
        if !matches!(outcome, Ok(Ok(_))) {
            eprintln!("{}", lab.description().await);
        }
        let tidied = if tidy || outcome.is_err() { lab.close().await } else { Ok(()) };
        note(name, [opened - begun, tested - opened, tested.elapsed()])?;
        WHOLE.store(tidy && tidied.is_ok() && matches!(outcome, Ok(Ok(_))), Ordering::SeqCst);
        match outcome {
            Ok(Ok(value)) => tidied.map(|()| value),
            Ok(Err(error)) => Err(error),
            Err(panic) => resume_unwind(panic),
        }
    })
}

/// For whoever wants to know where the time of all the tests goes: name, seconds to prepare, test and tidy up.
fn note(name: &str, took: [Duration; 3]) -> Result {
    let path = super::cluster::root().join("target/stages.tsv");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    let [prepared, tested, tidied] = took.map(|part| part.as_secs_f64());
    Ok(writeln!(file, "{name}\t{prepared:.1}\t{tested:.1}\t{tidied:.1}")?)
}

impl Lab {
    async fn open(cluster: Cluster, name: &str) -> Result<Self> {
        if !WHOLE.swap(false, Ordering::SeqCst) {
            cluster.mend().await?;
        }
        let client = cluster.client().await?;
        product::ensure(&cluster, &client).await?;
        let broker = Broker::fresh(&cluster, name).await?;
        let lab = Self { cluster, client, broker, namespace: name.to_owned() };
        lab.remove_stages().await?;
        // Only now: what ends a migration still asks for its queues.
        let past = std::mem::take(&mut *PAST.lock().unwrap_or_else(PoisonError::into_inner));
        for broker in past.iter().filter(|past| past.url() != lab.broker.url()) {
            broker.remove().await?;
        }
        lab.cluster.apply(&surroundings(name, &lab.broker.url())).await?;
        Ok(lab)
    }

    /// What was on the stage goes away while the next test prepares, which waits for it.
    async fn close(&self) -> Result {
        let (mended, deleted) = tokio::join!(self.cluster.mend(), self.delete_stages());
        PAST.lock().unwrap_or_else(PoisonError::into_inner).push(self.broker.clone());
        mended.and(deleted)
    }

    async fn delete_stages(&self) -> Result {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for stage in namespaces.list(&ListParams::default().labels(STAGE_LABEL)).await?.items {
            if stage.metadata.deletion_timestamp.is_none() {
                match namespaces.delete(&stage.name_any(), &DeleteParams::default()).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    other => drop(other?),
                }
                // Nobody makes pods there any more, and these have nothing to save.
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), &stage.name_any());
                pods.delete_collection(&DeleteParams::default().grace_period(1), &ListParams::default())
                    .await?;
            }
        }
        Ok(())
    }

    /// This one and whatever another test or run has left: a drain concerns the pods of all namespaces. Of others the empty
    /// namespace may stay, for which Kubernetes takes its time.
    async fn remove_stages(&self) -> Result {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let stages = ListParams::default().labels(STAGE_LABEL);
        self.delete_stages().await?;
        eventually("earlier stages go away", GONE, async || {
            for namespace in
                namespaces.list(&stages).await?.items.iter().filter_map(|one| one.metadata.name.clone())
            {
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
                let migrations: Api<StatefulMigration> = Api::namespaced(self.client.clone(), &namespace);
                let all = ListParams::default();
                let left = pods.list(&all).await?.items.len() + migrations.list(&all).await?.items.len();
                if left > 0 || namespace == self.namespace {
                    return fail(format!("there is still {namespace}, with {left} pods and migrations"));
                }
            }
            Ok(Some(()))
        })
        .await
    }

    /// Everything that helps to see why a test failed.
    pub async fn description(&self) -> String {
        let n = self.namespace.as_str();
        let questions: [&[&str]; 7] = [
            &["-n", n, "get", "statefulmigrations", "-o", "yaml"],
            &["-n", n, "get", "pods", "-o", "wide"],
            &["-n", n, "get", "events", "--sort-by=.metadata.creationTimestamp"],
            &["-n", n, "logs", "-l", "app", "--tail=60", "--prefix"],
            &["get", "nodes", "-o", "wide"],
            &["-n", "shadow-system", "get", "pods", "-o", "wide"],
            &["-n", "shadow-system", "logs", "-l", PARTS, "--tail=120", "--prefix", "--max-log-requests=20"],
        ];
        let mut text = String::new();
        for question in questions {
            let answer = self.cluster.kubectl(question).await.unwrap_or_else(|error| error.to_string());
            text += &format!("--- kubectl {}\n{answer}\n", question.join(" "));
        }
        text
    }

    /// An empty namespace and virtual host again, on a cluster that is whole.
    pub async fn restage(&self) -> Result {
        self.cluster.mend().await?;
        self.recycle_product().await?;
        self.remove_stages().await?;
        Broker::fresh(&self.cluster, &self.namespace).await?;
        self.cluster.apply(&surroundings(&self.namespace, &self.broker.url())).await
    }

    /// Parts of SHADOW that were killed are fresh and ready.
    pub async fn recycle_product(&self) -> Result {
        product::recycle(&self.cluster, &self.client).await
    }

    /// Deletes what there is of migrations: one that failed refuses the next drain for a while.
    pub async fn forget_migrations(&self) -> Result {
        let argv = ["-n", &self.namespace, "delete", "statefulmigrations", "--all", "--timeout=30s"];
        self.cluster.kubectl(&argv).await.map(drop)
    }

    /// Applies the application and waits until all its pods are ready; those pods.
    pub async fn deploy(&self, app: &App) -> Result<Vec<Snapshot>> {
        self.cluster.apply(&app.objects(&self.namespace)).await?;
        self.ready(app, START).await
    }

    /// All pods of the application, once as many are ready as it wants.
    pub async fn ready(&self, app: &App, limit: Duration) -> Result<Vec<Snapshot>> {
        let wanted = app.replicas as usize;
        eventually(&format!("{wanted} pods of {} are ready", app.name), limit, async || {
            let ready = self.pods(app).await?;
            Ok((ready.len() == wanted).then_some(ready))
        })
        .await
    }

    /// Its pods that are ready now.
    pub async fn pods(&self, app: &App) -> Result<Vec<Snapshot>> {
        pods::ready_pods(&self.client, &self.namespace, &app.name).await
    }

    /// Its only pod.
    pub async fn only_pod(&self, app: &App) -> Result<Snapshot> {
        let mut pods = self.ready(app, START).await?;
        match pods.pop() {
            Some(pod) if pods.is_empty() => Ok(pod),
            _ => fail(format!("{} has not exactly one pod", app.name)),
        }
    }

    pub async fn pod(&self, name: &str) -> Result<Snapshot> {
        pods::pod(&self.client, &self.namespace, name).await
    }

    /// Address and port of the Service that readers use.
    pub async fn service(&self, app: &App) -> Result<String> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), &self.namespace);
        let address = services.get(&app.name).await?.spec.and_then(|spec| spec.cluster_ip);
        match address {
            Some(ip) => Ok(format!("{ip}:80")),
            None => fail(format!("Service {} has no address", app.name)),
        }
    }

    /// The workload object as it is in the API.
    pub async fn workload(&self, app: &App) -> Result<Value> {
        let kind = match app.kind {
            Kind::StatefulSet => "statefulset",
            Kind::Deployment => "deployment",
        };
        let text =
            self.cluster.kubectl(&["-n", &self.namespace, "get", kind, &app.name, "-o", "json"]).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Events of the namespace about the object of that name: (reason, note).
    pub async fn events_of(&self, name: &str) -> Result<Vec<(String, String)>> {
        use k8s_openapi::api::events::v1::Event;
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let all = api.list(&kube::api::ListParams::default()).await?;
        let about = |event: &Event| event.regarding.as_ref().and_then(|r| r.name.clone());
        Ok(all
            .items
            .into_iter()
            .filter(|event| about(event).as_deref() == Some(name))
            .map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default()))
            .collect())
    }

    /// All of SHADOW's parts are ready again.
    pub async fn product_ready(&self) -> Result {
        product::wait_until_ready(&self.client).await
    }

    /// Neither operator nor webhook runs on this node.
    pub async fn keep_product_off(&self, node: &str) -> Result {
        product::keep_off(&self.cluster, &self.client, node).await
    }

    /// The image of the examples is on every node again.
    pub async fn reload_examples(&self) -> Result {
        product::load_examples(&self.cluster).await
    }

    pub fn watch(&self) -> Watch {
        Watch::start(self.client.clone(), &self.namespace, None)
    }

    pub async fn drain(&self, node: &str, options: &DrainOptions) -> Result<Drained> {
        Drain::start(&self.cluster, node, options)?.finish().await
    }

    pub async fn uncordon(&self, node: &str) -> Result {
        self.cluster.kubectl(&["uncordon", node]).await.map(drop)
    }
}
