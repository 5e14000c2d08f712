//! The application under test: one of the examples as a StatefulSet or Deployment, with everything around it that a
//! user would write. Pure: objects out.

use serde_json::{Map, Value, json};

pub const IMAGE: &str = "localhost/shadow-examples:1";
pub const QUEUE: &str = "orders";
/// On every namespace of the laboratory.
pub const STAGE_LABEL: &str = "shadow-lab";
const SECRET: &str = "broker";
const PORT: u16 = 8080;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    StatefulSet,
    Deployment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// State from a queue.
    Consumer,
    /// State from HTTP writes.
    Counter,
}

/// One workload with a Service of its name.
#[derive(Clone, Debug)]
pub struct App {
    pub name: String,
    pub kind: Kind,
    pub program: Program,
    pub replicas: u32,
    /// Made one after the other, as Kubernetes does unless it is told otherwise.
    pub in_order: bool,
    /// Of the pod template, without their prefix `migration.ms2m.io/`.
    pub annotations: Vec<(String, String)>,
    pub env: Vec<(String, String)>,
    pub queue: String,
    /// Laid over the pod's spec: objects and lists are merged, everything else is replaced.
    pub pod: Value,
}

impl App {
    /// A consumer that works for 2 ms on a message, so that it keeps ahead of 120 a second and a backlog lasts.
    pub fn consumer(name: &str) -> Self {
        let mut app = Self::plain(name, Program::Consumer);
        app.annotations = vec![
            ("queue".into(), QUEUE.into()),
            ("broker-secret".into(), SECRET.into()),
            ("policy".into(), "MigrateOrEvict".into()),
        ];
        app.env = vec![("WORK_MS".into(), "2".into()), ("PREFETCH".into(), "20".into())];
        app
    }

    /// A pod whose state changes by requests.
    pub fn counter(name: &str) -> Self {
        let mut app = Self::plain(name, Program::Counter);
        app.annotations = vec![("policy".into(), "MigrateOrEvict".into())];
        app
    }

    fn plain(name: &str, program: Program) -> Self {
        Self {
            name: name.into(),
            kind: Kind::StatefulSet,
            program,
            replicas: 1,
            in_order: false,
            annotations: vec![],
            env: vec![],
            queue: QUEUE.into(),
            pod: json!({}),
        }
    }

    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.retain(|(known, _)| known != key);
        self.annotations.push((key.into(), value.into()));
        self
    }

    #[must_use]
    pub fn unannotated(mut self) -> Self {
        self.annotations.clear();
        self
    }

    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != key);
        self.env.push((key.into(), value.into()));
        self
    }

    #[must_use]
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    #[must_use]
    pub fn in_order(mut self) -> Self {
        self.in_order = true;
        self
    }

    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    #[must_use]
    pub fn queue(mut self, queue: &str) -> Self {
        queue.clone_into(&mut self.queue);
        self.annotated("queue", queue)
    }

    #[must_use]
    pub fn pod(mut self, overlay: Value) -> Self {
        merge(&mut self.pod, overlay);
        self
    }

    /// `kind/name`, as kubectl takes it.
    pub fn reference(&self) -> String {
        match self.kind {
            Kind::StatefulSet => format!("statefulset/{}", self.name),
            Kind::Deployment => format!("deployment/{}", self.name),
        }
    }

    /// The workload and its Services.
    pub fn objects(&self, namespace: &str) -> Vec<Value> {
        let labels = json!({ "app": self.name });
        let metadata = |name: &str| json!({ "name": name, "namespace": namespace });
        let mut spec = json!({
            "replicas": self.replicas,
            "selector": { "matchLabels": labels },
            "template": self.template(),
        });
        let kind = match self.kind {
            Kind::StatefulSet => {
                spec["serviceName"] = format!("{}-pods", self.name).into();
                let policy = if self.in_order { "OrderedReady" } else { "Parallel" };
                spec["podManagementPolicy"] = policy.into();
                "StatefulSet"
            }
            Kind::Deployment => "Deployment",
        };
        let ports = json!([{ "name": "http", "port": 80, "targetPort": PORT }]);
        vec![
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata(&self.name),
                "spec": { "selector": labels, "ports": ports } }),
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata(&format!("{}-pods", self.name)),
                "spec": { "clusterIP": "None", "selector": labels, "ports": ports } }),
            json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": metadata(&self.name), "spec": spec }),
        ]
    }

    fn template(&self) -> Value {
        let program = match self.program {
            Program::Consumer => "/consumer",
            Program::Counter => "/counter",
        };
        let mut env = vec![json!({ "name": "LISTEN", "value": format!("0.0.0.0:{PORT}") })];
        if self.program == Program::Consumer {
            env.push(json!({ "name": "QUEUE", "value": self.queue }));
            env.push(json!({ "name": "AMQP_URL",
                "valueFrom": { "secretKeyRef": { "name": SECRET, "key": "url" } } }));
        }
        env.extend(self.env.iter().map(|(name, value)| json!({ "name": name, "value": value })));
        let mut pod = json!({
            "terminationGracePeriodSeconds": 2,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "app",
                "image": IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "command": [program],
                "env": env,
                "ports": [{ "name": "http", "containerPort": PORT }],
                "readinessProbe": { "httpGet": { "path": "/healthz", "port": "http" }, "periodSeconds": 1 },
                "resources": { "requests": { "cpu": "50m", "memory": "64Mi" } },
            }],
        });
        merge(&mut pod, self.pod.clone());
        let annotations: Map<String, Value> = self
            .annotations
            .iter()
            .map(|(key, value)| (format!("migration.ms2m.io/{key}"), value.as_str().into()))
            .collect();
        json!({ "metadata": { "labels": { "app": self.name }, "annotations": annotations }, "spec": pod })
    }
}

/// The namespace, opted in, with the broker's URL in a Secret that SHADOW may read.
pub fn surroundings(namespace: &str, broker_url: &str) -> Vec<Value> {
    vec![
        json!({ "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": namespace, "labels": { "migration.ms2m.io/enabled": "true", STAGE_LABEL: "true" } } }),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": SECRET, "namespace": namespace },
            "stringData": { "url": broker_url } }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": { "name": "shadow-broker-secrets", "namespace": namespace },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "shadow-broker-secrets" },
            "subjects": [{ "kind": "ServiceAccount", "name": "shadow-operator", "namespace": "shadow-system" }] }),
    ]
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        // An entry of a list is merged with the one at its place, further ones are added.
        (Value::Array(into), Value::Array(from)) => {
            for (at, value) in from.into_iter().enumerate() {
                match into.get_mut(at) {
                    Some(old) => merge(old, value),
                    None => into.push(value),
                }
            }
        }
        (into, from) => *into = from,
    }
}
