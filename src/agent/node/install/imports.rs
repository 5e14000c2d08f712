//! Which drop-ins a configuration of containerd imports. Pure: text in, text out, read only as far as it goes by hand.
//!
//! Guarantees: a configuration that is given back imports all that it imported, and is otherwise the same text.

use std::path::{Path, PathBuf};

/// The setting's value in a configuration's text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    /// Where its brackets' content is.
    inside: std::ops::Range<usize>,
    patterns: Vec<String>,
}

/// What the configuration imports, as it is written there.
pub fn imports(config: &str) -> Vec<String> {
    list(config).map(|list| list.patterns).unwrap_or_default()
}

/// One of the imports, each relative to the configuration's folder, takes this file up.
pub fn covers(patterns: &[String], config: &Path, file: &Path) -> bool {
    let folder = config.parent().unwrap_or(Path::new("/"));
    patterns.iter().any(|pattern| matches(&folder.join(pattern), file))
}

/// The configuration with one more import; nothing where the one that is there cannot be read.
pub fn with_import(config: &str, pattern: &str) -> Option<String> {
    if let Some(List { inside, patterns }) = list(config) {
        let separator = if patterns.is_empty() { "" } else { ", " };
        let present = config[inside.clone()].trim_end().trim_end_matches(',');
        let (before, after) = (&config[..inside.start], &config[inside.end..]);
        return Some(format!("{before}{present}{separator}\"{pattern}\"{after}"));
    }
    if top(config).any(|(_, line)| is_setting(line, "imports")) {
        return None;
    }
    let version = config.lines().position(|line| is_setting(line, "version"));
    let mut lines: Vec<&str> = config.lines().collect();
    if version.is_none() {
        lines.insert(0, "version = 3");
    }
    let import = format!("imports = [\"{pattern}\"]");
    lines.insert(version.unwrap_or(0) + 1, &import);
    Some(lines.join("\n") + "\n")
}

/// Lines before the first table, with where they begin.
fn top(config: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = config.split_inclusive('\n').scan(0, |at, line| {
        let begin = *at;
        *at += line.len();
        Some((begin, line))
    });
    lines.take_while(|(_, line)| !line.trim_start().starts_with('['))
}

fn is_setting(line: &str, name: &str) -> bool {
    line.trim_start().strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('='))
}

fn list(config: &str) -> Option<List> {
    // A list over several lines may have one that begins with a bracket, but not before the setting itself.
    let (begin, _) = top(config).find(|(_, line)| is_setting(line, "imports"))?;
    let open = begin + config[begin..].find('=')? + 1;
    let start = open + config[open..].find(|c: char| !c.is_whitespace())?;
    let inside = start + config[start..].strip_prefix('[').map(|_| 1)?;
    let mut patterns = Vec::new();
    let mut rest = inside;
    loop {
        let at = rest + config[rest..].find(['\'', '"', ']', '#'])?;
        let found = config[at..].chars().next()?;
        match found {
            ']' => return Some(List { inside: inside..at, patterns }),
            '#' => rest = at + config[at..].find('\n')?,
            quote => {
                let text = at + 1;
                let end = text + config[text..].find(quote)?;
                patterns.push(config[text..end].to_owned());
                rest = end + 1;
            }
        }
    }
}

/// As containerd finds files: `*` stands for any part of one name, `?` for one character. Other patterns are no match.
fn matches(pattern: &Path, file: &Path) -> bool {
    let (pattern, file) = (tidy(pattern), tidy(file));
    let (mut wanted, mut names) = (pattern.iter(), file.iter());
    loop {
        match (wanted.next(), names.next()) {
            (None, None) => return true,
            (Some(wanted), Some(name)) => {
                let (wanted, name) = (wanted.to_string_lossy(), name.to_string_lossy());
                if !fits(&wanted.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>()) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

fn fits(pattern: &[char], name: &[char]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some(('*', rest)) => (0..=name.len()).any(|taken| fits(rest, &name[taken..])),
        Some(('?', rest)) => name.split_first().is_some_and(|(_, others)| fits(rest, others)),
        Some((wanted, rest)) => {
            name.split_first().is_some_and(|(first, others)| first == wanted && fits(rest, others))
        }
    }
}

/// Without `.` and `..`.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                tidy.pop();
            }
            std::path::Component::CurDir => {}
            part => tidy.push(part),
        }
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "/etc/containerd/conf.d/*.toml";

    #[test]
    fn what_is_imported_is_read_however_it_is_written() {
        for (text, imported) in [
            ("version = 3\nimports = [\"/a/*.toml\", '/b.toml']\n[plugins]\n", vec!["/a/*.toml", "/b.toml"]),
            ("imports=[\n  # mine ]\n  '/a/*.toml',\n]\nroot = '/x'\n", vec!["/a/*.toml"]),
            ("imports = []\n", vec![]),
            ("[plugins]\nimports = ['/of/a/plugin']\n", vec![]),
            ("important = 1\n", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(imports(text), imported, "{text}");
        }
    }

    #[test]
    fn an_import_covers_what_lies_in_its_folder() {
        let covered = |pattern: &str, file: &str| {
            covers(&[pattern.to_owned()], Path::new("/etc/containerd/config.toml"), Path::new(file))
        };
        let file = "/etc/containerd/conf.d/shadow.toml";
        for pattern in [
            OURS,
            "conf.d/*.toml",
            "./conf.d/sha*.toml",
            "/etc/*/conf.d/*",
            "/etc/containerd/x/../conf.d/*",
            file,
        ] {
            assert!(covered(pattern, file), "{pattern}");
        }
        for pattern in [
            "/etc/containerd/config.d/*.toml",
            "/etc/containerd/*.toml",
            "*",
            "/etc/containerd/conf.d/?.toml",
        ] {
            assert!(!covered(pattern, file), "{pattern}");
        }
    }

    #[test]
    fn the_import_goes_before_the_first_table_or_to_those_that_there_are() {
        let text = with_import("version = 3\nroot = '/x'\n[plugins]\n", OURS).unwrap();
        assert_eq!(text.lines().nth(1), Some("imports = [\"/etc/containerd/conf.d/*.toml\"]"));
        assert!(with_import("", OURS).unwrap().starts_with("version = 3\nimports"));
        let text = with_import("version = 2\nimports = []\n[plugins]\n", OURS).unwrap();
        assert_eq!(text, "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n[plugins]\n");
        let text = with_import("imports = [\n  '/a/*.toml',\n]\n[x]\n", OURS).unwrap();
        assert_eq!(imports(&text), ["/a/*.toml", OURS]);
        assert!(text.ends_with("]\n[x]\n"), "{text}");
        assert_eq!(with_import("imports = 'of some day'\n", OURS), None);
    }
}
