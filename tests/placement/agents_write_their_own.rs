//! Whoever takes over one node must not make the others look full, roomy or alive.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use shadow::api::{LEASE_RESTART, NodeCapacity, lease_of_agent};

use super::nodes::{capacity, three};
use crate::lab::{Lab, Result, on_cluster};

const SYSTEM: &str = "shadow-system";

#[test]
fn an_agent_writes_what_is_its_node_s_and_nothing_else() -> Result {
    on_cluster("own-objects", async |lab| {
        let [first, second, _] = three(lab).await?;
        let agent = as_agent(lab, &first).await?;
        let mut spec = capacity(lab, &first).await?;
        let api: Api<NodeCapacity> = Api::all(agent.clone());
        let params = PatchParams::apply("shadow-agent").force();
        let own = NodeCapacity::new(&first, spec.clone());
        api.patch(&first, &params, &Patch::Apply(&own)).await?;
        spec.free_bytes = 0;
        for name in [&second, "no-such-node"] {
            let other = NodeCapacity::new(name, spec.clone());
            is_forbidden(api.patch(name, &params, &Patch::Apply(&other)).await);
        }
        let leases: Api<Lease> = Api::namespaced(agent.clone(), SYSTEM);
        let lease = |name: &str| {
            json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name },
            "spec": { "holderIdentity": "somebody" } })
        };
        for name in [lease_of_agent(&second.as_str().into()), "shadow-operator".to_owned()] {
            is_forbidden(leases.patch(&name, &params, &Patch::Apply(lease(&name))).await);
        }
        // Agents take turns to restart containerd, each in its own name.
        let held_by = |node: &str| {
            let mut lease = lease(LEASE_RESTART);
            lease["spec"]["holderIdentity"] = json!(node);
            serde_json::from_value::<Lease>(lease)
        };
        let _ = leases.create(&PostParams::default(), &held_by(&first)?).await; // it may be there from the install
        let mut turn = leases.get(LEASE_RESTART).await?;
        turn.spec.get_or_insert_default().holder_identity = Some(first.clone());
        turn = leases.replace(LEASE_RESTART, &PostParams::default(), &turn).await?;
        turn.spec.get_or_insert_default().holder_identity = Some(second.clone());
        is_forbidden(leases.replace(LEASE_RESTART, &PostParams::default(), &turn).await);
        turn.spec.get_or_insert_default().holder_identity = None;
        leases.replace(LEASE_RESTART, &PostParams::default(), &turn).await?;
        // It reads nothing else, not even what it wrote.
        is_forbidden(api.get(&first).await);
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(agent);
        is_forbidden(nodes.get(&first).await);
        Ok(())
    })
}

/// With the token of the agent that runs on `node`.
async fn as_agent(lab: &Lab, node: &str) -> Result<Client> {
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(lab.client.clone(), SYSTEM);
    let on_node = ListParams::default()
        .labels("app.kubernetes.io/name=shadow-agent")
        .fields(&format!("spec.nodeName={node}"));
    let agent =
        pods.list(&on_node).await?.items.first().map(kube::ResourceExt::name_any).ok_or("no agent")?;
    let argv = ["-n", SYSTEM, "create", "token", "shadow-agent", "--bound-object-kind=Pod"];
    let token =
        lab.cluster.kubectl(&[&argv[..], &[&format!("--bound-object-name={agent}")]].concat()).await?;
    let file = kube::config::Kubeconfig::read_from(&lab.cluster.kubeconfig)?;
    let options = kube::config::KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(file, &options).await?;
    config.auth_info =
        kube::config::AuthInfo { token: Some(token.trim().to_owned().into()), ..Default::default() };
    Ok(Client::try_from(config)?)
}

fn is_forbidden<T: std::fmt::Debug>(answer: kube::Result<T>) {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        other => panic!("not forbidden: {other:?}"),
    }
}
