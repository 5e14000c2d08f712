//! A container's seccomp profile in which io_uring does not exist: its rings cannot be checkpointed, and programs that know
//! them fall back by themselves where the kernel has none. Pure.
//!
//! Guarantees: nothing that was forbidden is allowed, nothing else is forbidden; doing it again changes nothing.

use serde_json::{Map, Value, json};

const CALLS: [&str; 3] = ["io_uring_setup", "io_uring_enter", "io_uring_register"];
/// Actions after which the call is made.
const LETTING: [&str; 4] = ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_NOTIFY"];
/// "Function not implemented", on every architecture that is named here.
const ENOSYS: u32 = 38;

/// Takes io_uring out of the profile in `linux` of a `config.json`, made where there is none; true if that changed it.
pub fn forbid_io_uring(linux: &mut Map<String, Value>, architecture: &str) -> bool {
    let profile = match linux.get_mut("seccomp") {
        Some(Value::Object(profile)) => profile,
        None | Some(Value::Null) => {
            // A call of an architecture that the filter does not know kills: all that the machine runs are named.
            let Some(architectures) = architectures(architecture) else { return false };
            let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures,
                "syscalls": [rule(&CALLS)] });
            linux.insert("seccomp".to_owned(), profile);
            return true;
        }
        Some(_) => return false,
    };
    let lets_all = profile.get("defaultAction").is_some_and(lets);
    let rules = profile.entry("syscalls").or_insert(Value::Array(Vec::new()));
    if rules.is_null() {
        *rules = Value::Array(Vec::new());
    }
    let Some(rules) = rules.as_array_mut() else { return false };
    let forbidden = |rule: &Value, call: &str| names(rule, call) && always(rule) && !acts(rule, lets);
    let left: Vec<&str> = CALLS
        .into_iter()
        .filter(|call| !rules.iter().any(|rule| forbidden(rule, call)))
        .filter(|call| lets_all || rules.iter().any(|rule| names(rule, call) && acts(rule, lets)))
        .collect();
    if left.is_empty() {
        return false;
    }
    // Two rules about one call contradict each other.
    for rule in rules.iter_mut() {
        if let Some(named) = rule.get_mut("names").and_then(Value::as_array_mut) {
            named.retain(|name| name.as_str().is_none_or(|name| !left.contains(&name)));
        }
    }
    rules.retain(|rule| rule.get("names").and_then(Value::as_array).is_none_or(|names| !names.is_empty()));
    rules.push(rule(&left));
    true
}

fn rule(calls: &[&str]) -> Value {
    json!({ "names": calls, "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS })
}

fn names(rule: &Value, call: &str) -> bool {
    rule.get("names").and_then(Value::as_array).is_some_and(|names| names.iter().any(|name| name == call))
}

/// Whatever the arguments are.
fn always(rule: &Value) -> bool {
    rule.get("args").and_then(Value::as_array).is_none_or(Vec::is_empty)
}

fn acts(rule: &Value, how: impl Fn(&Value) -> bool) -> bool {
    rule.get("action").is_some_and(how)
}

fn lets(action: &Value) -> bool {
    action.as_str().is_some_and(|action| LETTING.contains(&action))
}

fn architectures(machine: &str) -> Option<&'static [&'static str]> {
    match machine {
        "x86_64" => Some(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        "aarch64" => Some(&["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a profile, and whether that is a change.
    fn changed(profile: Value) -> (Value, bool) {
        let mut linux = json!({ "seccomp": profile, "other": 1 });
        let linux = linux.as_object_mut().unwrap();
        let changed = forbid_io_uring(linux, "x86_64");
        let once = linux.clone();
        assert!(!forbid_io_uring(linux, "x86_64") && *linux == once, "a second time changes nothing");
        assert_eq!(linux["other"], 1);
        (linux["seccomp"].take(), changed)
    }

    fn ours(calls: &[&str]) -> Value {
        json!({ "names": calls, "action": "SCMP_ACT_ERRNO", "errnoRet": 38 })
    }

    #[test]
    fn without_a_profile_everything_else_is_allowed_on_every_architecture_of_the_machine() {
        let (profile, is_new) = changed(Value::Null);
        assert!(is_new);
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ALLOW");
        assert_eq!(profile["architectures"].as_array().unwrap().len(), 3);
        assert_eq!(profile["syscalls"], json!([ours(&CALLS)]));
        assert!(!forbid_io_uring(&mut Map::new(), "riscv64"), "not where a foreign call would be killed");
    }

    #[test]
    fn what_was_allowed_by_name_is_not_any_more_and_the_rest_stays() {
        let (profile, _) = changed(
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "flags": ["x"],
            "syscalls": [
                { "names": ["read", "io_uring_setup", "io_uring_enter", "io_uring_register", "write"], "action": "SCMP_ACT_ALLOW" },
                { "names": ["io_uring_setup"], "action": "SCMP_ACT_LOG", "args": [{ "index": 0 }] },
            ] }),
        );
        assert_eq!((&profile["flags"], &profile["defaultErrnoRet"]), (&json!(["x"]), &json!(1)));
        let kept = json!({ "names": ["read", "write"], "action": "SCMP_ACT_ALLOW" });
        assert_eq!(profile["syscalls"], json!([kept, ours(&CALLS)]));
    }

    #[test]
    fn what_is_forbidden_already_stays_as_it_is() {
        let default = json!({ "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }] });
        assert_eq!(changed(default.clone()), (default, false));
        let named = json!({ "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["io_uring_setup"], "action": "SCMP_ACT_KILL_PROCESS" }] });
        let (profile, _) = changed(named.clone());
        assert_eq!(profile["syscalls"][0], named["syscalls"][0]);
        assert_eq!(profile["syscalls"][1], ours(&["io_uring_enter", "io_uring_register"]));
    }

    #[test]
    fn a_default_that_lets_everything_through_gets_the_rule() {
        for syscalls in [Value::Null, json!([])] {
            let (profile, is_new) = changed(json!({ "defaultAction": "SCMP_ACT_LOG", "syscalls": syscalls }));
            assert!(is_new);
            assert_eq!(profile["syscalls"], json!([ours(&CALLS)]));
        }
    }

    #[test]
    fn what_is_no_profile_is_left_to_runc() {
        for odd in [json!("text"), json!({ "defaultAction": 7, "syscalls": "none" })] {
            assert_eq!(changed(odd.clone()), (odd, false));
        }
    }
}
