//! One program as a StatefulSet, in the two ways it is met: as root with nothing said, and as charts run it.

use serde_json::{Value, json};

use super::image::PROGRAMS;
use crate::lab::App;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    Root,
    /// uid 1001, no capability, no way to more, seccomp, a read-only root where the program can live with that.
    Hardened {
        read_only: bool,
    },
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Hardened { .. } => "hardened",
        }
    }

    fn overlay(self) -> Value {
        let Self::Hardened { read_only } = self else { return json!({}) };
        json!({
            "securityContext": { "runAsNonRoot": true, "runAsUser": 1001, "runAsGroup": 1001, "fsGroup": 1001,
                "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{ "securityContext": { "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": read_only, "capabilities": { "drop": ["ALL"] } } }],
        })
    }
}

pub fn name(program: &str, variant: Variant) -> String {
    format!("{program}-{}", variant.name())
}

/// What runs, as a shell would be told. It listens on port 8080, as everything in the laboratory.
pub fn app(name: &str, command: &str, variant: Variant) -> App {
    let command: Vec<&str> = command.split_whitespace().collect();
    let probe = json!({ "httpGet": null, "tcpSocket": { "port": "http" } });
    App::counter(&self::name(name, variant))
        .pod(json!({ "containers": [{ "image": PROGRAMS, "command": command, "readinessProbe": probe }] }))
        .pod(variant.overlay())
}
