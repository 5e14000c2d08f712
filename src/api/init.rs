//! Which init containers run again where a pod is restored: those that set up what every sandbox has of its own. What the
//! others have done is in the pod's volumes, which move. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What becomes of an init container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InitRun {
    Run,
    Skip,
}

/// As far as its user says so, by its name.
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
/// A capability by which the network of a sandbox is set up.
const NETWORK_CAPABILITIES: [&str; 2] = ["NET_ADMIN", "CAP_NET_ADMIN"];

/// Whether the init container of that name, with these capabilities added, runs again.
pub fn runs_again<'a>(runs: &InitRuns, name: &str, added: impl IntoIterator<Item = &'a str>) -> bool {
    match runs.get(name) {
        Some(run) => *run == InitRun::Run,
        None => {
            SET_UP_NETWORK.contains(&name) || added.into_iter().any(|one| NETWORK_CAPABILITIES.contains(&one))
        }
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
    use super::*;

    #[test]
    fn what_sets_up_the_network_runs_again_and_else_what_the_user_says() {
        let runs = parse_init_runs("fill=Run, istio-init=Skip").unwrap();
        assert!(runs_again(&runs, "fill", []) && !runs_again(&runs, "other", []));
        assert!(!runs_again(&runs, "istio-init", ["NET_ADMIN"]), "he knows better");
        assert!(runs_again(&runs, "linkerd-init", []));
        assert!(runs_again(&runs, "any", ["CHOWN", "NET_ADMIN"]) && !runs_again(&runs, "any", ["CHOWN"]));
    }

    #[test]
    fn anything_else_is_no_such_list() {
        for text in ["", "fill", "fill=run", "=Run", "a=Run,", "a=Run;b=Run"] {
            assert_eq!(parse_init_runs(text), None, "{text}");
        }
    }
}
