//! What the log of a CRIU that failed says: the line that is the cause, and whether it stands against a move for good.
//! Pure.

use super::judge::{IO_URING_REMEDY, MPTCP_REMEDY};
use crate::api::{Objection, Reason, sentence};

/// Lines that CRIU writes because of another error, or whatever happens.
const CONSEQUENCES: [&str; 14] = [
    // Whatever happens, where a node lacks CAP_SYS_RESOURCE.
    "Can't setup RLIMIT_NOFILE for self",
    "Dumping FAILED",
    "Restoring FAILED",
    "Pre-dumping FAILED",
    "Dump files (pid",
    "failed with -1",
    "exited, status=",
    "killed by signal",
    "Can't retrieve FDs from socket",
    "Message reply from daemon is trimmed",
    "Can't make utsns id",
    "Can't make userns id",
    "Can't make ipcns id",
    "For Go programs",
];

struct Known {
    /// In a line of the log.
    says: &'static str,
    reason: Reason,
    /// What follows the line in the sentence.
    remedy: &'static str,
    passes: bool,
}

const fn lasting(says: &'static str, reason: Reason, remedy: &'static str) -> Known {
    Known { says, reason, remedy, passes: false }
}

const fn passing(says: &'static str, reason: Reason, remedy: &'static str) -> Known {
    Known { says, reason, remedy, passes: true }
}

const OTHER_SOCKET: &str = "let the program use TCP, UDP or a unix socket";
const END_SESSIONS: &str = "end kubectl attach sessions, set tty: false";
const NOT_ENTERED: &str = "CRIU cannot enter this program";

/// In this order: the first that is found in any line counts.
const KNOWN: [Known; 25] = [
    lasting("Unsupported proto 262", Reason::MptcpSocket, MPTCP_REMEDY),
    lasting("[io_uring]", Reason::IoUring, IO_URING_REMEDY),
    // Only rings cannot be handed over by a socket.
    lasting("send_fds failed (-22)", Reason::IoUring, IO_URING_REMEDY),
    lasting("Unsupported proto", Reason::UnsupportedSocket, OTHER_SOCKET),
    lasting("Unsupported socket family", Reason::UnsupportedSocket, OTHER_SOCKET),
    lasting("Unknown socket collected", Reason::UnsupportedSocket, OTHER_SOCKET),
    lasting("Only stream, dgram", Reason::UnsupportedSocket, OTHER_SOCKET),
    // May be a session's: `kubectl exec -- psql`.
    passing(
        "External socket is used",
        Reason::UnsupportedSocket,
        "its peer is outside the container: let the program close that connection",
    ),
    lasting(
        "Can't dump that handle",
        Reason::UnsupportedDescriptor,
        "a file of the image is watched (inotify): watch a mounted volume, or poll",
    ),
    lasting("[userfaultfd]", Reason::UnsupportedDescriptor, "switch off what uses it"),
    lasting("Unknown shit", Reason::UnsupportedDescriptor, "switch off what maps it"),
    lasting("of that type", Reason::UnsupportedDescriptor, "let the program close it"),
    lasting("Can't lookup mount=", Reason::UnsupportedDescriptor, "let the program close that file"),
    lasting("Net namespace is required to dump tun", Reason::Devices, "let the program close /dev/net/tun"),
    lasting("ghost file", Reason::UnsupportedDescriptor, "a deleted file is open: let the program close it"),
    lasting("Can't dump nested", Reason::UnsupportedProcess, "switch off the program's own sandbox"),
    passing("Unseizable non-zombie", Reason::UnsupportedProcess, "end the debugger that traces it"),
    passing("is already traced by", Reason::UnsupportedProcess, "end the debugger that traces it"),
    passing("external tty", Reason::Terminal, END_SESSIONS),
    passing("dangling tty", Reason::Terminal, END_SESSIONS),
    passing("without correspond master peer", Reason::Terminal, END_SESSIONS),
    lasting("POKEDATA failed", Reason::CannotBeDumped, NOT_ENTERED),
    lasting("Can't inject syscall blob", Reason::CannotBeDumped, NOT_ENTERED),
    lasting("Can't get rlimit", Reason::CannotBeDumped, "CRIU needs CAP_SYS_RESOURCE on this node"),
    lasting("unsupported mapping", Reason::CannotBeDumped, "switch off what maps it"),
];

