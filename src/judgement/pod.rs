//! Findings of all containers of a pod in, what stands against a move of the whole out. Pure.

use super::{Circumstances, Judgement, judge};
use crate::api::{Findings, FoundIpc, Objection, Reason, sentence};

/// As [`judge`], of each container that moves, by its name; where there are several each sentence says whose it is.
/// `has_fresh`: others of its containers are started anew.
pub fn judge_pod(found: &[(String, Findings)], has_fresh: bool, circumstances: &Circumstances) -> Judgement {
    let [first, others @ ..] = found else { return judge(&Findings::default(), circumstances) };
    if others.is_empty() {
        let mut told = judge(&first.1, circumstances);
        told.refusals.extend(shared(found).filter(|_| has_fresh));
        return told;
    }
    let mut told = judge(&Findings::default(), circumstances);
    for (name, findings) in found {
        let of = |message: &str| sentence(&format!("container `{name}`: {message}"));
        let Judgement { refusals, warnings } = judge(findings, &Circumstances::default());
        told.refusals.extend(refusals.into_iter().map(|one| Objection { message: of(&one.message), ..one }));
        told.warnings.extend(warnings.iter().map(|one| of(one)));
    }
    told.refusals.extend(shared(found));
    told.refusals.sort_by_key(|one| one.passes);
    told
}

/// Each container's images have all System V objects of the pod, and each restore would make them.
fn shared(found: &[(String, Findings)]) -> Option<Objection> {
    let FoundIpc { segments, semaphores, queues, .. } =
        found.iter().map(|(_, findings)| findings.ipc).find(|ipc| *ipc != FoundIpc::default())?;
    let message = format!(
        "System V objects ({segments} segments, {semaphores} sets of semaphores, {queues} queues) are of all its containers, \
         and cannot be carried for several: use POSIX ones (/dev/shm)"
    );
    Some(Objection { reason: Reason::SharedIpc, message, passes: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{FoundMount, MountKind};

    fn mounted() -> Findings {
        let mount = FoundMount {
            kind: MountKind::MadeWithin,
            destination: "/x".into(),
            fs_type: "tmpfs".into(),
            content: None,
        };
        Findings { mounts: vec![mount], ..Findings::default() }
    }

    fn judged(found: &[(&str, Findings)]) -> Judgement {
        let found: Vec<_> = found.iter().map(|(name, found)| ((*name).to_owned(), found.clone())).collect();
        judge_pod(&found, false, &Circumstances { has_bound_token: true, ..Circumstances::default() })
    }

    #[test]
    fn of_several_containers_it_is_said_which_and_what_is_of_the_pod_is_said_once() {
        let alone = judged(&[("app", mounted())]);
        assert!(alone.refusals[0].message.starts_with("tmpfs is mounted on /x"), "{alone:?}");
        let both = judged(&[("app", Findings::default()), ("log", mounted())]);
        assert!(both.refusals[0].message.starts_with("container `log`: tmpfs is mounted on /x"), "{both:?}");
        assert_eq!((both.refusals.len(), both.warnings.len()), (1, 1));
        assert_eq!(judged(&[]).refusals, []);
    }

    #[test]
    fn system_v_objects_belong_to_one_container_only() {
        let with = Findings { ipc: FoundIpc { semaphores: 2, ..FoundIpc::default() }, ..Findings::default() };
        assert_eq!(judged(&[("app", with.clone())]).refusals, []);
        let beside_fresh = judge_pod(&[("app".to_owned(), with.clone())], true, &Circumstances::default());
        assert_eq!(beside_fresh.refusals.len(), 1, "their objects are not told apart");
        let both = judged(&[("app", with.clone()), ("log", with)]);
        assert_eq!(both.refusals.iter().map(|one| one.reason).collect::<Vec<_>>(), [Reason::SharedIpc]);
        assert!(both.refusals[0].message.chars().count() <= 200, "{both:?}");
    }
}
