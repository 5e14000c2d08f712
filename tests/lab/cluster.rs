//! The cluster on this machine, by its own tool: where things are, and its power switches.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use super::shell::{Output, capture, run};
use super::{Result, fail};

const QUICK: Duration = Duration::from_secs(90);
/// Programs are built from source the first time.
const UP: Duration = Duration::from_secs(30 * 60);
/// All nodes unpack a large image at once.
const LOADED: Duration = Duration::from_secs(400);

/// Lets a kubelet go on that a test has stopped, takes away whatever it has mounted in place of CRIU, and what it made the
/// agent say of the node.
const WHOLE: &str = "for k in $(pgrep -x kubelet); do kill -CONT $k; done; c=$(readlink -f $(command -v criu)); while mountpoint -q $c; do umount $c; done; rm -f /var/lib/shadow/compatibility.json";
/// With which tests keep the scheduler, and nobody else, off a node.
pub const TAINT: &str = "lab/reserved";
/// By which an administrator vouches that a machine is down for good.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Label of Node objects without a machine.
pub const MADE_UP: &str = "shadow-lab-made-up";

/// What can be done to a node, the control plane (`cp`) or the broker (`mq`).
#[derive(Clone, Copy, Debug)]
pub enum NodeAction {
    Kill,
    Start,
    Freeze,
    Thaw,
    Cut,
    Heal,
}

impl NodeAction {
    fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Start => "start",
            Self::Freeze => "freeze",
            Self::Thaw => "thaw",
            Self::Cut => "cut",
            Self::Heal => "heal",
        }
    }
}

/// A running cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub kubeconfig: PathBuf,
    pub kubectl: PathBuf,
    pub audit_log: PathBuf,
    pub nodes: Vec<String>,
    /// Address of the broker and of its management API.
    pub broker_ip: String,
    netns: String,
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tool() -> String {
    root().join("tests/cluster/cluster").display().to_string()
}

impl Cluster {
    /// The cluster that runs; one that does not run, or only in part, is brought up first.
    pub async fn ready() -> Result<Self> {
        match Self::status().await? {
            Some(cluster) => Ok(cluster),
            None => {
                Self::up().await?;
                match Self::status().await? {
                    Some(cluster) => Ok(cluster),
                    None => fail("`cluster up` said yes, `cluster status` says no"),
                }
            }
        }
    }

    async fn up() -> Result {
        eprintln!("bringing the cluster up (the first time builds it: about 15 min)");
        let mut child = tokio::process::Command::new(tool()).arg("up").kill_on_drop(true).spawn()?;
        let status = tokio::time::timeout(UP, child.wait()).await??;
        if status.success() { Ok(()) } else { fail(format!("`cluster up` ended with {status}")) }
    }

