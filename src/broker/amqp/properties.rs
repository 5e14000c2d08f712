//! What a queue was declared with. AMQP tells nobody, but a declaration that differs is refused by the name of the first
//! property that does, with its value: so it is asked until nothing of interest is left. Network I/O.
//!
//! Guarantees: nothing is ever declared. Every question names a property with a value that no queue can have: where
//! there is no queue, the broker refuses it as well.

use std::collections::BTreeMap;

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};

use super::link::{Link, PRECONDITION_FAILED, code, name};
use super::queues::Probe;
use crate::broker::{BrokerError, QueueFacts, QueueKind};

/// More properties than any queue has.
const QUESTIONS: usize = 24;
const TYPE: &str = "x-queue-type";
const EXPIRES: &str = "x-expires";
const MOST: [&str; 2] = ["x-max-length", "x-max-length-bytes"];
const OVERFLOW: &str = "x-overflow";
const SINGLE_ACTIVE: &str = "x-single-active-consumer";

pub(super) async fn facts(link: &Link, queue: &str) -> Result<QueueFacts, BrokerError> {
    let counts = Probe::new(link).must_exist(queue).await?;
    let mut question = Question::new();
    for _ in 0..QUESTIONS {
        let Some(answer) = ask(link, queue, &question).await? else { break };
        if !question.heard(&answer) {
            break;
        }
    }
    Ok(QueueFacts { consumers: counts.consumers, messages: counts.messages, ..question.facts() })
}

