//! The conversation with this node's agent over its unix socket: claim, wait, say how it ended.
//!
//! Guarantees: ends within [`PATIENCE`] (the report after that within [`REPORT_PATIENCE`]), whatever the agent does;
//! survives a restart of the agent at any point.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::CreateError;
use crate::api::{AGENT_SOCKET, ClaimAnswer, ClaimRequest, PodPart, RestoreFault, RestoreOutcome};

/// Less than the kubelet's runtime request timeout of 2 minutes, so that it sees our reason and not its own.
pub const PATIENCE: Duration = Duration::from_secs(100);
/// For telling the agent how it ended.
pub const REPORT_PATIENCE: Duration = Duration::from_secs(10);
/// For a restore, also where the agent is gone: as long as the agent waits for one.
const RESTORE_PATIENCE: Duration = Duration::from_secs(600);
/// Between attempts to reach an agent that is restarting.
const RETRY: Duration = Duration::from_millis(50);
/// No answer is longer.
const LONGEST_LINE: u64 = 64 * 1024;

/// What the claim came to.
pub enum Claimed {
    Restore(Connection),
    /// It starts afresh, once what is of its pod is in place.
    Fill(Connection),
    Fresh,
    /// It is to end at once.
    Complete,
    /// What this `create` has restored is on record.
    Recorded,
}

/// An agent that has handed out an archive and waits for the outcome.
pub struct Connection {
    stream: BufReader<UnixStream>,
    socket: PathBuf,
    archive: PathBuf,
    pod: PodPart,
}

/// Claims the ticket and waits for it to open.
pub fn claim(request: &ClaimRequest) -> Result<Claimed, CreateError> {
    claim_at(Path::new(AGENT_SOCKET), request, PATIENCE)
}

fn claim_at(socket: &Path, request: &ClaimRequest, patience: Duration) -> Result<Claimed, CreateError> {
    let deadline = Instant::now() + patience;
    loop {
        let failure = match ask(socket, request, deadline) {
            Ok((stream, ClaimAnswer::Restore { archive, pod })) => {
                // An agent of before knew of one container only, whose archive is its pod's.
                let alone = || PodPart {
                    archive: archive.clone(),
                    back: Vec::new(),
                    filled: false,
                    shm_filled: false,
                };
                let pod = pod.unwrap_or_else(alone);
                let (socket, archive) = (socket.to_owned(), archive.into());
                return Ok(Claimed::Restore(Connection { stream, socket, archive, pod }));
            }
            Ok((stream, ClaimAnswer::Fill { pod })) => {
                let (socket, archive) = (socket.to_owned(), PathBuf::from(&pod.archive));
                return Ok(Claimed::Fill(Connection { stream, socket, archive, pod }));
            }
            Ok((_, ClaimAnswer::Fresh { .. })) => return Ok(Claimed::Fresh),
            Ok((_, ClaimAnswer::Complete)) => return Ok(Claimed::Complete),
            Ok((_, ClaimAnswer::Recorded)) => return Ok(Claimed::Recorded),
            Ok((_, ClaimAnswer::Refuse { reason })) => return Err(CreateError::Refused(reason)),
            Err(error) => error,
        };
        if Instant::now() + RETRY >= deadline {
            return Err(CreateError::Agent(format!("{}: {failure}", socket.display())));
        }
        thread::sleep(RETRY);
    }
}

fn ask(
    socket: &Path,
    request: &ClaimRequest,
    deadline: Instant,
) -> std::io::Result<(BufReader<UnixStream>, ClaimAnswer)> {
    let mut stream = BufReader::new(UnixStream::connect(socket)?);
    send(stream.get_mut(), request)?;
    let answer = serde_json::from_str(&receive(&mut stream, deadline)?)?;
    Ok((stream, answer))
}

fn send(stream: &mut UnixStream, message: &impl serde::Serialize) -> std::io::Result<()> {
    stream.set_write_timeout(Some(REPORT_PATIENCE))?;
    stream.write_all(format!("{}\n", serde_json::to_string(message)?).as_bytes())
}

/// One line, without its end.
fn receive(stream: &mut BufReader<UnixStream>, deadline: Instant) -> std::io::Result<String> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.get_ref().set_read_timeout(Some(left))?;
    let mut line = String::new();
    stream.take(LONGEST_LINE).read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None => Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the agent broke off")),
    }
}

