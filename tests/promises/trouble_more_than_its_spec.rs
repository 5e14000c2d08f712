//! The images are changed on the way: what would be restored has capabilities that its pod's spec does not give it. CRIU does
//! as the images say; `shadow-runc` looks before the first instruction.

use serde_json::json;
use shadow::api::Reason;

use super::trouble::{Trouble, beside, blocking_app};
use crate::lab::{Result, fail, on_cluster, status_of};

/// While an archive arrives, the first capability (CAP_CHOWN) is added to the sets of a process that has none at all: the
/// digest is of what was sent, and is found right. In place: not a byte more or less, which would be noticed. Pages come after the rest, so these files are whole by then. The fields of
/// CRIU's `creds_entry` are one byte each: inheritable, permitted, effective and bounding, two words a set.
const CHANGE: &str = r"end=$(($(date +%s) + 25)); while [ $(date +%s) -lt $end ]; do \
    for f in /var/lib/shadow/archives/*/images/core-*.img; do [ -e ${f%/*}/pages-1.img ] && LC_ALL=C sed \
    's/\x48\x00\x48\x00\x50\x00\x50\x00\x58\x00\x58\x00\x60\x00\x60\x00/\x48\x00\x48\x00\x50\x01\x50\x00\x58\x01\x58\x00\x60\x01\x60\x00/g' \
    $f > /tmp/changed && ! cmp -s /tmp/changed $f && dd if=/tmp/changed of=$f conv=notrunc status=none; done; sleep 0.005; done";

#[test]
fn what_is_more_than_its_spec_dies_before_its_first_instruction_and_the_source_goes_on() -> Result {
    on_cluster("more-than-spec", async |lab| {
        let context =
            json!({ "containers": [{ "securityContext": { "capabilities": { "drop": ["ALL"] } } }] });
        let trouble = Trouble::ahead(lab, blocking_app().pod(context)).await?;
        let target = lab.cluster.nodes.iter().find(|node| **node != trouble.pod.node).ok_or("one node")?;
        let attempt = async {
            let drain = trouble.drain()?;
            let ended = trouble.is_refused_because(drain, &[Reason::RestoreFailed]).await?;
            let told = format!("{:?}", status_of(&ended));
            if !told.contains("capabilities beyond its spec: CAP_CHOWN") {
                return fail(format!("it was not refused for its capabilities: {told}"));
            }
            Ok(())
        };
        beside(lab, target, CHANGE, attempt).await?;
        trouble.ends_as_if_nothing_had_happened().await
    })
}
