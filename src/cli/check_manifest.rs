//! `kubectl shadow check -f`: judges manifests before they are deployed. Reads files or standard input; needs no cluster.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::check::judgement;
use crate::api::{ManifestCheck, Meanwhile};
use crate::operator::{ManifestError, check_manifest};

/// Standard input, as kubectl names it.
const STANDARD_INPUT: &str = "-";

/// No, or no answer.
#[derive(Debug, thiserror::Error)]
pub enum CheckManifestError {
    #[error("{0} of {1} cannot be moved as they are")]
    NotMovable(usize, usize),
    #[error("{0}: no StatefulSet, Deployment or pod is in it")]
    Nothing(String),
    #[error("{0}: {1}")]
    Unreadable(String, std::io::Error),
    #[error("{0}: {1}")]
    Manifest(String, ManifestError),
    #[error("the answer cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
}

/// Prints what is to be said of each workload in the files. An error unless every one can be moved.
pub fn check_manifests(files: &[PathBuf], json: bool) -> Result<(), CheckManifestError> {
    let mut found = Vec::new();
    for file in files {
        let name = || file.display().to_string();
        let text = read(file).map_err(|error| CheckManifestError::Unreadable(name(), error))?;
        let checks = check_manifest(&text).map_err(|error| CheckManifestError::Manifest(name(), error))?;
        if checks.is_empty() {
            return Err(CheckManifestError::Nothing(name()));
        }
        found.extend(checks);
    }
    if json {
        println!("{}", serde_json::to_string(&found)?);
    } else {
        print!("{}", found.iter().map(told).collect::<String>());
    }
    match found.iter().filter(|one| !one.check.movable).count() {
        0 => Ok(()),
        against => Err(CheckManifestError::NotMovable(against, found.len())),
    }
}

fn read(file: &Path) -> std::io::Result<String> {
    if file != Path::new(STANDARD_INPUT) {
        return std::fs::read_to_string(file);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

/// For people, in the words of the check of a pod.
fn told(found: &ManifestCheck) -> String {
    let namespace = found.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let meanwhile = match found.meanwhile {
        Some(Meanwhile::ReadsGoOn) => ": can be moved; requests are answered meanwhile, messages wait",
        Some(Meanwhile::StandsStill) => ": can be moved; it stands still from its dump until it is restored",
        None => "",
    };
    let mut text = format!("{} {namespace}{}{meanwhile}\n", found.kind, found.name);
    text.extend(judgement(&found.check).map(|line| format!("  {line}\n")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Check, CheckRefusal, Reason};

    #[test]
    fn people_see_a_line_for_each_workload_and_below_it_what_is_against_it() {
        let plain = ManifestCheck {
            kind: "StatefulSet".into(),
            namespace: Some("shop".into()),
            name: "web".into(),
            check: Check { movable: true, warnings: vec!["mind".into()], ..Check::default() },
            meanwhile: Some(Meanwhile::StandsStill),
        };
        let text = told(&plain);
        assert!(text.starts_with("StatefulSet shop/web: can be moved; it stands still"), "{text}");
        assert!(text.ends_with("\n  warning: mind\n"), "{text}");
        let message = "pod web-0: hostNetwork".to_owned();
        let refusal = Some(CheckRefusal { reason: Reason::HostNetwork, message });
        let check = Check { refusal, ..Check::default() };
        let refused = ManifestCheck { namespace: None, check, meanwhile: None, ..plain };
        assert_eq!(
            told(&refused),
            "StatefulSet web\n  cannot be moved: HostNetwork: pod web-0: hostNetwork\n"
        );
    }

    #[test]
    fn what_cannot_be_read_or_holds_nothing_is_named() {
        let missing = check_manifests(&["/nowhere/at-all.yaml".into()], false).unwrap_err();
        assert!(missing.to_string().starts_with("/nowhere/at-all.yaml: "), "{missing}");
        let empty = tempfile::NamedTempFile::new().unwrap();
        let error = check_manifests(&[empty.path().to_owned()], false).unwrap_err();
        assert!(matches!(error, CheckManifestError::Nothing(_)), "{error}");
    }
}
