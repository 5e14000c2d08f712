//! Reasons as people read them: one line, the cause first, short enough to be read at once. Pure.

/// Characters of a reason in an Event, a condition and a check.
pub const SENTENCE: usize = 200;

/// One line of at most [`SENTENCE`] characters: white space is a blank, what is too long ends with `…` at a word.
pub fn sentence(text: &str) -> String {
    within(text, SENTENCE)
}

/// A cause and what became of it, in [`SENTENCE`] characters: where both are too long, the cause is cut.
pub fn sentence_ending(cause: &str, ending: &str) -> String {
    let room = SENTENCE.saturating_sub(ending.chars().count());
    within(cause, room) + ending
}

/// The same but for numbers, addresses and PIDs: what failed twice failed for the same cause.
pub fn same_but_for_numbers(one: &str, other: &str) -> bool {
    without_numbers(one).eq(without_numbers(other))
}

/// Words without those that hold a digit: numbers in any base, addresses, times, inodes.
fn without_numbers(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_alphanumeric());
    words.filter(|word| !word.is_empty() && !word.contains(|c: char| c.is_ascii_digit()) && !is_hex(word))
}

/// An address may have no decimal digit at all.
fn is_hex(word: &str) -> bool {
    word.len() >= 4 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn within(text: &str, limit: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= limit {
        return line;
    }
    let kept: String = line.chars().take(limit.saturating_sub(1)).collect();
    // A long word that fills a half of it is cut itself.
    let end = kept.rfind(' ').filter(|end| *end > kept.len() / 2).unwrap_or(kept.len());
    format!("{}…", &kept[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_stays_as_it_is_on_one_line() {
        assert_eq!(sentence("a  b\n\tc "), "a b c");
    }

    #[test]
    fn what_is_long_is_cut_at_a_word_and_never_within_a_character() {
        let long = sentence(&"wörter ".repeat(60));
        assert!(long.chars().count() <= SENTENCE && long.ends_with("wörter…"), "{long}");
        let word = sentence(&"ö".repeat(300));
        assert_eq!(word.chars().count(), SENTENCE);
    }

    #[test]
    fn an_ending_is_kept_whole() {
        let told = sentence_ending(&"cause ".repeat(60), "; evicted as ever");
        assert!(told.chars().count() <= SENTENCE, "{told}");
        assert!(told.starts_with("cause cause") && told.ends_with("…; evicted as ever"), "{told}");
        assert_eq!(sentence_ending("cause", "; so"), "cause; so");
    }

    #[test]
    fn failures_are_the_same_whatever_the_numbers_in_them() {
        let same = |one, other| assert!(same_but_for_numbers(one, other), "{one} / {other}");
        same("Unsupported proto 262 for socket 11f1b", "Unsupported proto 262 for socket 2a04c");
        same("PID 17 at 0x7f00 of pid=3", "PID 9911 at 0x7fab of pid=12");
        same("task deadbeef", "task cafebabe");
        assert!(!same_but_for_numbers("Can't dump that handle", "Can't open file"));
        assert!(!same_but_for_numbers("a", "a b"));
    }
}