/// What stands against a dump by CRIU's own words; nothing where it is not known whether that lasts.
pub fn objection(log: &str) -> Option<Objection> {
    let errors: Vec<&str> = errors(log).collect();
    KNOWN.iter().find_map(|known| {
        let line = errors.iter().find(|line| line.contains(known.says))?;
        let message = sentence(&format!("CRIU: {}: {}", plain(line), known.remedy));
        Some(Objection { reason: known.reason, message, passes: known.passes })
    })
}

/// The line that says why: the first error that is not the consequence of another; without any, the last line.
pub fn cause(log: &str) -> String {
    let all: Vec<&str> = errors(log).collect();
    let first = all.iter().find(|line| !CONSEQUENCES.iter().any(|known| line.contains(known)));
    let line =
        first.or(all.last()).copied().or_else(|| log.lines().rev().find(|line| !line.trim().is_empty()));
    line.map_or_else(|| "its log is empty".to_owned(), plain)
}

fn errors(log: &str) -> impl Iterator<Item = &str> {
    log.lines().map(str::trim).filter(|line| line.contains("Error"))
}

/// Without time, PID and place in the source: `(00.012345)  27: Error (criu/sk-inet.c:196): inet: Unsupported proto 262`.
fn plain(line: &str) -> String {
    let line = line.trim();
    let line =
        line.split_once("): ").filter(|(head, _)| head.contains("Error (")).map_or(line, |(_, said)| said);
    let line = match line.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((time, said)) if time.bytes().all(|b| b.is_ascii_digit() || b == b'.') => said.trim(),
        _ => line,
    };
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of CRIU 4.2.1, where the node lacks CAP_SYS_RESOURCE.
    const MPTCP: &str = "(00.003412) Warn  (criu/kerndat.c:1242): Can't keep kdat cache on non-tempfs\n\
        (00.058447) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n\
        (00.071533) 27 fdinfo 3: pos: 0 flags: 2004002/0x1\n\
        (00.072036) Error (criu/sk-inet.c:137): inet: Unsupported proto 262 for socket 2cd47\n\
        (00.072040) Error (criu/sk-inet.c:139): inet: For Go programs, consider using \"GODEBUG=multipathtcp=0\"\n\
        (00.072065) Error (criu/cr-dump.c:1545): Dump files (pid: 616) failed with -1\n\
        (00.079011) Error (criu/cr-dump.c:1975): Dumping FAILED.\n";

    #[test]
    fn the_cause_is_the_first_error_that_is_no_consequence() {
        assert_eq!(cause(MPTCP), "inet: Unsupported proto 262 for socket 2cd47");
        assert_eq!(cause("(00.1) Error (criu/cr-dump.c:1): Dumping FAILED.\n"), "Dumping FAILED.");
        assert_eq!(cause("(00.1) bye\n\n"), "bye");
        assert_eq!(cause("\n"), "its log is empty");
        let restore = "(00.2)      7: Error (criu/files-reg.c:2251): Can't open file dev/shm/PostgreSQL.1: No such file\n\
            (00.3) Error (criu/cr-restore.c:1480): 7 exited, status=1\n(00.3) Error (criu/cr-restore.c:2331): Restoring FAILED.\n";
        assert_eq!(cause(restore), "Can't open file dev/shm/PostgreSQL.1: No such file");
    }

    /// Lines that CRIU 4.2.1 wrote, tried with real programs on kernel 6.18.
    #[test]
    fn what_criu_will_never_dump_is_terminal_with_its_words_and_what_helps() {
        use Reason::{
            CannotBeDumped, Devices, IoUring, MptcpSocket, Terminal, UnsupportedDescriptor,
            UnsupportedProcess, UnsupportedSocket,
        };
        for (line, reason, passes) in [
            ("Error (criu/sk-inet.c:137): inet: Unsupported proto 262 for socket 2cd47", MptcpSocket, false),
            ("Error (criu/sk-inet.c:137): inet: Unsupported proto 1 for socket 9", UnsupportedSocket, false),
            (
                "Error (criu/sockets.c:767): sockets: BUG! Unknown socket collected (family 40)",
                UnsupportedSocket,
                false,
            ),
            ("Error (criu/proc_parse.c:477): Unknown shit 600 (anon_inode:[io_uring])", IoUring, false),
            ("pie: 1499: Error (criu/pie/parasite.c:588): send_fds failed (-22)", IoUring, false),
            (
                "Error (criu/files-ext.c:94): Can't dump file 3 of that type [600] (anon anon_inode:[userfaultfd])",
                UnsupportedDescriptor,
                false,
            ),
            (
                "Error (criu/files-ext.c:94): Can't dump file 3 of that type [600] (anon anon_inode:[perf_event])",
                UnsupportedDescriptor,
                false,
            ),
            (
                "Error (criu/files-ext.c:94): Can't dump file 3 of that type [20600] (chr 10:229)",
                UnsupportedDescriptor,
                false,
            ),
            (
                "Error (criu/files-reg.c:1790): Can't lookup mount=85 for fd=1 path=/b/out",
                UnsupportedDescriptor,
                false,
            ),
            ("Error (criu/tun.c:306): tun: Net namespace is required to dump tun link", Devices, false),
            ("Error (criu/fsnotify.c:284): fsnotify: \tCan't dump that handle", UnsupportedDescriptor, false),
            (
                "Error (criu/namespaces.c:460): Can't dump nested user namespace for 1100",
                UnsupportedProcess,
                false,
            ),
            (
                "Error (compel/src/lib/infect.c:262): Unseizable non-zombie 1696 found, state S, err -1/10",
                UnsupportedProcess,
                true,
            ),
            (
                "Error (criu/tty.c:410): tty: Found slave peer index 0 without correspond master peer",
                Terminal,
                true,
            ),
            (
                "Error (criu/sk-unix.c:874): unix: External socket is used. Consider using --ext-unix-sk option.",
                UnsupportedSocket,
                true,
            ),
            (
                "Error (compel/src/lib/infect.c:590): compel: POKEDATA failed: Input/output error",
                CannotBeDumped,
                false,
            ),
            (
                "Error (criu/cr-dump.c:100): Can't get rlimit 0: Operation not permitted",
                CannotBeDumped,
                false,
            ),
        ] {
            let log = format!("(00.0123) {line}\n(00.0200) Error (criu/cr-dump.c:1975): Dumping FAILED.\n");
            let found = objection(&log).unwrap_or_else(|| panic!("{line}"));
            assert_eq!((found.reason, found.passes), (reason, passes), "{line}");
            assert!(found.message.chars().count() <= 200, "{}", found.message);
            assert!(
                found.message.starts_with("CRIU: ") && !found.message.contains("Error ("),
                "{}",
                found.message
            );
        }
        let found = objection(MPTCP).unwrap().message;
        assert!(
            found.starts_with("CRIU: inet: Unsupported proto 262 for socket 2cd47: set GODEBUG"),
            "{found}"
        );
    }

    #[test]
    fn what_may_be_a_passing_trouble_is_no_objection() {
        assert_eq!(
            objection("(00.1) Error (criu/util.c:641): Can't read link of fd 3: No such file\n"),
            None
        );
        assert_eq!(objection("(00.1) Warn  (x.c:1): Unsupported proto 262\n"), None);
        assert_eq!(objection(""), None);
    }
}
