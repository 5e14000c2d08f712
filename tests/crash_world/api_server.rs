//! The API server: HTTP requests in, the store and the webhook behind. No sockets.
//!
//! Guarantees: resourceVersions are compared, UID preconditions kept, webhooks called as `deploy/base/admission.yaml`
//! registers them, failing closed where it says so.

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::World;
use super::admission::Verdict;
use super::mistake::Mistake;
use super::objects::{Key, Refusal, kind, text};
use super::watch;

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    Operator,
    Webhook,
    StatefulSetController,
    Drainer,
}

impl User {
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "system:serviceaccount:shadow-system:shadow-operator",
            Self::Webhook => "system:serviceaccount:shadow-system:shadow-webhook",
            Self::StatefulSetController => "system:serviceaccount:kube-system:statefulset-controller",
            Self::Drainer => "kubernetes-admin",
        }
    }
}

/// What a path names.
pub struct Target {
    pub plural: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub sub: Option<String>,
}

impl Target {
    fn parse(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/').map(str::to_owned);
        match parts.next()?.as_str() {
            "api" => parts.next(),
            "apis" => parts.next().and_then(|_| parts.next()),
            _ => None,
        }?;
        let mut plural = parts.next()?;
        let mut namespace = None;
        if plural == "namespaces" {
            namespace = parts.next();
            plural = parts.next()?;
        }
        Some(Self { plural, namespace, name: parts.next(), sub: parts.next() })
    }

    fn key(&self) -> Key {
        Key::new(
            &self.plural,
            self.namespace.as_deref().unwrap_or_default(),
            self.name.as_deref().unwrap_or_default(),
        )
    }

    /// For the trace.
    pub fn describe(&self, method: &Method, is_watch: bool) -> String {
        let verb = if is_watch { "WATCH" } else { method.as_str() };
        let name = self.name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
        let sub = self.sub.as_ref().map_or_else(String::new, |sub| format!("/{sub}"));
        format!("{verb} {}{sub}{name}", self.plural)
    }
}

/// A request that was read.
pub struct Call {
    pub user: User,
    pub method: Method,
    pub target: Target,
    pub query: Vec<(String, String)>,
    pub body: Value,
}

impl Call {
    pub fn read(user: User, request: &Request<()>, body: &[u8]) -> Self {
        let uri = request.uri();
        let target = Target::parse(uri.path()).unwrap_or_else(|| panic!("no such path: {uri}"));
        let query = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let decoded = |text: &str| text.replace("%3D", "=").replace("%2F", "/").replace("%2C", ",");
        Self {
            user,
            method: request.method().clone(),
            target,
            query: query.map(|(key, value)| (key.to_owned(), decoded(value))).collect(),
            body: serde_json::from_slice(body).unwrap_or(Value::Null),
        }
    }

