//! Broker side: park, resume, proof of it, per-migration queues; control messages to consumers.
