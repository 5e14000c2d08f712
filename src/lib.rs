//! SHADOW moves a stateful pod to another node with its memory, its name and every message, exactly once.
//!
//! One line a room; dependencies point inwards: `api` <- `protocol` <- everything else <- the binaries.

pub mod agent; // on every node: dump, stream, archives, tickets, freeze and kill
pub mod api; // what users and parts exchange: CRD, annotations, orders, tickets (pure)
pub mod broker; // park, resume, proof, per-migration queues; control messages
pub mod cli; // the kubectl plugin
pub mod criu; // CRIU's image files: what we read or rewrite of them (pure)
pub mod extender; // tells kube-scheduler which nodes can take a checkpoint
pub mod judgement; // does what was found in a pod stand against moving it, and what helps (pure)
pub mod kit; // what every role needs: client, TLS, server, lease, shutdown, metrics, Events
pub mod operator; // drives migrations: observe, step, write, perform
pub mod placement; // which nodes can take a checkpoint, how well, and why not the others (pure)
pub mod protocol; // state, events, effects, `step`: the migration as a pure function
pub mod runtime; // what `shadow-runc` does
pub mod webhook; // answers evictions and pod creations
