//! What we tell CRIU beyond runc's options.

/// Names one more file of settings to every CRIU that runc starts.
pub const CRIU_CONFIG_VARIABLE: &str = "CRIU_CONFIG_FILE";
