//! The operator's way to the agents of this world.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use axum::response::IntoResponse as _;
use http::StatusCode;
use shadow::api::NodeName;
use shadow::operator::{OrderAnswer, Transport};

use super::World;
use super::wire::Line;

pub struct WireTransport {
    world: World,
    line: Line,
}

impl WireTransport {
    pub fn new(world: World, line: Line) -> Self {
        Self { world, line }
    }
}

#[async_trait]
impl Transport for WireTransport {
    async fn carry(
        &self,
        node: &NodeName,
        _: SocketAddr,
        path: &str,
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<OrderAnswer, String> {
        let what = format!("order {node}: {}", path.trim_start_matches("/v1/migrations/"));
        let (world, node, path) = (self.world.clone(), node.clone(), path.to_owned());
        let order = async move {
            let agent = world.node(node.as_str()).agent().ok_or("connection refused")?;
            let done = tokio::select! {
                done = agent.order(&world, &path, &body) => done,
                () = agent.stopped.cancelled() => return Err("connection reset"),
            };
            match done {
                Ok(answer) => Ok(OrderAnswer { status: StatusCode::OK, body: answer.to_string().into() }),
                Err(failure) => {
                    let response = failure.into_response();
                    let status = response.status();
                    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
                    Ok(OrderAnswer { status, body })
                }
            }
        };
        match tokio::time::timeout(limit, self.line.call(&what, order)).await {
            Ok(Ok(answer)) => answer.map_err(str::to_owned),
            Ok(Err(_)) => Err("connection reset by peer".to_owned()),
            Err(_) => Err("operation timed out".to_owned()),
        }
    }
}
