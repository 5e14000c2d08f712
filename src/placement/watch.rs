//! The four watches that [`Views`] follow. Does I/O.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};

use super::views::{Capacity, Views};
use crate::api::{LABEL_ROLE, Role, StatefulMigration};

/// A silently broken watch is noticed this many seconds after it broke.
const WATCH_SECONDS: u32 = 60;

/// Watches nodes' capacities, their agents' leases in SHADOW's `namespace`, migrations and shadows; the future runs for ever.
pub fn watch(client: &Client, namespace: &str) -> (Views, impl Future<Output = ()> + Send + use<>) {
    let config = || watcher::Config::default().timeout(WATCH_SECONDS);
    let capacities = watcher(Api::<Capacity>::all(client.clone()), config()).default_backoff();
    let leases = watcher(Api::<Lease>::namespaced(client.clone(), namespace), config()).default_backoff();
    let migrations = watcher(Api::<StatefulMigration>::all(client.clone()), config()).default_backoff();
    let of_shadows = config().labels(&format!("{LABEL_ROLE}={}", Role::Shadow));
    let shadows = watcher(Api::<Pod>::all(client.clone()), of_shadows)
        .modify(|pod| {
            pod.metadata.managed_fields = None;
            pod.status = None;
        })
        .default_backoff();
    Views::follow(Box::pin(capacities), Box::pin(leases), Box::pin(migrations), Box::pin(shadows))
}
