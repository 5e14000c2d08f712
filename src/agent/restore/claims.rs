//! The unix socket on which this node's `shadow-runc` claims tickets: one JSON line each way, then the outcome.
//!
//! Guarantees: root only; a claim ends within [`PATIENCE`]; whoever breaks off while restoring gives the ticket back.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::images::Images;
use super::ticket::{Verdict, without_restore};
use super::tickets::{CalledOff, NotRecorded, Tickets};
use crate::agent::metrics;
use crate::api::{ClaimAnswer, ClaimRequest, RestoreFault, RestoreOutcome, Role};
use crate::kit::Shutdown;

/// Less than `shadow-runc` waits, so that it hears the reason from us.
const PATIENCE: Duration = Duration::from_secs(95);
/// For the first line, and for writing one.
const LINE_PATIENCE: Duration = Duration::from_secs(5);
/// For restoring; a `shadow-runc` that dies is noticed at once.
const RESTORE_PATIENCE: Duration = Duration::from_secs(600);
/// No request is longer.
const LONGEST_LINE: u64 = 64 * 1024;
/// Claims at the same time; more wait in the socket's backlog.
const CLAIM_CAP: usize = 256;

/// Takes the socket over from an earlier agent.
pub fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = socket.parent() {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    match fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves claims until stopped.
pub async fn serve(listener: UnixListener, tickets: Arc<Tickets>, images: Images, shutdown: Shutdown) {
    let slots = Arc::new(Semaphore::new(CLAIM_CAP));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.ok(); // never closed
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a claim could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = shutdown.stopped() => return,
        };
        let (tickets, images) = (Arc::clone(&tickets), images.clone());
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &tickets, &images).await {
                tracing::warn!(%error, "a claim broke off");
            }
            drop(slot);
        });
    }
}

async fn converse(stream: UnixStream, tickets: &Tickets, images: &Images) -> io::Result<()> {
    if !stream.peer_cred()?.uid().eq(&rustix::process::geteuid().as_raw()) {
        return Err(io::Error::new(ErrorKind::PermissionDenied, "claims come from root only"));
    }
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let request: ClaimRequest = timeout(LINE_PATIENCE, receive(&mut read)).await??;
    let (ticket, pod) = (request.ticket.clone(), request.pod.clone());
    tracing::info!(%ticket, %pod, container = request.container, "claimed");
    let verdict = tokio::select! {
        verdict = tickets.claim(&request, Instant::now() + PATIENCE) => verdict.map_err(io::Error::other)?,
        () = hung_up(&mut read) => {
            tickets.left(&ticket).map_err(io::Error::other)?;
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "gone while it waited"));
        }
    };
    let verdict = match verdict {
        // A replacement too: its state lies ready or is on its way, so the kubelet tries again.
        Verdict::Wait => without_restore(Role::Shadow, format!("ticket {ticket} was not opened in time")),
        decided => decided,
    };
    match verdict {
        Verdict::Restore | Verdict::Fill | Verdict::Wait => {
            let container = request.container.as_str();
            let (folder, part) = tickets.handed_out(&ticket, container).map_err(io::Error::other)?;
            let archive = folder.to_string_lossy().into_owned();
            let (answer, another) = match verdict {
                Verdict::Fill => (ClaimAnswer::Fill { pod: part }, None),
                _ => (
                    ClaimAnswer::Restore { archive, pod: Some(part) },
                    images.another(&request, &folder).await,
                ),
            };
            if let Some(reason) = another {
                let fault = RestoreFault::AnotherImage;
                let failed = RestoreOutcome::Failed { reason: reason.clone(), fault };
                tickets.ended(&ticket, container, &failed).map_err(io::Error::other)?;
                metrics::claim_ended("failed");
                tracing::warn!(%ticket, %pod, container, reason, "not restored");
                return send(&mut write, &ClaimAnswer::Refuse { reason }).await;
            }
            let outcome =
                restore(&mut read, &mut write, &answer, tickets.called_off(&ticket, container)).await;
            let outcome = outcome.unwrap_or_else(|error| RestoreOutcome::Failed {
                reason: format!("shadow-runc broke off: {error}"),
                fault: RestoreFault::BrokenOff,
            });
            match tickets.ended(&ticket, container, &outcome) {
                Ok(()) => {}
                Err(NotRecorded::Spent) => {
                    metrics::claim_ended("spent");
                    tracing::warn!(%ticket, %pod, "restored, but its ticket was spent meanwhile");
                    return refuse(&mut write, &NotRecorded::Spent).await;
                }
                Err(NotRecorded::Store(error)) => {
                    // Whoever restored it asks again, and reports again.
                    let reason = format!("not put on record: {error}");
                    let failed = RestoreOutcome::Failed { reason, fault: RestoreFault::BrokenOff };
                    let _ = tickets.ended(&ticket, container, &failed);
                    return Err(io::Error::other(error));
                }
            }
            match &outcome {
                RestoreOutcome::Restored => {
                    metrics::claim_ended("restored");
                    tracing::info!(%ticket, %pod, container, "restored, and stands still");
                }
                RestoreOutcome::Filled { .. } => {
                    metrics::claim_ended("fresh");
                    tracing::info!(%ticket, %pod, container, "volumes filled, starts anew");
                }
                RestoreOutcome::Failed { reason, fault } => {
                    metrics::claim_ended("failed");
                    tracing::warn!(%ticket, %pod, container, reason, ?fault, "not restored");
                }
            }
            timeout(LINE_PATIENCE, write.write_all(b"\n")).await?
        }
        Verdict::Fresh(reason) => {
            metrics::claim_ended("fresh");
            tracing::info!(%ticket, %pod, reason, "starts fresh");
            send(&mut write, &ClaimAnswer::Fresh { reason }).await
        }
        Verdict::Complete => {
            metrics::claim_ended("completed");
            tracing::info!(%ticket, %pod, container = request.container, "init container completed without running");
            send(&mut write, &ClaimAnswer::Complete).await
        }
        Verdict::Recorded => {
            metrics::claim_ended("restored");
            tracing::info!(%ticket, %pod, "restored, and on record since before");
            send(&mut write, &ClaimAnswer::Recorded).await
        }
        Verdict::Refuse(reason) => {
            metrics::claim_ended("refused");
            tracing::warn!(%ticket, %pod, reason, "refused");
            send(&mut write, &ClaimAnswer::Refuse { reason }).await
        }
    }
}

