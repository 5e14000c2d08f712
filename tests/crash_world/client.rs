//! A `kube::Client` whose connections are wires of this world.

use std::io;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use tower::timeout::TimeoutLayer;
use tower::{BoxError, Layer as _, service_fn};

use super::World;
use super::api_server::{Call, User, serve};
use super::wire::Line;

/// Each call ends within `limit`, as the product's own client bounds them; a watch has none.
pub fn client(world: &World, line: &Line, user: User, limit: Option<Duration>) -> kube::Client {
    let (world, line) = (world.clone(), line.clone());
    let service = service_fn(move |request: Request<kube::client::Body>| {
        let (world, line) = (world.clone(), line.clone());
        async move { send(world, line, user, request).await }
    });
    match limit {
        None => kube::Client::new(service, "default"),
        Some(limit) => kube::Client::new(TimeoutLayer::new(limit).layer(service), "default"),
    }
}

async fn send(
    world: World,
    line: Line,
    user: User,
    request: Request<kube::client::Body>,
) -> Result<Response<Body>, BoxError> {
    let (parts, body) = request.into_parts();
    let body = body.collect_bytes().await?;
    if parts.uri.path().contains("/events") {
        // A courtesy that nothing depends on.
        line.aside(async {}).await;
        return Ok(Response::builder().status(403).body(Body::from(
            r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"no Events here"}"#,
        ))?);
    }
    let call = Call::read(user, &Request::from_parts(parts, ()), &body);
    let what = call.describe();
    match line.call(&what, serve(world, call)).await {
        Ok(response) => Ok(response),
        Err(_) => Err(Box::new(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer"))),
    }
}