impl Connection {
    /// Where the container's part of the archive lies.
    pub fn archive(&self) -> &Path {
        &self.archive
    }

    /// What of the archive is of the pod.
    pub fn pod(&self) -> &PodPart {
        &self.pod
    }

    /// Says that what is of the pod is in place.
    pub fn filled(&mut self, shm: bool) -> Result<(), String> {
        match self.report(&RestoreOutcome::Filled { shm }, Instant::now() + REPORT_PATIENCE) {
            Ok(None) => Ok(()),
            Ok(Some(refusal)) => Err(refusal),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Waits for whoever restores, who is killed where the agent wants no restore any more or it takes too long: then gives
    /// the reason. An agent that is gone says nothing.
    pub fn supervise(&mut self, child: &mut Child) -> std::io::Result<Result<ExitStatus, String>> {
        self.supervise_until(child, Instant::now() + RESTORE_PATIENCE)
    }

    fn supervise_until(
        &mut self,
        child: &mut Child,
        deadline: Instant,
    ) -> std::io::Result<Result<ExitStatus, String>> {
        let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        let mut heeded = true;
        loop {
            let stream = self.stream.get_ref();
            let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
            if heeded {
                fds.push(PollFd::new(stream, PollFlags::IN));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(std::io::Error::other)?;
            let heard = match poll(&mut fds, Some(&left)) {
                Err(Errno::INTR) => continue,
                polled => polled? > 0,
            };
            if !fds[0].revents().is_empty() {
                return Ok(Ok(child.wait()?));
            }
            let reason = if heard {
                receive(&mut self.stream, Instant::now() + REPORT_PATIENCE).ok()
            } else {
                Some("it took too long".to_owned())
            };
            if let Some(reason) = reason {
                child.kill()?;
                child.wait()?;
                return Ok(Err(reason));
            }
            heeded = false;
        }
    }

    /// Tells why nothing lives. Best effort: an agent that does not hear it sees the connection end.
    pub fn failed(&mut self, fault: RestoreFault, reason: &str) {
        let outcome = RestoreOutcome::Failed { reason: reason.to_owned(), fault };
        let _ = self.report(&outcome, Instant::now() + REPORT_PATIENCE);
    }

    /// Has the restore put on record; an agent that was restarted meanwhile is asked for the ticket once more.
    pub fn restored(&mut self, request: &ClaimRequest) -> Result<(), String> {
        let deadline = Instant::now() + REPORT_PATIENCE;
        loop {
            let failure = match self.report(&RestoreOutcome::Restored, deadline) {
                Ok(None) => return Ok(()),
                Ok(Some(refusal)) => return Err(refusal),
                Err(error) => error,
            };
            thread::sleep(RETRY);
            let left = deadline.saturating_duration_since(Instant::now());
            if left <= RETRY {
                return Err(failure.to_string());
            }
            match claim_at(&self.socket, request, left) {
                Ok(Claimed::Restore(connection)) => self.stream = connection.stream,
                // It was put on record, and only the answer got lost.
                Ok(Claimed::Recorded) => return Ok(()),
                Ok(Claimed::Fresh | Claimed::Fill(_) | Claimed::Complete) => {
                    return Err(format!("{failure}, and the ticket is spent"));
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Gives why it is not put on record, if the agent says so.
    fn report(&mut self, outcome: &RestoreOutcome, deadline: Instant) -> std::io::Result<Option<String>> {
        send(self.stream.get_mut(), outcome)?;
        receive(&mut self.stream, deadline).map(|refusal| Some(refusal).filter(|refusal| !refusal.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn request() -> ClaimRequest {
        ClaimRequest {
            ticket: "0b5c.1.shadow".parse().unwrap(),
            pod: "u".into(),
            container: "app".into(),
            container_id: "c".into(),
            pod_ip: None,
            init: false,
            fresh: false,
            at_once: false,
        }
    }

    fn accept(listener: &UnixListener) -> BufReader<UnixStream> {
        BufReader::new(listener.accept().unwrap().0)
    }

    fn line(stream: &mut BufReader<UnixStream>) -> String {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line
    }

    fn answer(stream: &mut BufReader<UnixStream>, text: &str) {
        stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    const RESTORE: &str = "{\"answer\":\"restore\",\"archive\":\"/a\"}\n";

    #[test]
    fn a_claim_and_its_outcome_survive_restarts_of_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let claimer = thread::spawn({
            let socket = socket.clone();
            move || match claim_at(&socket, &request(), Duration::from_secs(20)) {
                Ok(Claimed::Restore(mut agent)) => {
                    assert_eq!(agent.archive(), Path::new("/a"));
                    agent.restored(&request())
                }
                _ => Err("not restored".into()),
            }
        });
        let listener = UnixListener::bind(&socket).unwrap();
        assert!(line(&mut accept(&listener)).contains("0b5c.1.shadow")); // broken off before the answer
        let mut agent = accept(&listener);
        line(&mut agent);
        answer(&mut agent, RESTORE);
        line(&mut agent);
        drop(agent); // broken off before the outcome is on record
        let mut agent = accept(&listener);
        assert!(line(&mut agent).contains("0b5c.1.shadow"));
        answer(&mut agent, RESTORE);
        assert_eq!(line(&mut agent), "{\"outcome\":\"restored\"}\n");
        answer(&mut agent, "\n");
        assert_eq!(claimer.join().unwrap(), Ok(()));
    }

    #[test]
    fn a_record_whose_answer_got_lost_is_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let claimer = thread::spawn(move || match claim_at(&socket, &request(), Duration::from_secs(20)) {
            Ok(Claimed::Restore(mut agent)) => agent.restored(&request()),
            _ => Err("not restored".into()),
        });
        let mut agent = accept(&listener);
        line(&mut agent);
        answer(&mut agent, RESTORE);
        line(&mut agent);
        drop(agent); // on record, but the answer gets lost, and the ticket is closed meanwhile
        let mut agent = accept(&listener);
        line(&mut agent);
        answer(&mut agent, "{\"answer\":\"recorded\"}\n");
        assert_eq!(claimer.join().unwrap(), Ok(()));
    }

    #[test]
    fn a_refusal_is_final_and_shown() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let agent = thread::spawn(move || {
            let mut agent = accept(&listener);
            line(&mut agent);
            answer(&mut agent, "{\"answer\":\"refuse\",\"reason\":\"closed\"}\n");
        });
        let error = claim_at(&socket, &request(), Duration::from_secs(20)).err().unwrap();
        assert_eq!(error.to_string(), "closed: refused by this node's SHADOW agent");
        agent.join().unwrap();
    }

    fn restoring(dir: &Path) -> (Connection, BufReader<UnixStream>) {
        let (ours, agents) = UnixStream::pair().unwrap();
        let stream = BufReader::new(ours);
        let pod = PodPart {
            archive: dir.display().to_string(),
            back: Vec::new(),
            filled: false,
            shm_filled: false,
        };
        (Connection { stream, socket: dir.join("s"), archive: dir.to_owned(), pod }, BufReader::new(agents))
    }

    fn sleeps(seconds: &str) -> Child {
        std::process::Command::new("sleep").arg(seconds).spawn().unwrap()
    }

    #[test]
    fn a_restore_that_is_called_off_or_takes_too_long_is_killed_and_one_whose_agent_is_gone_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let (mut connection, mut agent) = restoring(dir.path());
        answer(&mut agent, "its ticket was spent meanwhile\n");
        let ended = connection.supervise(&mut sleeps("1000")).unwrap();
        assert_eq!(ended.unwrap_err(), "its ticket was spent meanwhile");

        let (mut connection, agent) = restoring(dir.path());
        drop(agent);
        let ended = connection.supervise(&mut sleeps("0.2")).unwrap();
        assert!(ended.unwrap().success());

        let (mut connection, _agent) = restoring(dir.path());
        let soon = Instant::now() + Duration::from_millis(50);
        let ended = connection.supervise_until(&mut sleeps("1000"), soon).unwrap();
        assert_eq!(ended.unwrap_err(), "it took too long");
    }

    #[test]
    fn a_missing_agent_is_an_error_with_its_socket() {
        let dir = tempfile::tempdir().unwrap();
        let error = claim_at(&dir.path().join("s"), &request(), Duration::from_millis(120)).err().unwrap();
        assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    }
}
