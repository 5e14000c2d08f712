//! Watches the source pod. Does I/O.

use futures::future::BoxFuture;
use futures::stream::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};

use super::subject::Subject;
use crate::operator::context::Context;

/// Resolves when the source pod object is gone or another one has its name.
pub fn source_watch(ctx: &Context, subject: &Subject) -> BoxFuture<'static, ()> {
    let pods: Api<Pod> = Api::namespaced(ctx.watch_client.clone(), &subject.source.namespace);
    let (name, uid) = (subject.source.name.clone(), subject.source.uid.clone());
    Box::pin(async move {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut stream =
            std::pin::pin!(kube::runtime::WatchStreamExt::default_backoff(watcher(pods, config)));
        let mut seen = false;
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                    if pod.uid().as_deref() != Some(uid.as_str()) {
                        return;
                    }
                    seen = true;
                }
                Ok(watcher::Event::Delete(pod)) if pod.uid().as_deref() == Some(uid.as_str()) => return,
                Ok(watcher::Event::InitDone) if !seen => return,
                Ok(watcher::Event::Init) => seen = false,
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "watch of the source interrupted"),
            }
        }
        std::future::pending::<()>().await;
    })
}
