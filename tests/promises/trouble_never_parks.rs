//! The consumer does not stop taking messages: it is busy with one for longer than anybody waits.

use shadow::api::Reason;

use super::trouble::{Trouble, blocking_app};
use crate::lab::{App, Result, on_cluster};

#[test]
fn a_consumer_that_never_parks_keeps_its_work_and_the_drain_is_told_why() -> Result {
    on_cluster("never-parks", async |lab| {
        let app: App = blocking_app().env("WORK_MS", "12000").env("PREFETCH", "1");
        let trouble = Trouble::few_messages(lab, app).await?;
        let drain = trouble.drain()?;
        trouble.is_refused_because(drain, &[Reason::ConsumerNeverParked]).await?;
        trouble.ends_as_if_nothing_had_happened().await
    })
}
