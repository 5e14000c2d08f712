//! The images are changed on the way: what would be restored is more than its pod's spec allows. CRIU does as the images say;
//! `shadow-runc` looks before the first instruction, which would be a connection to the broker.

use std::time::Duration;

use futures::future::{join_all, try_join_all};
use serde_json::{Value, json};
use shadow::api::{Phase, Reason};

use super::trouble::{beside, blocking_app};
use crate::lab::{
    App, Drain, DrainOptions, Lab, Result, Snapshot, fail, nothing_left, on_cluster, status_of,
};

/// What is changed in one pod's images, by whose user they are known, and what is said of it.
struct Change {
    name: &'static str,
    user: u8,
    /// A substitution of Perl's. The fields are those of CRIU's `creds_entry` and `thread_core_entry`, a byte each.
    substitution: &'static str,
    told: &'static str,
}

const CHANGES: [Change; 3] = [
    // Permitted, effective and bounding get the first capability.
    Change {
        name: "capabilities",
        user: 97,
        substitution: r"s/\x40\x61\x48\x00\x48\x00\x50\x00\x50\x00\x58\x00\x58\x00\x60\x00/\x40\x61\x48\x00\x48\x00\x50\x01\x50\x00\x58\x01\x58\x00\x60\x01/sg",
        told: "capabilities beyond its spec: CAP_CHOWN",
    },
    // Real, effective, saved, of files.
    Change {
        name: "user",
        user: 98,
        substitution: r"s/\x08\x62\x10\x62\x18\x62\x20\x62\x28\x62\x30\x62\x38\x62/\x08\x00\x10\x62\x18\x00\x20\x62\x28\x00\x30\x62\x38\x00/sg",
        told: "has uid 0, and its spec gives no way there",
    },
    // The mode that comes behind this user's credentials: none in place of a filter.
    Change {
        name: "seccomp",
        user: 99,
        substitution: r"s/(\x40\x63\x48\x00.{4,100}?\x58)\x02(?=\x60)/$1\x00/sg",
        told: "has no seccomp filter, and its spec has one",
    },
];

/// Once for each file of an archive that arrives: the digest is of what was sent, and is found right. In place, as a length
/// that differs would be noticed. Pages come after the rest, so that these files are whole by then.
fn script() -> String {
    let substitutions: Vec<&str> = CHANGES.iter().map(|change| change.substitution).collect();
    let program = r#"my $end = time + 25; my %seen; while (time < $end) {
        for my $file (glob "/var/lib/shadow/archives/*/images/core-*.img") {
            (my $pages = $file) =~ s{core-[^/]*$}{pages-1.img};
            next if $seen{$file} or not -e $pages;
            $seen{$file} = 1;
            open my $f, "+<:raw", $file or next;
            local $/; local $_ = <$f>; my $before = $_;
            SUBSTITUTIONS;
            if ($_ ne $before) { seek $f, 0, 0; print $f $_ }
            close $f;
        }
        select undef, undef, undef, 0.002;
    }"#;
    format!("perl -e '{}'", program.replace("SUBSTITUTIONS", &substitutions.join("; ")))
}

#[test]
fn what_is_more_than_its_spec_dies_before_its_first_instruction_and_the_source_goes_on() -> Result {
    on_cluster("more-than-spec", async |lab| {
        for change in &CHANGES {
            lab.broker.declare_queue(change.name, &json!({ "durable": true })).await?;
        }
        // All on one node: a drain of the other would leave them nowhere to go.
        let [_, target] = &lab.cluster.nodes[..] else { return fail("not two nodes") };
        lab.cluster.kubectl(&["cordon", target]).await?;
        let apps = CHANGES.map(|change| restricted(&change));
        let pods = try_join_all(apps.iter().map(async |app| lab.deploy(app).await)).await?;
        let pods: Vec<Snapshot> = pods.into_iter().flatten().collect();
        lab.uncordon(target).await?;
        let queues = lab.broker.queues().await?;
        let attempt = async {
            let drained = CHANGES.iter().zip(&pods).map(|(change, pod)| is_refused(lab, change, pod));
            let wrong: Vec<String> = join_all(drained)
                .await
                .into_iter()
                .zip(&CHANGES)
                .filter_map(|(outcome, change)| Some(format!("{}: {}", change.name, outcome.err()?)))
                .collect();
            if wrong.is_empty() { Ok(()) } else { fail(wrong.join("\n")) }
        };
        beside(lab, target, &script(), attempt).await?;
        lab.uncordon(&pods[0].node).await?;
        nothing_left(lab, &queues).await
    })
}

/// As charts run them: a user of their own, no capabilities, the engine's seccomp profile.
fn restricted(change: &Change) -> App {
    let context: Value = json!({
        "runAsUser": change.user, "runAsGroup": change.user, "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" } });
    let mut app =
        blocking_app().queue(change.name).pod(json!({ "containers": [{ "securityContext": context }] }));
    change.name.clone_into(&mut app.name);
    app
}

/// The broker has heard of nobody, and the pod is as it was.
async fn is_refused(lab: &Lab, change: &Change, pod: &Snapshot) -> Result {
    let (cookie, connections) = (pod.state().await?.cookie, connections(lab, pod).await?);
    if connections == 0 {
        return fail("the broker's log does not tell of the pod's own connection");
    }
    let watch = lab.watch();
    let options = DrainOptions::of(change.name).timeout(Duration::from_secs(30));
    let drained = Drain::start(&lab.cluster, &pod.node, &options)?.finish().await?;
    let status = status_of(&watch.ended(&pod.uid, Duration::from_secs(60)).await?);
    if drained.code == 0 || status.phase != Phase::Failed {
        return fail(format!("it was moved: {status:#?}\n{}", drained.text()));
    }
    let told = format!("{status:?}");
    if !told.contains(Reason::RestoreFailed.as_str()) || !told.contains(change.told) {
        return fail(format!("{:?} is not told: {told}", change.told));
    }
    let now = self::connections(lab, pod).await?;
    if now != connections {
        return fail(format!("the broker has seen {now} connections of it, and {connections} before"));
    }
    let after = lab.pod(&pod.name).await?;
    if after != *pod || after.state().await?.cookie != cookie {
        return fail(format!("it is not as it was: {pod:?}, now {after:?}"));
    }
    Ok(())
}

/// How often the broker has let somebody in who called himself by this pod's name, as whatever is restored of it would.
async fn connections(lab: &Lab, pod: &Snapshot) -> Result<usize> {
    let log = lab.cluster.broker_log().await?;
    Ok(log.lines().filter(|line| line.contains("client-provided name") && line.contains(&pod.name)).count())
}
