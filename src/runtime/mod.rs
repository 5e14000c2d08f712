//! What `shadow-runc` does: everything passes through to runc, but a container with a ticket is restored, and what starts
//! afresh in a marked pod is prepared for being moved later.
//!
//! Guarantees: a container without a ticket costs two reads of its `config.json` and never fails because of us; a
//! shadow is never started fresh; `create` answers within [`claim::PATIENCE`] plus the restore itself. No async, no
//! network: only the node's files, runc and the agent's unix socket.

mod bundle;
mod carried;
mod claim;
mod cmdline;
mod completed;
mod criu;
mod hosts;
mod images;
mod layer;
mod outcome;
mod post_start;
mod prepare;
mod programs;
mod restore;
mod runc;
mod sandbox;
mod seccomp;
mod sparse;
mod stand_in;
mod verify;

use std::ffi::OsString;
use std::process::ExitCode;

pub use criu::CRIU_CONFIG_VARIABLE;
pub use layer::{LayerError, OPAQUE, TreeKind, WHITEOUT_PREFIX, apply as apply_tree};
pub use sparse::{EXTENTS_CAP, SPARSE_MAJOR, SPARSE_MINOR, SPARSE_SIZE};

use crate::api::{ABILITY_CGROUP_NAMESPACE, InitRun, RUNTIME_ABILITIES, RestoreFault};
use bundle::Bundle;
use carried::CarriedError;
use claim::Claimed;
use cmdline::{CommandLine, Create, Verb};
use verify::node::Restored;
use verify::{Excess, Spec};

/// Why a container with a ticket could not be created. The kubelet shows it.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("{0}: the ticket of this container cannot be used")]
    Ticket(String),
    #[error("{0}: refused by this node's SHADOW agent")]
    Refused(String),
    #[error("no answer from this node's SHADOW agent: {0}; is its pod running on this node?")]
    Agent(String),
    #[error("files of the source could not be put in place: {0}")]
    Layer(#[from] LayerError),
    #[error("what the source carries could not be put in place: {0}")]
    Carried(#[from] CarriedError),
    #[error("{0}: not restored")]
    Restore(String),
    #[error("restored, but not on record with this node's SHADOW agent, so killed again: {0}")]
    Unrecorded(String),
    #[error("{0}: killed before its first instruction")]
    Excess(#[from] Excess),
    #[error("what was restored cannot be held against its spec: {0}: killed before its first instruction")]
    Unverified(String),
}

impl CreateError {
    /// The same for the agent.
    fn fault(&self) -> RestoreFault {
        match self {
            Self::Excess(_) => RestoreFault::MoreThanSpec,
            Self::Layer(error) | Self::Carried(CarriedError::Layer(error)) if error.is_of_the_layer() => {
                RestoreFault::ArchiveDamaged
            }
            Self::Carried(CarriedError::Image { .. }) => RestoreFault::ArchiveDamaged,
            Self::Unrecorded(_) | Self::Refused(_) | Self::Agent(_) => RestoreFault::BrokenOff,
            Self::Ticket(_) | Self::Layer(_) | Self::Carried(_) | Self::Restore(_) | Self::Unverified(_) => {
                RestoreFault::Criu
            }
        }
    }
}

/// Entry of the OCI runtime.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if stand_in::is_meant() {
        return stand_in::main(&args);
    }
    if args.first().is_some_and(|first| first == runc::TIED) {
        return runc::exec_tied(&args[1..]);
    }
    if args.first().is_some_and(|first| first == post_start::NOTHING) {
        return ExitCode::SUCCESS;
    }
    if args.first().is_some_and(|first| first == RUNTIME_ABILITIES) {
        println!("{ABILITY_CGROUP_NAMESPACE}");
        return ExitCode::SUCCESS;
    }
    let line = CommandLine::parse(&args);
    match &line.verb {
        Verb::Start { id } if outcome::is_restored(&line, id) => ExitCode::SUCCESS,
        Verb::Create(create) => match ticketed(create) {
            // What sets up the sandbox's network is needed before anything can be restored in it.
            Some(bundle) if bundle.init_run() != Some(InitRun::Run) => created(&line, create, &bundle, &args),
            _ => fresh(&line, create, &args),
        },
        Verb::Exec(exec) => post_start::answered(&line, exec).unwrap_or_else(|| runc::exec(&args)),
        _ => runc::exec(&args),
    }
}