    fn asked(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn is_watch(&self) -> bool {
        matches!(self.asked("watch"), Some("true" | "1"))
    }

    pub fn describe(&self) -> String {
        self.target.describe(&self.method, self.is_watch())
    }

    /// `metadata.name=...`
    fn wanted_name(&self) -> Option<String> {
        self.asked("fieldSelector")?.strip_prefix("metadata.name=").map(str::to_owned)
    }
}

type Answer = Result<(StatusCode, Value), Refusal>;

/// Answers a request.
pub async fn serve(world: World, call: Call) -> Response<Body> {
    if call.is_watch() {
        let from = call.asked("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
        let timeout = call.asked("timeoutSeconds").and_then(|seconds| seconds.parse().ok()).unwrap_or(290);
        let target = &call.target;
        let selection = watch::Selection {
            plural: target.plural.clone(),
            namespace: target.namespace.clone(),
            name: call.wanted_name(),
        };
        return Response::new(watch::stream(world, selection, from, timeout));
    }
    let (code, body) = match answer(&world, call).await {
        Ok((code, body)) => (code, body),
        Err(refusal) => {
            let code = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": refusal.message, "reason": refusal.reason, "code": refusal.code });
            (code, status)
        }
    };
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = code;
    response
}

async fn answer(world: &World, call: Call) -> Answer {
    let target = &call.target;
    let key = target.key();
    let ok = |object| Ok((StatusCode::OK, object));
    match (call.method.as_str(), target.name.as_deref(), target.sub.as_deref()) {
        ("GET", None, _) => ok(list(world, &call)),
        ("GET", Some(_), _) => ok(world.objects.get(&key).ok_or_else(|| Refusal::not_found(&key))?),
        ("POST", None, _) => Ok((StatusCode::CREATED, create(world, &call).await?)),
        ("POST", Some(_), Some("eviction")) => evict(world, &call, &key).await,
        ("PUT", Some(_), sub) => ok(replace(world, &call, &key, sub)?),
        ("PATCH", Some(_), sub) => ok(patch(world, &call, &key, sub)?),
        ("DELETE", Some(_), _) => {
            let wanted = text(&call.body, "/preconditions/uid").to_owned();
            let at_once = call.body["gracePeriodSeconds"] == json!(0);
            world.invariants.before_delete(world, call.user, &key);
            ok(world.objects.delete(&key, (!wanted.is_empty()).then_some(wanted.as_str()), at_once)?)
        }
        (method, ..) => panic!("{method} {} is not known in this world", target.plural),
    }
}

fn list(world: &World, call: &Call) -> Value {
    let (kind, version) = kind(&call.target.plural);
    let (mut items, at) = world.objects.list(&call.target.plural, call.target.namespace.as_deref());
    if let Some(name) = call.wanted_name() {
        items.retain(|object| text(object, "/metadata/name") == name);
    }
    json!({ "kind": format!("{kind}List"), "apiVersion": version,
        "metadata": { "resourceVersion": at.to_string() }, "items": items })
}

async fn create(world: &World, call: &Call) -> Result<Value, Refusal> {
    let target = &call.target;
    if target.plural == "subjectaccessreviews" {
        let mut review = call.body.clone();
        review["status"] = json!({ "allowed": true });
        return Ok(review);
    }
    create_object(world, call.user, &target.plural, call.body.clone()).await
}

/// Creates an object after the webhook has seen it.
pub async fn create_object(
    world: &World,
    user: User,
    plural: &str,
    mut object: Value,
) -> Result<Value, Refusal> {
    let key = Key::new(plural, text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
    let path = match plural {
        "pods" => Some("/pod"),
        "statefulmigrations" => Some("/migration"),
        _ => None,
    };
    if let Some(path) = path {
        match world.review(path, user, &key, None, &object).await? {
            Verdict::Allowed(patched) => object = patched,
            Verdict::Denied(refusal) => return Err(refusal),
        }
    }
    if plural == "pods" {
        object["status"] = json!({ "phase": "Pending" });
    }
    world.objects.create(&key, object)
}

async fn evict(world: &World, call: &Call, key: &Key) -> Answer {
    let mut eviction = call.body.clone();
    if call.user != User::Operator {
        match world.review("/evict", call.user, key, Some("eviction"), &eviction).await? {
            Verdict::Allowed(patched) => eviction = patched,
            Verdict::Denied(refusal) => return Err(refusal),
        }
    }
    let created = (
        StatusCode::CREATED,
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Success", "code": 201 }),
    );
    let dry = eviction.pointer("/deleteOptions/dryRun").and_then(Value::as_array);
    if dry.is_some_and(|list| list.contains(&json!("All"))) {
        return Ok(created);
    }
    world.invariants.before_eviction(world, call.user, key);
    let wanted = text(&eviction, "/deleteOptions/preconditions/uid").to_owned();
    world.objects.delete(key, (!wanted.is_empty()).then_some(wanted.as_str()), false)?;
    Ok(created)
}

/// The version that a write is bound to.
fn bound(world: &World, object: &Value) -> Option<String> {
    if world.scenario.has(Mistake::StoreIgnoresVersions) {
        return None;
    }
    let version = text(object, "/metadata/resourceVersion");
    (!version.is_empty()).then(|| version.to_owned())
}

fn replace(world: &World, call: &Call, key: &Key, sub: Option<&str>) -> Result<Value, Refusal> {
    let version = bound(world, &call.body);
    let sent = call.body.clone();
    if sub == Some("status") {
        world.invariants.before_status(world, key, &sent);
        let written = world
            .objects
            .change(key, version.as_deref(), |object| object["status"] = sent["status"].clone())?;
        world.wire.note(format!(
            "journal: {} epoch {}",
            text(&written, "/status/step"),
            written["status"]["epoch"]
        ));
        return Ok(written);
    }
    world.objects.change(key, version.as_deref(), |object| {
        let meta = object["metadata"].clone();
        *object = sent;
        for field in ["uid", "creationTimestamp", "generation", "resourceVersion"] {
            object["metadata"][field] = meta[field].clone();
        }
    })
}

fn patch(world: &World, call: &Call, key: &Key, sub: Option<&str>) -> Result<Value, Refusal> {
    let version = bound(world, &call.body);
    let mut patch = call.body.clone();
    if let Some(meta) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("resourceVersion");
    }
    world.objects.change(key, version.as_deref(), |object| match sub {
        Some("resize") => resize(object, &patch),
        _ => json_patch::merge(object, &patch),
    })
}

/// Strategic merge of the one list that is patched so.
fn resize(pod: &mut Value, patch: &Value) {
    let Some(containers) = pod.pointer_mut("/spec/containers").and_then(Value::as_array_mut) else { return };
    for wanted in patch.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten() {
        for container in containers.iter_mut().filter(|c| c["name"] == wanted["name"]) {
            json_patch::merge(&mut container["resources"], &wanted["resources"]);
        }
    }
}
