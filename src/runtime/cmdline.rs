//! runc's command line, as far as it concerns us. Pure.
//!
//! Guarantees: whatever is not certainly a `create`, `start` or detached `exec` that we understand is [`Verb::Other`] and passes through.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Options before the command that take a value.
const GLOBAL_VALUES: [&str; 5] = ["root", "log", "log-format", "criu", "rootless"];
/// Options of `create` that take a value.
const CREATE_VALUES: [&str; 6] =
    ["bundle", "b", "pid-file", "console-socket", "preserve-fds", "pidfd-socket"];
/// Options of `exec` that take a value.
const EXEC_VALUES: [&str; 18] = [
    "additional-gids",
    "apparmor",
    "cap",
    "c",
    "cgroup",
    "console-socket",
    "cwd",
    "env",
    "e",
    "g",
    "p",
    "pid-file",
    "pidfd-socket",
    "preserve-fds",
    "process",
    "process-label",
    "user",
    "u",
];
/// Where runc keeps its state if it is not told.
const DEFAULT_ROOT: &str = "/run/runc";

/// What runc was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// Everything before the command, to be repeated for commands of our own.
    pub globals: Vec<OsString>,
    pub root: PathBuf,
    pub log: Option<PathBuf>,
    pub log_json: bool,
    pub verb: Verb,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    Create(Create),
    Start { id: OsString },
    Exec(Exec),
    Other,
}

/// One without a terminal that is not waited for, of a process that a file describes: what container engines ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    pub id: OsString,
    pub process: PathBuf,
    pub pid_file: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    pub id: OsString,
    pub bundle: PathBuf,
    pub pid_file: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub no_pivot: bool,
}

impl CommandLine {
    /// Understands `args` (without the program's name).
    pub fn parse(args: &[OsString]) -> Self {
        let mut root = PathBuf::from(DEFAULT_ROOT);
        let (mut log, mut log_json) = (None, false);
        let mut options = Options::new(args, &GLOBAL_VALUES);
        for (name, value) in options.by_ref() {
            match (name.as_str(), value) {
                ("root", Some(value)) => root = value.into(),
                ("log", Some(value)) => log = Some(value.into()),
                ("log-format", Some(value)) => log_json = value == "json",
                _ => {}
            }
        }
        let (globals, rest) = args.split_at(options.at.min(args.len()));
        let verb = match rest.split_first() {
            Some((verb, rest)) if verb == "create" => create(rest),
            Some((verb, rest)) if verb == "start" => match rest {
                [id] if !is_option(id) => Verb::Start { id: id.clone() },
                _ => Verb::Other,
            },
            Some((verb, rest)) if verb == "exec" => exec(rest).map_or(Verb::Other, Verb::Exec),
            _ => Verb::Other,
        };
        Self { globals: globals.to_vec(), root, log, log_json, verb }
    }
}

fn create(args: &[OsString]) -> Verb {
    // runc takes the working directory for a bundle that is not named.
    let mut create = Create {
        id: OsString::new(),
        bundle: PathBuf::from("."),
        pid_file: None,
        console_socket: None,
        no_pivot: false,
    };
    let mut options = Options::new(args, &CREATE_VALUES);
    for (name, value) in options.by_ref() {
        match (name.as_str(), value) {
            ("bundle" | "b", Some(value)) => create.bundle = value.into(),
            ("pid-file", Some(value)) => create.pid_file = Some(value.into()),
            ("console-socket", Some(value)) => create.console_socket = Some(value.into()),
            ("no-pivot", value) => create.no_pivot = value.is_none_or(|v| v != "false"),
            _ => {}
        }
    }
    match &args[options.at.min(args.len())..] {
        [id] => Verb::Create(Create { id: id.clone(), ..create }),
        _ => Verb::Other,
    }
}

fn exec(args: &[OsString]) -> Option<Exec> {
    let (mut process, mut pid_file, mut detach) = (None, None, false);
    let mut options = Options::new(args, &EXEC_VALUES);
    for (name, value) in options.by_ref() {
        match (name.as_str(), value) {
            ("process" | "p", Some(value)) => process = Some(value.into()),
            ("pid-file", Some(value)) => pid_file = Some(value.into()),
            ("detach" | "d", value) => detach = value.is_none_or(|v| v != "false"),
            // Who asks for a terminal waits for it.
            ("console-socket" | "tty" | "t", _) => return None,
            _ => {}
        }
    }
    match &args[options.at.min(args.len())..] {
        [id] if detach => Some(Exec { id: id.clone(), process: process?, pid_file: pid_file? }),
        _ => None,
    }
}

fn is_option(arg: &OsStr) -> bool {
    arg.as_encoded_bytes().starts_with(b"-")
}

