//! The processes of SHADOW: started with nothing but what is stored, ended without a word.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::runtime::{reflector, watcher};
use serde::de::DeserializeOwned;
use serde_json::Value;
use shadow::api::{AGENT_FORMAT, Compatibility, NodeCapacitySpec, NodeName, StatefulMigration};
use shadow::kit::events::Recorder;
use shadow::operator::{Agents, Bookings, Context, Limits, Metrics, lead};
use shadow::placement::{NodeView, Snapshot, View, Views};
use shadow::webhook::cache::{Cache, follow};
use shadow::webhook::{KubeCluster, Settings, Webhook, router};
use tokio::task::JoinSet;

use super::World;
use super::agent::Agent;
use super::api_server::User;
use super::client::client;
use super::cluster::{NODES, agent_pods};
use super::handover::MemoryBroker;
use super::transport::WireTransport;

/// `operator::serve::CALL_LIMIT` and `webhook::run::CALL_TIMEOUT`.
const OPERATOR_LIMIT: Duration = Duration::from_secs(10);
const WEBHOOK_LIMIT: Duration = Duration::from_secs(3);

/// Everything of SHADOW that runs.
#[derive(Default)]
pub struct Processes {
    tasks: JoinSet<()>,
    operators: usize,
    pub cache: Arc<Cache>,
}

impl Processes {
    pub fn start(&mut self, world: &World) {
        for node in NODES.into_iter().filter(|node| !world.node(node).is_lost()) {
            world.node(node).set_agent(Some(Agent::start(world, node, world.node(node).dir())));
        }
        self.start_webhook(world);
        self.start_operator(world);
    }

    /// They are gone at once.
    pub async fn end(&mut self, world: &World) {
        *world.webhook.lock() = None;
        for node in NODES {
            if let Some(agent) = world.node(node).agent() {
                agent.stopped.cancel();
            }
            world.node(node).set_agent(None);
        }
        self.tasks.shutdown().await;
    }

    /// One more that believes it leads.
    pub fn start_operator(&mut self, world: &World) {
        self.operators += 1;
        let line = world.wire.line(&format!("operator {}", self.operators), true);
        let calls = client(world, &line, User::Operator, Some(OPERATOR_LIMIT));
        let agents = store::<Pod>(agent_pods());
        let transport = Arc::new(WireTransport::new(world.clone(), line.clone()));
        let brokers = {
            let (world, line) = (world.clone(), line.clone());
            Arc::new(move |_| {
                Arc::new(MemoryBroker::new(world.clone(), line.clone())) as Arc<dyn shadow::broker::Broker>
            })
        };
        let context = Context {
            namespace: "shadow-system".to_owned(),
            views: roomy(),
            bookings: Bookings::default(),
            scheduler: None,
            shadow_labels: Arc::default(),
            recorder: Arc::new(Recorder::new(calls.clone(), "operator", None)),
            client: calls,
            watch_client: client(world, &line, User::Operator, None),
            agents: Agents::new(agents.clone(), transport),
            brokers,
            nodes: store::<Node>(world.objects.list("nodes", None).0),
            agent_pods: agents,
            metrics: Arc::new(Metrics::new(&prometheus::Registry::new()).unwrap()),
        };
        self.tasks.spawn(lead(context, Limits::default()));
    }

    fn start_webhook(&mut self, world: &World) {
        let line = world.wire.line("webhook", true);
        let watches = client(world, &line, User::Webhook, None);
        let cache = Arc::new(Cache::default());
        cache.replica_sets.replace([]);
        cache.deployments.replace([]);
        let all = watcher::Config::default;
        let (pods, nodes, sets, migrations) =
            (watches.clone(), watches.clone(), watches.clone(), watches.clone());
        let at = || Arc::clone(&cache);
        self.tasks.spawn(follow("pods", at(), |c| &c.pods, watcher(Api::<Pod>::all(pods), all()), || ()));
        self.tasks.spawn(follow("nodes", at(), |c| &c.nodes, watcher(Api::<Node>::all(nodes), all()), || ()));
        let of_sets = watcher(Api::<StatefulSet>::all(sets), all());
        self.tasks.spawn(follow("statefulsets", at(), |c| &c.stateful_sets, of_sets, || ()));
        let of_migrations = watcher(Api::<StatefulMigration>::all(migrations), all().timeout(60));
        self.tasks.spawn(follow("statefulmigrations", at(), |c| &c.migrations, of_migrations, || ()));
        self.cache = Arc::clone(&cache);
        let webhook = Webhook {
            cache,
            cluster: KubeCluster::new(client(world, &line, User::Webhook, Some(WEBHOOK_LIMIT))),
            settings: Settings::in_namespace("shadow-system", Vec::new()),
            metrics: shadow::webhook::Metrics::new().unwrap(),
        };
        *world.webhook.lock() = Some(router(Arc::new(webhook)));
    }
}

/// Every node has room for everything.
fn roomy() -> Views {
    let compatibility = Compatibility { agent_format: AGENT_FORMAT, ..Default::default() };
    let (free_bytes, transfers) = (u64::MAX, 2);
    let (transfers_in, transfers_out) = (transfers, transfers);
    let spec =
        NodeCapacitySpec { free_bytes, transfers_in, transfers_out, compatibility, ..Default::default() };
    let spec = Arc::new(spec);
    let nodes =
        NODES.iter().map(|name| (NodeName::from(*name), NodeView::new(Arc::clone(&spec), true))).collect();
    Views::fixed(View { snapshot: Snapshot { nodes, reservations: vec![] }, is_synced: true })
}

/// A cache that never changes.
fn store<K>(objects: Vec<Value>) -> reflector::Store<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + 'static,
{
    let (reader, mut writer) = reflector::store();
    for object in objects {
        writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(object).unwrap()));
    }
    reader
}
