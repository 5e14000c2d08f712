//! Where this node's containerd has what belongs to it. Distributions put it elsewhere; all paths are the node's.

use std::path::PathBuf;

const CONFIG: &str = "/etc/containerd/config.toml";
const DROP_INS: &str = "/etc/containerd/conf.d";
const SOCKET: &str = "/run/containerd/containerd.sock";
const STATE: &str = "/run/containerd";
const ROOT: &str = "/var/lib/containerd";
/// Our drop-in's name in its folder.
const DROP_IN: &str = "shadow.toml";

/// The node's containerd.
#[derive(Clone, Debug, clap::Args)]
pub struct Engine {
    /// containerd's configuration.
    #[arg(id = "containerd-config", long = "containerd-config", default_value = CONFIG)]
    pub config: PathBuf,
    /// Folder whose `*.toml` that configuration imports.
    #[arg(id = "containerd-drop-ins", long = "containerd-drop-ins", default_value = DROP_INS)]
    pub drop_ins: PathBuf,
    /// containerd's socket.
    #[arg(id = "containerd-socket", long = "containerd-socket", default_value = SOCKET)]
    pub socket: PathBuf,
    /// containerd's `state`: bundles of running containers.
    #[arg(id = "containerd-state", long = "containerd-state", default_value = STATE)]
    pub state: PathBuf,
    /// containerd's `root`: its records of containers.
    #[arg(id = "containerd-root", long = "containerd-root", default_value = ROOT)]
    pub root: PathBuf,
    /// Folders with containerd, runc and criu that come before the usual ones, separated by colons.
    #[arg(id = "node-programs", long = "node-programs", value_delimiter = ':')]
    pub programs: Vec<PathBuf>,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            config: CONFIG.into(),
            drop_ins: DROP_INS.into(),
            socket: SOCKET.into(),
            state: STATE.into(),
            root: ROOT.into(),
            programs: Vec::new(),
        }
    }
}

impl Engine {
    /// Our drop-in.
    pub fn drop_in(&self) -> PathBuf {
        self.drop_ins.join(DROP_IN)
    }

    /// What the configuration has to import.
    pub fn import(&self) -> String {
        format!("{}/*.toml", self.drop_ins.display())
    }

    /// Bundles of the kubelet's containers.
    pub fn bundles(&self) -> PathBuf {
        self.state.join("io.containerd.runtime.v2.task/k8s.io")
    }

    /// A folder for each of the kubelet's containers, with what containerd has on record of it.
    pub fn records(&self) -> PathBuf {
        self.root.join("io.containerd.grpc.v1.cri/containers")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        engine: Engine,
    }

    #[test]
    fn without_flags_it_is_where_containerd_s_own_package_puts_it() {
        let flagless = Line::parse_from(["agent"]).engine;
        assert_eq!(format!("{flagless:?}"), format!("{:?}", Engine::default()));
        assert_eq!(flagless.drop_in(), Path::new("/etc/containerd/conf.d/shadow.toml"));
        assert_eq!(flagless.import(), "/etc/containerd/conf.d/*.toml");
        assert_eq!(flagless.bundles(), Path::new("/run/containerd/io.containerd.runtime.v2.task/k8s.io"));
    }

    #[test]
    fn every_path_has_a_flag() {
        let engine = Line::parse_from([
            "agent",
            "--containerd-config=/k/config.toml",
            "--containerd-drop-ins=/k/config-v3.toml.d",
            "--containerd-socket=/run/k/containerd.sock",
            "--containerd-state=/run/k",
            "--containerd-root=/k/containerd",
            "--node-programs=/k/bin:/k/sbin",
        ])
        .engine;
        assert_eq!(engine.import(), "/k/config-v3.toml.d/*.toml");
        assert_eq!(engine.records(), Path::new("/k/containerd/io.containerd.grpc.v1.cri/containers"));
        assert_eq!(engine.programs, ["/k/bin", "/k/sbin"].map(PathBuf::from));
    }
}