/// Options up to the first argument that is none; `at` is then its place.
struct Options<'a> {
    args: &'a [OsString],
    values: &'a [&'a str],
    at: usize,
}

impl<'a> Options<'a> {
    fn new(args: &'a [OsString], values: &'a [&'a str]) -> Self {
        Self { args, values, at: 0 }
    }
}

impl Iterator for Options<'_> {
    type Item = (String, Option<OsString>);

    fn next(&mut self) -> Option<Self::Item> {
        let arg = self.args.get(self.at).filter(|arg| is_option(arg))?;
        self.at += 1;
        let text = arg.to_string_lossy();
        if text == "--" {
            return None;
        }
        let text = text.trim_start_matches('-');
        if let Some((name, value)) = text.split_once('=') {
            return Some((name.to_owned(), Some(value.into())));
        }
        if !self.values.contains(&text) {
            return Some((text.to_owned(), None));
        }
        let value = self.args.get(self.at).cloned();
        self.at += 1;
        Some((text.to_owned(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> CommandLine {
        CommandLine::parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    fn expect_create(line: &CommandLine) -> &Create {
        match &line.verb {
            Verb::Create(create) => create,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn containerd_asks_for_a_container() {
        let line = parse(
            "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json \
             create --bundle /b --pid-file /b/init.pid abc",
        );
        let create = expect_create(&line);
        assert_eq!((create.id.as_os_str(), create.bundle.as_os_str()), (OsStr::new("abc"), OsStr::new("/b")));
        assert_eq!(create.pid_file.as_deref(), Some("/b/init.pid".as_ref()));
        assert_eq!(line.root, PathBuf::from("/run/containerd/runc/k8s.io"));
        assert_eq!(line.log.as_deref(), Some("/b/log.json".as_ref()));
        assert!(line.log_json);
        assert_eq!(line.globals.len(), 6);
    }

    #[test]
    fn options_may_carry_their_value_after_an_equals_sign() {
        let line =
            parse("--systemd-cgroup --root=/r --log-format=text create -b=/b --no-pivot --pid-file=/p x");
        let create = expect_create(&line);
        assert_eq!((line.root.to_str(), line.log_json), (Some("/r"), false));
        assert_eq!((create.bundle.to_str(), create.no_pivot), (Some("/b"), true));
        assert_eq!(create.pid_file.as_deref(), Some("/p".as_ref()));
        assert_eq!(create.id, "x");
    }

    #[test]
    fn cri_o_may_put_everything_in_another_order() {
        let line = parse(
            "--root=/run/runc create --console-socket /c --preserve-fds 2 --bundle /b --no-new-keyring x",
        );
        let create = expect_create(&line);
        assert_eq!(create.console_socket.as_deref(), Some("/c".as_ref()));
        assert_eq!((create.id.to_str(), create.bundle.to_str()), (Some("x"), Some("/b")));
    }

    #[test]
    fn start_is_recognized_with_its_id() {
        assert_eq!(parse("--root /r start abc").verb, Verb::Start { id: "abc".into() });
    }

    #[test]
    fn an_exec_is_recognized_where_nobody_waits_for_a_terminal() {
        let expected =
            |pid: &str| Verb::Exec(Exec { id: "abc".into(), process: "/tmp/p".into(), pid_file: pid.into() });
        let containerd = "--root /r --log /l exec --process /tmp/p --detach --pid-file /b/1.pid abc";
        assert_eq!(parse(containerd).verb, expected("/b/1.pid"));
        assert_eq!(parse("exec -d --pid-file=/p --process=/tmp/p --cwd / abc").verb, expected("/p"));
        for line in [
            "exec --process /tmp/p --console-socket /c --detach --pid-file /p abc",
            "exec --process /tmp/p --tty --detach --pid-file /p abc",
            "exec --process /tmp/p --pid-file /p abc",
            "exec --detach --pid-file /p abc",
            "exec --detach --process /tmp/p abc",
            "exec --detach --process /tmp/p --pid-file /p abc sh",
            "exec abc sh -c x",
        ] {
            assert_eq!(parse(line).verb, Verb::Other, "{line}");
        }
    }

    #[test]
    fn whatever_else_it_is_passes_through() {
        for line in [
            "",
            "--version",
            "--root",
            "--root create",
            "state x",
            "create",
            "create --bundle /b",
            "create --bundle /b x y",
            "start",
            "start --help",
            "--log create delete x",
            "kill x KILL",
            "features",
        ] {
            assert_eq!(parse(line).verb, Verb::Other, "{line}");
        }
    }

    #[test]
    fn a_value_that_looks_like_a_command_is_still_a_value() {
        let line = parse("--root create --log start create --bundle start x");
        assert_eq!(
            (line.root.to_str(), expect_create(&line).bundle.to_str()),
            (Some("create"), Some("start"))
        );
    }
}
