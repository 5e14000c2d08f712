//! The parts of a pod's containers under creation that matter to its restore. Pure.

use k8s_openapi::api::core::v1::SecurityContext;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::api::{InitRun, InitRuns, init_run};

/// One that runs before the others.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InitContainer {
    #[serde(default)]
    name: String,
    #[serde(default)]
    restart_policy: Option<String>,
    #[serde(default)]
    security_context: Option<SecurityContext>,
    #[serde(default)]
    startup_probe: Option<IgnoredAny>,
    #[serde(default)]
    lifecycle: Option<Lifecycle>,
}

impl InitContainer {
    /// Its name and what becomes of it where its pod is restored; `wished`: as far as its user says so. A sidecar
    /// (`restartPolicy: Always`) is no such one.
    pub fn run(&self, wished: &InitRuns) -> Option<(String, InitRun)> {
        let run = || init_run(wished, &self.name, self.security_context.as_ref());
        (!self.is_sidecar()).then(|| (self.name.clone(), run()))
    }

    fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }

    /// Its name, if the kubelet makes no other container before it has shown that it runs.
    pub fn is_waited_for(&self) -> Option<&str> {
        (self.is_sidecar() && self.startup_probe.is_some()).then_some(self.name.as_str())
    }

    /// One that has a postStart hook is a sidecar.
    pub fn post_start(&self) -> Option<(String, Vec<String>)> {
        Some((self.name.clone(), self.lifecycle.clone()?.post_start?.exec?.command?))
    }
}

/// One of those that the pod is for.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Container {
    #[serde(default)]
    name: String,
    #[serde(default)]
    lifecycle: Option<Lifecycle>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lifecycle {
    #[serde(default)]
    post_start: Option<Hook>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Hook {
    #[serde(default)]
    exec: Option<Exec>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Exec {
    #[serde(default)]
    command: Option<Vec<String>>,
}

impl Container {
    /// Its name and the command that it is started with once more, in it.
    pub fn post_start(self) -> Option<(String, Vec<String>)> {
        Some((self.name, self.lifecycle?.post_start?.exec?.command?))
    }
}
