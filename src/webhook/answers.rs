//! The four answers that an eviction can get, and no fifth. Pure.
//!
//! Drainers treat every other code as a failure of the drain (kubectl) or retry it blindly, so this type is the only
//! way to an answer: 201 (as it is, or as a dry run), 404, 429, with code and reason spelled out.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use serde_json::{Value, json};

use super::review::Response;

/// What a client that evicts a pod is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvictionAnswer {
    /// None of our business, or meant to happen: the API server goes on as if we were not there.
    PassThrough { warning: Option<String> },
    /// The pod is being moved: the eviction becomes a dry run, the client gets 201 and waits for the pod's UID to go.
    DryRun { warning: String },
    /// Not now: the client asks again.
    TooManyRequests { message: String },
    /// What the client means is not there any more: it is done.
    NotFound { message: String },
}

/// Why that answer: label of a metric, word in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// The migration was started by this request, or would be if it were no dry run.
    Started,
    /// A migration of this pod is under way.
    UnderWay,
    /// A migration of this pod is past its commit.
    Leaving,
    /// The migration is being taken back.
    TakenBack,
    /// The pod arrived just now by a migration: a late retry of the eviction that moved it.
    AlreadyMoved,
    /// The pod is the shadow of a running migration.
    IsShadow,
    /// The pod is what a running migration moves to.
    IsTarget,
    /// The policy is to stay rather than lose state, and the migration failed.
    Blocked,
    /// The migration failed and the policy is to evict then.
    FellBack,
    /// An annotation has a value that means nothing.
    WrongPolicy,
    /// Nobody asked for this pod to be moved.
    NotAsked,
    /// The operator or another client that means a real eviction.
    RealEviction,
    /// The UID given is not this pod's: the API server refuses it.
    OtherPod,
    Deleting,
    Finished,
    /// It runs nothing yet.
    NotRunning,
    /// Its StatefulSet would not make the same pod again.
    NotKept,
    Gone,
    NotAnEviction,
    /// The caches are not filled yet, or do not agree yet.
    NotSynced,
    /// The request could not be read.
    Unreadable,
    /// A call to the API failed or took too long.
    ApiFailed,
}

impl Why {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::UnderWay => "under_way",
            Self::Leaving => "leaving",
            Self::TakenBack => "taken_back",
            Self::AlreadyMoved => "already_moved",
            Self::IsShadow => "is_shadow",
            Self::IsTarget => "is_target",
            Self::Blocked => "blocked",
            Self::FellBack => "fell_back",
            Self::WrongPolicy => "wrong_policy",
            Self::NotAsked => "not_asked",
            Self::RealEviction => "real_eviction",
            Self::OtherPod => "other_pod",
            Self::Deleting => "deleting",
            Self::Finished => "finished",
            Self::NotRunning => "not_running",
            Self::NotKept => "not_kept",
            Self::Gone => "gone",
            Self::NotAnEviction => "not_an_eviction",
            Self::NotSynced => "not_synced",
            Self::Unreadable => "unreadable",
            Self::ApiFailed => "api_failed",
        }
    }
}

impl EvictionAnswer {
    /// Label of the metric.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::PassThrough { .. } => "pass_through",
            Self::DryRun { .. } => "dry_run",
            Self::TooManyRequests { .. } => "too_many_requests",
            Self::NotFound { .. } => "not_found",
        }
    }

    /// The answer on the wire. `has_options`: the eviction has `deleteOptions`, which are kept; `asked_dry`: the
    /// client itself wants a dry run, so nothing has to be rewritten.
    pub fn into_response(self, uid: &str, has_options: bool, asked_dry: bool) -> Response {
        match self {
            Self::PassThrough { warning: None } => Response::allow(uid),
            Self::PassThrough { warning: Some(warning) } => Response::allow(uid).with_warning(&warning),
            Self::DryRun { warning } if asked_dry => Response::allow(uid).with_warning(&warning),
            Self::DryRun { warning } => match Response::allow(uid).with_patch(&dry_run_patch(has_options)) {
                Ok(response) => response.with_warning(&warning),
                Err(error) => too_many_requests(uid, format!("the answer could not be written: {error}")),
            },
            Self::TooManyRequests { message } => too_many_requests(uid, message),
            Self::NotFound { message } => Response::deny(uid, 404, "NotFound", message),
        }
    }
}

/// Without `retryAfterSeconds`: with it, client-go would sleep and retry by itself, silently.
fn too_many_requests(uid: &str, message: String) -> Response {
    Response::deny(uid, 429, "TooManyRequests", message)
}

fn dry_run_patch(has_options: bool) -> Patch {
    let all = json!(["All"]);
    let (tokens, value): (&[&str], Value) = if has_options {
        (&["deleteOptions", "dryRun"], all)
    } else {
        (&["deleteOptions"], json!({ "dryRun": all }))
    };
    Patch(vec![PatchOperation::Add(AddOperation {
        path: PointerBuf::from_tokens(tokens.iter().copied()),
        value,
    })])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(mut eviction: Value) -> Value {
        let patch = dry_run_patch(eviction.get("deleteOptions").is_some_and(Value::is_object));
        json_patch::patch(&mut eviction, &patch).unwrap();
        eviction
    }

    #[test]
    fn a_dry_run_keeps_what_else_was_asked_for() {
        assert_eq!(rewritten(json!({})), json!({ "deleteOptions": { "dryRun": ["All"] } }));
        assert_eq!(
            rewritten(
                json!({ "deleteOptions": { "gracePeriodSeconds": 3, "preconditions": { "uid": "u" } } })
            ),
            json!({ "deleteOptions": { "dryRun": ["All"], "gracePeriodSeconds": 3, "preconditions": { "uid": "u" } } })
        );
        assert_eq!(
            rewritten(json!({ "deleteOptions": null })),
            json!({ "deleteOptions": { "dryRun": ["All"] } })
        );
    }

    #[test]
    fn refusals_spell_out_code_and_reason_and_never_say_when_to_come_back() {
        for (answer, code, reason) in [
            (EvictionAnswer::TooManyRequests { message: "m".into() }, 429, "TooManyRequests"),
            (EvictionAnswer::NotFound { message: "m".into() }, 404, "NotFound"),
        ] {
            let response = answer.into_response("u", false, false);
            let status = response.status.unwrap();
            assert!(!response.allowed);
            assert_eq!((status.code, status.reason, status.message.as_str()), (code, reason, "m"));
            assert!(status.details.is_none());
        }
    }
}
