//! `kubectl shadow check`: asks the operator through the API server's proxy, which knows who asks. Does I/O.

use http::Request;
use kube::Client;
use kube::client::Body;

use crate::api::Check;

/// Name and port of the operator's Service.
const SERVICE: &str = "shadow-operator:health";

/// No, or no answer.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("pod {0} cannot be moved now")]
    NotMovable(String),
    #[error("the operator was not asked: {0}")]
    Request(#[from] http::Error),
    #[error("the operator does not answer: {0}; is SHADOW installed in namespace {1}?")]
    Operator(kube::Error, String),
    #[error("not checked (HTTP {0}): {1}")]
    Refused(http::StatusCode, String),
    #[error("the operator's answer is not understood: {0}")]
    Answer(#[from] serde_json::Error),
}

/// Prints what the operator finds.
pub async fn check(
    client: &Client,
    installed_in: &str,
    namespace: &str,
    pod: &str,
    to: Option<&str>,
    json: bool,
) -> Result<(), CheckError> {
    let service = format!("/api/v1/namespaces/{installed_in}/services/{SERVICE}/proxy");
    let query = to.map(|node| format!("?to={node}")).unwrap_or_default();
    let request = Request::get(format!("{service}/v1/check/{namespace}/{pod}{query}")).body(Body::empty())?;
    let unanswered = |error| CheckError::Operator(error, installed_in.to_owned());
    let (head, body) = client.send(request).await.map_err(unanswered)?.into_parts();
    let answer = String::from_utf8_lossy(&body.collect_bytes().await.map_err(unanswered)?).into_owned();
    if !head.status.is_success() {
        return Err(CheckError::Refused(head.status, problem(&answer)));
    }
    let found: Check = serde_json::from_str(&answer)?;
    if json {
        println!("{answer}");
    } else {
        print!("{}", told(namespace, pod, &found));
    }
    if found.movable { Ok(()) } else { Err(CheckError::NotMovable(format!("{namespace}/{pod}"))) }
}

/// What the operator (`error`) or the API server (`message`) has to say.
fn problem(answer: &str) -> String {
    let said: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    let said = [&said["error"], &said["message"]].into_iter().find_map(serde_json::Value::as_str);
    said.unwrap_or(answer.trim()).to_owned()
}

/// For people.
fn told(namespace: &str, pod: &str, found: &Check) -> String {
    let node = found.source_node.as_ref().map_or("no node", |node| node.as_str());
    let archive = found
        .archive_bytes
        .map_or_else(|| "of unknown size".to_owned(), |bytes| format!("of {}", mib(bytes)));
    let mut text = format!("pod {namespace}/{pod} on {node}, archive {archive}\n");
    text.extend(judgement(found).map(|line| line + "\n"));
    if !found.nodes.is_empty() {
        text += &format!("{:<32} {:<5} {:>5}  {}\n", "NODE", "FITS", "SCORE", "WHY");
    }
    for one in &found.nodes {
        let score = one.score.map_or_else(|| "-".to_owned(), |score| score.to_string());
        let (fits, why) = match (&one.reason, one.free_bytes) {
            (Some(reason), _) => ("no", reason.clone()),
            (None, free) => ("yes", free.map(|free| format!("{} free", mib(free))).unwrap_or_default()),
        };
        text += &format!("{:<32} {fits:<5} {score:>5}  {why}\n", one.node);
    }
    text
}

/// What is against a pod, or is to be known of it, a line each.
pub fn judgement(found: &Check) -> impl Iterator<Item = String> {
    let refusals = found.refusal.iter().chain(&found.further);
    let refusals =
        refusals.map(|refusal| format!("cannot be moved: {}: {}", refusal.reason, refusal.message));
    refusals.chain(found.warnings.iter().map(|warning| format!("warning: {warning}")))
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CheckedNode;

    #[test]
    fn people_see_a_line_for_each_node() {
        let node = |name: &str, reason: Option<&str>, score: Option<i64>| CheckedNode {
            node: name.into(),
            reason: reason.map(str::to_owned),
            free_bytes: score.map(|_| 4096 << 20),
            score,
        };
        let found = Check {
            movable: true,
            refusal: None,
            further: vec![],
            warnings: vec!["mind".to_owned()],
            source_node: Some("n1".into()),
            archive_bytes: Some(17 << 20),
            nodes: vec![node("n1", Some("the pod is there"), None), node("n2", None, Some(10))],
        };
        let lines: Vec<_> = told("shop", "web-0", &found).lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "pod shop/web-0 on n1, archive of 17 MiB");
        assert_eq!(lines[1], "warning: mind");
        assert!(lines[3].ends_with("the pod is there") && lines[3].contains(" no "), "{lines:?}");
        assert!(lines[4].ends_with("4096 MiB free") && lines[4].contains(" yes      10 "), "{lines:?}");
    }
}