/// The broker's refusal; nothing where it tells nothing.
async fn ask(link: &Link, queue: &str, question: &Question) -> Result<Option<String>, BrokerError> {
    let session = link.session().await?;
    let options = QueueDeclareOptions {
        durable: question.durable,
        auto_delete: question.auto_delete,
        ..QueueDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    for (key, value) in &question.arguments {
        arguments.insert(key.as_str().into(), value.clone());
    }
    let queue_name = name(queue)?;
    let declare = async move |channel: Channel| channel.queue_declare(queue_name, options, arguments).await;
    match session.attempt("queue.declare", declare).await? {
        Err(error) if code(&error) == Some(PRECONDITION_FAILED) => Ok(Some(error.to_string())),
        Err(_) | Ok(_) => Ok(None),
    }
}

/// What is asked, and what was heard.
struct Question {
    durable: bool,
    auto_delete: bool,
    arguments: BTreeMap<String, AMQPValue>,
    /// Of interest and not yet told: in `arguments` with a value that none has.
    open: Vec<&'static str>,
    told: BTreeMap<String, Option<String>>,
}

impl Question {
    fn new() -> Self {
        let text = || AMQPValue::LongString("shadow-asks".into());
        let mut arguments: BTreeMap<_, _> =
            [TYPE, OVERFLOW, SINGLE_ACTIVE].map(|key| (key.to_owned(), text())).into();
        arguments.insert(EXPIRES.to_owned(), AMQPValue::LongLongInt(0));
        arguments.extend(MOST.map(|key| (key.to_owned(), AMQPValue::LongLongInt(-1))));
        let open = vec![TYPE, EXPIRES, MOST[0], MOST[1], OVERFLOW, SINGLE_ACTIVE];
        Self { durable: true, auto_delete: false, arguments, open, told: BTreeMap::new() }
    }

    /// Takes note of a refusal. False where there is nothing more to ask.
    fn heard(&mut self, refusal: &str) -> bool {
        let Some((property, value)) = differing(refusal) else { return false };
        if self.told.insert(property.to_owned(), value.map(str::to_owned)).is_some() {
            return false; // a value that cannot be said as the broker says it
        }
        match property {
            "durable" => self.durable = value == Some("true"),
            "auto_delete" => self.auto_delete = value == Some("true"),
            _ => {
                self.open.retain(|open| *open != property);
                match value {
                    Some(value) => self.arguments.insert(property.to_owned(), spoken(value)),
                    None => self.arguments.remove(property),
                };
            }
        }
        // The last one would be no question any more, but a declaration.
        !self.open.is_empty()
    }

    fn facts(&self) -> QueueFacts {
        let value = |key: &str| self.told.get(key).and_then(Option::as_deref);
        let kind = match self.told.get(TYPE) {
            None => QueueKind::Unknown,
            Some(None) => QueueKind::Classic,
            Some(Some(kind)) => match kind.as_str() {
                "classic" => QueueKind::Classic,
                "quorum" => QueueKind::Quorum,
                "stream" => QueueKind::Stream,
                _ => QueueKind::Unknown,
            },
        };
        QueueFacts {
            kind,
            auto_delete: self.auto_delete,
            expires_ms: value(EXPIRES).and_then(|text| text.parse().ok()),
            drops_oldest: MOST.iter().any(|key| value(key).is_some())
                && value(OVERFLOW).is_none_or(|overflow| overflow == "drop-head"),
            single_active: value(SINGLE_ACTIVE) == Some("true"),
            ..QueueFacts::default()
        }
    }
}

/// `inequivalent arg 'KEY' for queue ...: received ... but current is none`, or `'VALUE'`, or `the value 'VALUE' of ...`.
fn differing(refusal: &str) -> Option<(&str, Option<&str>)> {
    let (_, rest) = refusal.split_once("inequivalent arg '")?;
    let (property, rest) = rest.split_once('\'')?;
    let (_, current) = rest.rsplit_once("but current is ")?;
    let value = current.split_once('\'').and_then(|(_, rest)| rest.split_once('\'')).map(|(value, _)| value);
    (value.is_some() || current.starts_with("none")).then_some((property, value))
}

fn spoken(value: &str) -> AMQPValue {
    match (value, value.parse::<i64>()) {
        ("true" | "false", _) => AMQPValue::Boolean(value == "true"),
        (_, Ok(number)) => AMQPValue::LongLongInt(number),
        _ => AMQPValue::LongString(value.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(key: &str, current: &str) -> String {
        format!(
            "PRECONDITION_FAILED - inequivalent arg '{key}' for queue 'q' in vhost '/': received none but current is {current}"
        )
    }

    #[test]
    fn each_refusal_tells_one_property_until_none_of_interest_is_left() {
        let mut question = Question::new();
        for (key, current) in [
            ("auto_delete", "'true'"),
            ("x-expires", "the value '60000' of type 'signedint'"),
            ("x-dead-letter-exchange", "the value 'dlx' of type 'longstr'"),
            ("x-max-length", "'5'"),
            ("x-max-length-bytes", "none"),
            ("x-overflow", "none"),
            ("x-single-active-consumer", "'true'"),
        ] {
            assert!(question.heard(&refusal(key, current)), "{key}");
        }
        assert!(
            !question.heard(&refusal("x-queue-type", "the value 'classic' of type 'longstr'")),
            "nothing is left to ask"
        );
        let facts = question.facts();
        assert_eq!(
            (facts.kind, facts.auto_delete, facts.expires_ms),
            (QueueKind::Classic, true, Some(60_000))
        );
        assert!(facts.drops_oldest && facts.single_active);
        assert_eq!(question.arguments["x-dead-letter-exchange"], AMQPValue::LongString("dlx".into()));
        assert!(!question.arguments.contains_key("x-overflow"));
    }

    #[test]
    fn what_is_no_such_refusal_or_is_told_twice_ends_the_questions() {
        let mut question = Question::new();
        assert!(!question.heard("PRECONDITION_FAILED - invalid arg 'x-expires' for queue 'q' in vhost '/'"));
        assert!(question.heard(&refusal("x-message-ttl", "'1.5'")));
        assert!(!question.heard(&refusal("x-message-ttl", "'1.5'")));
        assert_eq!(question.facts(), QueueFacts::default());
    }
}
