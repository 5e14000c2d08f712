//! An init container whose work is in the pod's volumes already: a program that does nothing takes the place of its own, so
//! that kubelet, spec and status see it complete. Does I/O.
//!
//! Guarantees: nothing of its image or its command runs; `config.json` is replaced as a whole or not at all.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::{post_start, prepare};

/// Where the container finds the program.
const PROGRAM: &str = "/.shadow-nothing";

/// Makes the bundle in `dir` one of a container that ends at once, with success.
pub fn complete(dir: &Path) -> io::Result<()> {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    let own = std::env::current_exe()?;
    if !change(&mut config, &own.to_string_lossy()) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "config.json has no process"));
    }
    prepare::replace(&path, &config.to_string())
}

/// False where it is the configuration of nothing that runs.
fn change(config: &mut Value, own: &str) -> bool {
    let Some(process) = config.get_mut("process").and_then(Value::as_object_mut) else { return false };
    process.insert("args".to_owned(), json!([PROGRAM, post_start::NOTHING]));
    // Neither the folder nor the profiles of its own command are this one's.
    process.insert("cwd".to_owned(), json!("/"));
    process.remove("apparmorProfile");
    if let Some(linux) = config.get_mut("linux").and_then(Value::as_object_mut) {
        linux.remove("seccomp");
    }
    let mount = json!({ "destination": PROGRAM, "type": "bind", "source": own,
        "options": ["bind", "ro", "nosuid", "nodev"] });
    match config.get_mut("mounts").and_then(Value::as_array_mut) {
        Some(mounts) => {
            mounts.retain(|mount| mount["destination"] != PROGRAM);
            mounts.push(mount);
        }
        None => config["mounts"] = json!([mount]),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_command_is_one_that_does_nothing_and_all_else_stays() {
        let config = json!({ "ociVersion": "1.2.0", "hostname": "x", "mounts": [{ "destination": "/data" }],
            "process": { "args": ["/bin/fill", "/data"], "cwd": "/work", "user": { "uid": 1001 },
                "apparmorProfile": "p" }, "linux": { "seccomp": {}, "namespaces": [] } });
        let mut changed = config.clone();
        for _ in 0..2 {
            assert!(change(&mut changed, "/opt/shadow/bin/shadow-runc"));
        }
        assert_eq!(changed["process"]["args"], json!([PROGRAM, post_start::NOTHING]));
        assert_eq!(
            (&changed["process"]["apparmorProfile"], &changed["linux"]),
            (&Value::Null, &json!({ "namespaces": [] }))
        );
        assert_eq!(changed["process"]["user"], config["process"]["user"]);
        let mounts = changed["mounts"].as_array().unwrap();
        assert_eq!((mounts.len(), &mounts[1]["source"]), (2, &json!("/opt/shadow/bin/shadow-runc")));
        assert!(!change(&mut json!({}), "/x"));
    }
}