/// How it ended; told to break off once it is called off, and then nothing that it has restored lives.
async fn restore(
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    answer: &ClaimAnswer,
    called_off: impl Future<Output = CalledOff>,
) -> io::Result<RestoreOutcome> {
    send(write, answer).await?;
    let mut outcome = std::pin::pin!(timeout(RESTORE_PATIENCE, receive(read)));
    let why = tokio::select! {
        outcome = &mut outcome => return outcome?,
        why = called_off => why,
    };
    refuse(write, &why).await?;
    let _: RestoreOutcome = outcome.await??;
    let fault = match why {
        CalledOff::Spent => RestoreFault::BrokenOff,
        CalledOff::Damaged(_) => RestoreFault::ArchiveDamaged,
    };
    Ok(RestoreOutcome::Failed { reason: why.to_string(), fault })
}

async fn refuse(write: &mut OwnedWriteHalf, why: &impl std::fmt::Display) -> io::Result<()> {
    timeout(LINE_PATIENCE, write.write_all(format!("{why}\n").as_bytes())).await?
}

/// Resolves when the other side is gone; it has nothing to say while it waits.
async fn hung_up(read: &mut (impl AsyncBufRead + Unpin)) {
    let _ = read.fill_buf().await;
}

async fn receive<T: DeserializeOwned>(read: &mut (impl AsyncBufRead + Unpin)) -> io::Result<T> {
    let mut line = String::new();
    read.take(LONGEST_LINE).read_line(&mut line).await?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(serde_json::from_str(line)?),
        None => Err(io::Error::new(ErrorKind::UnexpectedEof, "the line has no end")),
    }
}

async fn send(write: &mut OwnedWriteHalf, message: &impl Serialize) -> io::Result<()> {
    let line = format!("{}\n", serde_json::to_string(message)?);
    timeout(LINE_PATIENCE, write.write_all(line.as_bytes())).await?
}
