//! Which init containers run again where a pod is restored: those that set up what every sandbox, or every node, has of its
//! own. What the others have done is in the pod's volumes, which move. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::SecurityContext;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of an init container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InitRun {
    Run,
    Skip,
}

/// By the container's name.
pub type InitRuns = BTreeMap<String, InitRun>;

/// Those of meshes and network plugins: they lead the sandbox's traffic to a proxy, or wait until it is led there.
const SET_UP_NETWORK: [&str; 9] = [
    "cilium-init",
    "consul-connect-inject-init",
    "istio-init",
    "istio-validation",
    "kuma-init",
    "linkerd-init",
    "linkerd-network-validator",
    "osm-init",
    "proxy-init",
];
/// By which a sandbox's network, or the node itself, is set up.
const SET_UP_MORE: [&str; 3] = ["NET_ADMIN", "SYS_ADMIN", "ALL"];

/// What becomes of the init container of that name; `wished`: as far as its user says so.
pub fn init_run(wished: &InitRuns, name: &str, context: Option<&SecurityContext>) -> InitRun {
    let is_privileged = context.is_some_and(|context| context.privileged == Some(true));
    let capabilities = context.and_then(|context| context.capabilities.as_ref());
    let mut added = capabilities.into_iter().flat_map(|capabilities| capabilities.add.iter().flatten());
    let sets_up = |capability: &String| {
        let name = capability.to_ascii_uppercase();
        SET_UP_MORE.contains(&name.strip_prefix("CAP_").unwrap_or(&name))
    };
    match wished.get(name) {
        Some(run) => *run,
        None if is_privileged || SET_UP_NETWORK.contains(&name) || added.any(sets_up) => InitRun::Run,
        None => InitRun::Skip,
    }
}

/// `a=Run,b=Skip`.
pub fn parse_init_runs(text: &str) -> Option<InitRuns> {
    let one = |part: &str| {
        let (name, run) = part.split_once('=')?;
        let run = match run.trim() {
            "Run" => InitRun::Run,
            "Skip" => InitRun::Skip,
            _ => return None,
        };
        Some((name.trim().to_owned(), run)).filter(|(name, _)| !name.is_empty())
    };
    text.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(wished: &str, name: &str, context: serde_json::Value) -> InitRun {
        let context: SecurityContext = serde_json::from_value(context).unwrap();
        init_run(&parse_init_runs(wished).unwrap_or_default(), name, Some(&context))
    }

    #[test]
    fn what_sets_up_network_or_node_runs_again() {
        let adds = |capability: &str| json!({ "capabilities": { "add": ["CHOWN", capability] } });
        for capability in ["NET_ADMIN", "CAP_NET_ADMIN", "SYS_ADMIN", "all"] {
            assert_eq!(run("", "any", adds(capability)), InitRun::Run, "{capability}");
        }
        assert_eq!(run("", "any", json!({ "privileged": true })), InitRun::Run);
        assert_eq!(run("", "linkerd-init", json!({})), InitRun::Run);
        assert_eq!(run("", "any", adds("FOWNER")), InitRun::Skip);
        assert_eq!(run("", "volume-permissions", json!({ "runAsUser": 0 })), InitRun::Skip);
    }

    #[test]
    fn its_user_knows_better() {
        assert_eq!(run("fill=Run, istio-init=Skip", "fill", json!({})), InitRun::Run);
        assert_eq!(
            run("fill=Run, istio-init=Skip", "istio-init", json!({ "privileged": true })),
            InitRun::Skip
        );
        assert_eq!(run("fill=Run", "other", json!({})), InitRun::Skip);
    }

    #[test]
    fn anything_else_is_no_such_list() {
        for text in ["", "fill", "fill=run", "=Run", "a=Run,", "a=Run;b=Run"] {
            assert_eq!(parse_init_runs(text), None, "{text}");
        }
    }
}
