//! How well a node would do, as kube-scheduler wants it: integers from 0 to 10, over the whole range.

use super::evaluate::Room;

/// `MaxExtenderPriority` of kube-scheduler's extender API; it checks no bounds, so this does.
pub const HIGHEST_SCORE: i64 = 10;

/// Scores for nodes that were found to have room, and nothing for the others: what is left after the move, in disk and
/// transfers, and how fast archives arrive, each as a share of the best candidate's; the smallest share counts, and the
/// shares are stretched over the whole range.
pub fn score(rooms: &[Option<Room>]) -> Vec<i64> {
    let fitting = || rooms.iter().flatten();
    let most = |of: fn(&Room) -> f64| fitting().map(of).fold(0.0, f64::max);
    let (disk, transfers, speed) = (most(left), most(taking), most(|room| stream(room).unwrap_or_default()));
    let shares: Vec<Option<f64>> = rooms
        .iter()
        .map(|room| {
            let room = room.as_ref()?;
            let speed = stream(room).map_or(1.0, |own| share(own, speed));
            Some(share(left(room), disk).min(share(taking(room), transfers)).min(speed))
        })
        .collect();
    let (low, high) = shares
        .iter()
        .flatten()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), own| (low.min(*own), high.max(*own)));
    shares.iter().map(|own| own.map_or(0, |own| stretched(own, low, high))).collect()
}

/// Whole numbers, the worst 0, the best 10; equals are all the best.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // 0 to 10
fn stretched(own: f64, low: f64, high: f64) -> i64 {
    if high <= low {
        return HIGHEST_SCORE;
    }
    let points = (own - low) / (high - low) * HIGHEST_SCORE as f64;
    (points as i64).clamp(0, HIGHEST_SCORE)
}

#[allow(clippy::cast_precision_loss)] // a ranking
fn left(room: &Room) -> f64 {
    room.free.saturating_sub(room.bytes) as f64
}

fn taking(room: &Room) -> f64 {
    f64::from(room.transfers) + 1.0
}

#[allow(clippy::cast_precision_loss)] // a ranking
fn stream(room: &Room) -> Option<f64> {
    room.stream.map(|rate| rate as f64)
}

fn share(own: f64, best: f64) -> f64 {
    if best > 0.0 { own / best } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(free: u64, transfers: u32, stream: Option<u64>) -> Room {
        Room { free, bytes: 10, transfers, stream }
    }

    fn scores<const N: usize>(rooms: [Room; N]) -> Vec<i64> {
        score(&rooms.map(Some))
    }

    #[test]
    fn the_best_has_ten_and_the_worst_none() {
        assert_eq!(scores([with(1010, 1, None), with(510, 1, None), with(110, 1, None)]), [10, 4, 0]);
        assert_eq!(scores([with(1010, 1, None), with(1010, 0, None)]), [10, 0]);
        assert_eq!(scores([with(100, 1, Some(40)), with(100, 1, Some(400))]), [0, 10]);
    }

    #[test]
    fn equals_are_equal_and_nobody_is_no_error() {
        assert_eq!(scores([with(50, 1, None), with(50, 1, None)]), [10, 10]);
        assert_eq!(scores([with(10, 0, Some(0))]), [10]);
        assert!(score(&[]).is_empty());
    }

    #[test]
    fn who_has_no_room_gets_nothing_and_counts_for_nothing() {
        assert_eq!(score(&[None, Some(with(50, 1, None)), Some(with(30, 1, None))]), [0, 10, 0]);
        assert_eq!(score(&[None, None]), [0, 0]);
    }

    proptest! {
        #[test]
        fn scores_never_leave_the_range(rooms in prop::collection::vec(
            (any::<u64>(), any::<u64>(), any::<u32>(), any::<Option<u64>>()), 0..50)) {
            let rooms: Vec<Option<Room>> = rooms.into_iter().map(|(free, bytes, transfers, stream)| {
                Some(Room { free, bytes, transfers, stream })
            }).collect();
            let scores = score(&rooms);
            prop_assert_eq!(scores.len(), rooms.len());
            prop_assert!(scores.iter().all(|score| (0..=HIGHEST_SCORE).contains(score)));
        }
    }
}