    async fn status() -> Result<Option<Self>> {
        let output = capture(&[&tool(), "status", "--json"], None, QUICK).await?;
        if output.code != 0 {
            return Ok(None);
        }
        let facts: Value = serde_json::from_str(&output.stdout)?;
        let text = |at: &str| facts.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Some(Self {
            kubeconfig: text("/kubeconfig").into(),
            kubectl: text("/kubectl").into(),
            audit_log: text("/audit").into(),
            nodes: facts["nodes"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|node| Some(node["name"].as_str()?.to_owned()))
                .collect(),
            broker_ip: text("/broker/ip"),
            netns: text("/netns"),
        }))
    }

    /// Moves this thread, and every thread and program it starts from now on, into the control plane's network.
    pub fn enter_network(&self) -> Result {
        let path = format!("/run/netns/{}", self.netns);
        let file = std::fs::File::open(&path).map_err(|error| format!("{path}: {error}"))?;
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
            .map_err(|error| format!("{path}: {error} (root is needed)").into())
    }

    /// A client of the API server as administrator.
    pub async fn client(&self) -> Result<kube::Client> {
        let file = kube::config::Kubeconfig::read_from(&self.kubeconfig)?;
        let mut config =
            kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
        config.default_retry = false;
        config.connect_timeout = Some(Duration::from_secs(3));
        Ok(kube::Client::try_from(config)?)
    }

    /// `kubectl`, as administrator.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_with(args, None).await
    }

    pub async fn kubectl_with(&self, args: &[&str], stdin: Option<&str>) -> Result<String> {
        let (program, config) = self.kubectl_argv();
        run(&[&[program.as_str(), config.as_str()], args].concat(), stdin, Duration::from_secs(180)).await
    }

    /// The program and the option that makes it administrator.
    pub fn kubectl_argv(&self) -> (String, String) {
        (self.kubectl.display().to_string(), format!("--kubeconfig={}", self.kubeconfig.display()))
    }

    pub async fn apply(&self, objects: &[Value]) -> Result {
        let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        self.kubectl_with(&["apply", "-f", "-"], Some(&list.to_string())).await.map(drop)
    }

    pub async fn load_images(&self, archives: &[&Path]) -> Result {
        let tool = tool();
        let archives: Vec<String> = archives.iter().map(|path| path.display().to_string()).collect();
        let mut argv = vec![tool.as_str(), "load"];
        argv.extend(archives.iter().map(String::as_str));
        run(&argv, None, LOADED).await.map(drop)
    }

    pub async fn node(&self, action: NodeAction, name: &str) -> Result {
        run(&[&tool(), "node", action.word(), name], None, QUICK).await.map(drop)
    }

    pub async fn broker(&self, action: &str) -> Result {
        run(&[&tool(), "broker", action], None, QUICK).await.map(drop)
    }

    /// All that the broker has logged since the cluster is up.
    pub async fn broker_log(&self) -> Result<String> {
        run(&[&tool(), "logs", "mq", "rabbitmq"], None, QUICK).await
    }

    /// What becomes of a volume that pods can claim, as `cluster volume` takes it.
    pub async fn volume(&self, name: &str, what: &str) -> Result {
        run(&[&tool(), "volume", name, what], None, QUICK).await.map(drop)
    }

    /// `slow` or `fill`, until it is healed.
    pub async fn spoil(&self, how: &str, node: &str, options: &[&str]) -> Result {
        let tool = tool();
        run(&[&[tool.as_str(), "node", how, node], options].concat(), None, QUICK).await.map(drop)
    }

    /// Kills programs of a node, in pods or not, by their name and words of their command line, as `cluster node kill`
    /// takes them. `None`: there was none.
    pub async fn kill_program(&self, node: &str, words: &[&str]) -> Result<Option<()>> {
        let tool = tool();
        let argv = [&[tool.as_str(), "node", "kill", node], words].concat();
        let killed = capture(&argv, None, QUICK).await?;
        match killed.code {
            0 => Ok(Some(())),
            _ if killed.stderr.contains("nothing on") => Ok(None),
            code => fail(format!("`{}` ended with {code}: {}", argv.join(" "), killed.stderr)),
        }
    }

    /// A command on a node, cut short after 30 s.
    pub async fn exec(&self, node: &str, argv: &[&str]) -> Result<Output> {
        let tool = tool();
        let head = [tool.as_str(), "exec", node, "--timeout", "30", "--"];
        capture(&[&head, argv].concat(), None, Duration::from_secs(40)).await
    }

    /// Everything that a test may have switched off works again.
    pub async fn mend(&self) -> Result {
        if Self::status().await?.is_none() {
            Self::up().await?;
        }
        let machines = self.nodes.iter().map(async |node| {
            tokio::try_join!(self.exec(node, &["sh", "-c", WHOLE]), self.spoil("heal", node, &[]))
        });
        tokio::try_join!(self.mend_objects(), futures::future::try_join_all(machines)).map(drop)
    }

    async fn mend_objects(&self) -> Result {
        let nodes = self.kubectl(&["get", "nodes", "-o", "json"]).await?;
        let nodes: serde_json::Value = serde_json::from_str(&nodes)?;
        for node in nodes["items"].as_array().into_iter().flatten() {
            self.mend_object(node).await?;
        }
        Ok(())
    }

    /// What a test has written on a Node.
    async fn mend_object(&self, node: &serde_json::Value) -> Result {
        let name = node["metadata"]["name"].as_str().ok_or("a node without a name")?;
        if !node["metadata"]["labels"][MADE_UP].is_null() {
            return self.kubectl(&["delete", "node", name, "--ignore-not-found"]).await.map(drop);
        }
        if node["spec"]["unschedulable"] == true {
            self.kubectl(&["uncordon", name]).await?;
        }
        let taints = node["spec"]["taints"].as_array().into_iter().flatten();
        for key in taints.filter_map(|taint| taint["key"].as_str()) {
            if [TAINT, OUT_OF_SERVICE].contains(&key) {
                self.kubectl(&["taint", "node", name, &format!("{key}-")]).await?;
            }
        }
        Ok(())
    }
}
