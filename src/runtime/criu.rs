//! What we tell CRIU beyond runc's options, and the lines of its log that say what went wrong. Pure.

/// Names one more file of settings to every CRIU that runc starts.
pub const CRIU_CONFIG_VARIABLE: &str = "CRIU_CONFIG_FILE";

/// The last lines of a CRIU log that say `Error`, or else its very last lines, joined by `; `.
pub fn last_errors(log: &str, count: usize) -> String {
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let errors: Vec<&str> = lines.iter().copied().filter(|line| line.contains("Error")).collect();
    let chosen = if errors.is_empty() { lines } else { errors };
    if chosen.is_empty() {
        "its log is empty".to_owned()
    } else {
        chosen[chosen.len().saturating_sub(count)..].join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_errors_are_quoted_before_other_lines() {
        let log = "(00.1) Error (a): one\n(00.2) fine\n(00.3) Error (b): two\n\n(00.4) Error (c): three\n(00.5) bye\n";
        assert_eq!(last_errors(log, 2), "(00.3) Error (b): two; (00.4) Error (c): three");
        assert_eq!(last_errors("a\nb\nc\n", 2), "b; c");
        assert_eq!(last_errors("\n", 2), "its log is empty");
    }
}
