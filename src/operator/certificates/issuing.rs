//! Where agents get their certificates: whoever proves to be the agent of a node is called after that node.
//!
//! The proof is the pod's token for audience `shadow`; the API server says whose it is and on which node that pod
//! runs. Tokens are neither kept nor logged. Calls the Kubernetes API (TokenReview).

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    routing::post,
};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};

use super::Authority;
use crate::{
    api::{TLS_NAME_OPERATOR, tls_name_agent},
    kit::certificate_exchange::{AUDIENCE, CertificateAnswer, CertificateRequest, PATH},
};

/// Far more than a signing request and a token need.
const BODY_LIMIT: usize = 64 * 1024;
const NODE_CLAIM: &str = "authentication.kubernetes.io/node-name";

#[derive(Clone)]
struct Issuing {
    reviews: Api<TokenReview>,
    agent: String,
    authority: Arc<ArcSwap<Authority>>,
}

pub(super) fn router(client: Client, namespace: &str, authority: Arc<ArcSwap<Authority>>) -> Router {
    let agent = format!("system:serviceaccount:{namespace}:shadow-agent");
    Router::new().route(PATH, post(issue)).layer(DefaultBodyLimit::max(BODY_LIMIT)).with_state(Issuing {
        reviews: Api::all(client),
        agent,
        authority,
    })
}

type Refusal = (StatusCode, String);

async fn issue(
    State(issuing): State<Issuing>,
    Json(request): Json<CertificateRequest>,
) -> Result<Json<CertificateAnswer>, Refusal> {
    let CertificateRequest { csr, token } = request;
    let review = TokenReview {
        spec: TokenReviewSpec { token, audiences: Some(vec![AUDIENCE.to_owned()]) },
        ..TokenReview::default()
    };
    let reviewed = issuing.reviews.create(&PostParams::default(), &review).await.map_err(|error| {
        tracing::warn!(%error, "a token could not be reviewed");
        (StatusCode::SERVICE_UNAVAILABLE, "the token cannot be reviewed now, try again".to_owned())
    })?;
    let node = proven_node(reviewed.status.as_ref(), &issuing.agent).map_err(|problem| {
        tracing::warn!(problem, "certificate refused");
        (StatusCode::FORBIDDEN, problem.to_owned())
    })?;
    let authority = issuing.authority.load();
    let certificate = authority
        .sign(&csr, &tls_name_agent(&node), SystemTime::now())
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("signing request: {error}")))?;
    tracing::info!(node, "agent certificate issued");
    Ok(Json(CertificateAnswer { certificate }))
}

/// The node of the pod whose token was reviewed, if it is an agent's.
fn proven_node(status: Option<&TokenReviewStatus>, agent: &str) -> Result<String, &'static str> {
    let status = status.ok_or("the token was not reviewed")?;
    if status.authenticated != Some(true) {
        return Err("the token is not valid for audience `shadow`");
    }
    let audiences = status.audiences.as_deref().unwrap_or_default();
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err("the token is not meant for audience `shadow`");
    }
    let user = status.user.as_ref().ok_or("the token belongs to nobody")?;
    if user.username.as_deref() != Some(agent) {
        return Err("the token is not an agent's");
    }
    let none = BTreeMap::new();
    let claims = user.extra.as_ref().unwrap_or(&none);
    let node = claims.get(NODE_CLAIM).and_then(|nodes| nodes.first());
    let node = node.filter(|node| !node.is_empty()).ok_or("the token is not bound to a node")?;
    // Cannot be a node's name, but what is checked here need not be believed elsewhere.
    if tls_name_agent(node) == TLS_NAME_OPERATOR || node.contains('*') {
        return Err("the token's node has no usable name");
    }
    Ok(node.clone())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    const AGENT: &str = "system:serviceaccount:shadow-system:shadow-agent";

    fn reviewed() -> TokenReviewStatus {
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![AUDIENCE.to_owned()]),
            user: Some(UserInfo {
                username: Some(AGENT.to_owned()),
                extra: Some([(NODE_CLAIM.to_owned(), vec!["n1".to_owned()])].into()),
                ..UserInfo::default()
            }),
            error: None,
        }
    }

    #[test]
    fn an_agents_token_proves_its_node() {
        assert_eq!(proven_node(Some(&reviewed()), AGENT), Ok("n1".to_owned()));
    }

    #[test]
    fn each_missing_part_of_the_proof_is_a_refusal() {
        assert!(proven_node(None, AGENT).is_err());
        let spoilt: [fn(&mut TokenReviewStatus); 5] = [
            |status| status.authenticated = Some(false),
            |status| status.audiences = Some(vec!["https://kubernetes.default.svc".to_owned()]),
            |status| status.audiences = None,
            |status| {
                status.user.get_or_insert_default().username =
                    Some("system:serviceaccount:default:shadow-agent".to_owned());
            },
            |status| status.user.get_or_insert_default().extra = None,
        ];
        for spoil in spoilt {
            let mut status = reviewed();
            spoil(&mut status);
            assert!(proven_node(Some(&status), AGENT).is_err(), "{status:?}");
        }
    }
}
