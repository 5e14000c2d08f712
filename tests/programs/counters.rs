//! The tests' counter in several languages: every write that was acknowledged is in its state after.

use std::time::Duration;

use super::tour::{Tour, on_tour};
use super::variants::{Variant, app};
use crate::lab::{App, Result, Writer, state_at};

const BOTH: [Variant; 2] = [Variant::Root, Variant::Hardened { read_only: true }];
const PACE: Duration = Duration::from_millis(5);
const SIDE: Duration = Duration::from_millis(300);

#[test]
fn a_python_server() -> Result {
    moves("python", "python3 /programs/counter.py", &BOTH)
}

#[test]
fn a_jvm() -> Result {
    moves("jvm", "java -Xmx256m -XX:+UseSerialGC /programs/Counter.java", &BOTH)
}

fn moves(name: &str, command: &str, variants: &[Variant]) -> Result {
    on_tour(name, variants, async |tour, variant| counts_on(tour, variant, app(name, command, variant)).await)
}

/// Two drains under writes.
async fn counts_on(tour: &Tour<'_>, variant: Variant, app: App) -> Result {
    let (_, service) = tour.start(&app).await?;
    for _ in 0..2 {
        let first = state_at(&service).await?;
        let writer = Writer::start(service.clone(), &first, PACE)?;
        tokio::time::sleep(SIDE).await;
        let leg = tour.leg(&app).await?;
        tokio::time::sleep(SIDE).await;
        let mut written = writer.finish().await?;
        let last = leg.after.state().await?;
        written.check_final(&last);
        assert_eq!(written.broken, None, "{written:?}");
        assert!(written.acknowledged > 20, "{written:?}");
        let counted = last.count - first.count;
        assert!(
            (written.acknowledged..=written.acknowledged + written.unknown).contains(&counted),
            "{written:?}"
        );
        assert_eq!(last.cookie, first.cookie, "the same memory");
        tour.tell(variant, &leg, written.longest_gap);
    }
    tour.end(&app).await
}
