//! The `NodeCapacity` resource: what a node can still take, published by its agent. Whether the agent is alive is told by
//! a Lease of the same name in SHADOW's namespace, which is smaller to renew.

use std::collections::BTreeSet;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Compatibility, MigrationUid};

/// What a node can still take. Its name is the node's.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "migration.ms2m.io",
    version = "v1alpha1",
    kind = "NodeCapacity",
    plural = "nodecapacities",
    shortname = "nodecap",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Free","type":"integer","format":"int64","jsonPath":".spec.freeBytes"}"#,
    printcolumn = r#"{"name":"CPU","type":"string","jsonPath":".spec.compatibility.cpuVendor"}"#,
    printcolumn = r#"{"name":"Kernel","type":"string","jsonPath":".spec.compatibility.kernel"}"#,
    printcolumn = r#"{"name":"CRIU","type":"string","jsonPath":".spec.compatibility.criu"}"#,
    printcolumn = r#"{"name":"Runtime","type":"string","jsonPath":".spec.compatibility.ociRuntime"}"#,
    printcolumn = r#"{"name":"Cgroups","type":"integer","jsonPath":".spec.compatibility.cgroupVersion"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct NodeCapacitySpec {
    /// Bytes that archives may still take on the node; what is kept free for everybody else is not among them.
    pub free_bytes: u64,
    /// Migrations whose archives or dumps lie there already: `freeBytes` is without them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub holds: BTreeSet<MigrationUid>,
    /// Transfers that may come in at the same time.
    pub transfers_in: u32,
    /// Transfers that may go out at the same time.
    pub transfers_out: u32,
    /// How fast the last archives arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_bytes_per_second: Option<u64>,
    pub compatibility: Compatibility,
}