/// The bundle, if its container shows a ticket.
fn ticketed(create: &Create) -> Option<Bundle> {
    Bundle::with_ticket(&create.bundle)
}

/// Sandboxes, and containers that start afresh. What is restored has its seccomp filter from its source.
fn fresh(line: &CommandLine, create: &Create, args: &[OsString]) -> ExitCode {
    prepare::prepare(line, &create.bundle);
    runc::exec(args)
}

fn created(line: &CommandLine, create: &Create, bundle: &Bundle, args: &[OsString]) -> ExitCode {
    match redeem(line, create, bundle) {
        Ok(Redeemed::Restored) => {
            if let Err(why) = post_start::expect(line, &create.id, bundle) {
                runc::report_warning(line, &format!("its postStart hook will run again: {why}"));
            }
            ExitCode::SUCCESS
        }
        Ok(Redeemed::Fresh) => fresh(line, create, args),
        Ok(Redeemed::Completed) => runc::exec(args),
        Err(error) => {
            runc::report_error(line, &error.to_string());
            ExitCode::FAILURE
        }
    }
}

enum Redeemed {
    Restored,
    Fresh,
    /// Its bundle is one of a container that ends at once.
    Completed,
}

fn redeem(line: &CommandLine, create: &Create, bundle: &Bundle) -> Result<Redeemed, CreateError> {
    let request = bundle.claim(&create.id)?;
    let mut agent = match claim::claim(&request)? {
        Claimed::Restore(agent) => agent,
        Claimed::Fill(agent) => return filled(bundle, agent).map(|()| Redeemed::Fresh),
        Claimed::Fresh => return Ok(Redeemed::Fresh),
        Claimed::Complete => {
            return match completed::complete(&create.bundle) {
                Ok(()) => Ok(Redeemed::Completed),
                Err(error) => Err(CreateError::Ticket(format!("init container not completed: {error}"))),
            };
        }
        Claimed::Recorded => {
            return Err(CreateError::Refused("a container of this ID was restored before".to_owned()));
        }
    };
    let restored = restore::restore(line, create, bundle, &mut agent);
    match restored.and_then(|()| held_against_spec(line, create, bundle)) {
        Ok(()) => {}
        Err(error) => {
            agent.failed(error.fault(), &error.to_string());
            runc::delete(line, &create.id);
            return Err(error);
        }
    }
    // Only what the agent has on record may live: else a second restore of the ticket would run beside it.
    let recorded = outcome::mark_restored(line, &create.id).and_then(|()| agent.restored(&request));
    if let Err(reason) = recorded {
        runc::delete(line, &create.id);
        return Err(CreateError::Unrecorded(reason));
    }
    Ok(Redeemed::Restored)
}

/// What starts anew beside others that are restored finds their volumes.
fn filled(bundle: &Bundle, mut agent: claim::Connection) -> Result<(), CreateError> {
    let put = carried::put_pod_in_place(bundle, agent.pod()).map_err(CreateError::from);
    let put = put.and_then(|shm| agent.filled(shm).map_err(CreateError::Refused));
    put.inspect_err(|error| agent.failed(error.fault(), &error.to_string()))
}

/// Restored processes stand still until here: those that are more than their spec die without an instruction.
fn held_against_spec(line: &CommandLine, create: &Create, bundle: &Bundle) -> Result<(), CreateError> {
    let unverified = |error: String| CreateError::Unverified(error);
    let restored = Restored::on_record(&line.root, &create.id).map_err(|e| unverified(e.to_string()))?;
    let verified = bundle
        .config_text()
        .and_then(|text| Spec::parse(&text).map_err(std::io::Error::from))
        .map_err(|error| unverified(format!("config.json: {error}")))
        .and_then(|spec| {
            let found =
                restored.look(&create.bundle, &spec).map_err(|error| unverified(error.to_string()))?;
            Ok(verify::verify(&spec, &found)?)
        });
    if verified.is_err() {
        restored.kill();
    }
    verified
}
