//! More room in a ledger: counted at once, once, and for as long as the ledger is there.

use super::*;
use crate::call::Digest;
use crate::store::{TopUp, TopUpError};

fn wish(amount: i64, key: Option<&str>) -> TopUp {
    let key = key.map(|k| Digest::of(k.as_bytes()));
    TopUp { ledger: ledger(), amount, reason: "a good month".into(), by: "eve".into(), key }
}

fn top_up(b: &Bench, wish: TopUp) -> Result<i64, TopUpError> {
    block(b.store().top_up(wish)).map(|balance| balance.extra)
}

fn fits(b: &Bench, amount: i64) -> bool {
    let begun = block(b.store().begin(beginning(fresh("f"), vec![charge(amount, 10)], false)));
    matches!(begun.map(drop), Ok(()))
}

/// A call that policy lets run, each with an id of its own.
fn fresh(name: &str) -> CallRecord {
    CallRecord { terms: None, ..held(name, None) }
}

#[test]
fn what_was_added_counts_and_survives_kills_segments_and_restarts() {
    let mut b = Bench::with(Options { preallocate: 4096, segment_bytes: 16 << 10, ..Options::default() });
    assert_eq!(top_up(&b, wish(5, None)), Err(TopUpError::NotFound), "nothing was ever charged to it");
    assert!(fits(&b, 10) && !fits(&b, 1));
    assert_eq!(top_up(&b, wish(5, None)), Ok(5));
    assert!(!fits(&b, 6) && fits(&b, 3));
    assert_eq!(balance(&b), Balance { used: 0, reserved: 13, extra: 5 });
    assert_eq!(balance(&b.killed()).extra, 5);
    for _ in 0..400 {
        block(b.store().append(audit_note("filler"), true)).unwrap();
    }
    b.indexed();
    b.store = None;
    let mut segments = crate::journal::segments(&b.dir.path().join("journal")).unwrap();
    assert!(segments.pop().is_some() && segments.len() > 2, "too few segments");
    segments.iter().for_each(|s| std::fs::remove_file(&s.path).unwrap());
    b.reopen();
    assert_eq!(balance(&b).extra, 5);
    assert!(!fits(&b, 3) && fits(&b, 2));
}

#[test]
fn a_key_adds_once_also_after_a_kill() {
    let b = Bench::new();
    assert!(fits(&b, 10));
    assert_eq!(top_up(&b, wish(5, Some("k"))), Ok(5));
    assert_eq!(top_up(&b, wish(5, Some("k"))), Ok(5));
    assert_eq!(top_up(&b.killed(), wish(5, Some("k"))), Ok(5));
    assert_eq!(top_up(&b, wish(6, Some("k"))), Err(TopUpError::KeyReused));
    assert_eq!(top_up(&b, wish(5, Some("l"))), Ok(10));
    assert_eq!(top_up(&b, wish(5, None)), Ok(15));
    for amount in [0, -1, i64::MIN, i64::MAX] {
        assert_eq!(top_up(&b, wish(amount, None)), Err(TopUpError::Amount), "{amount}");
    }
    assert_eq!(balance(&b).extra, 15);
    let who = b.store().logged(b.store().span().1).unwrap();
    assert_eq!((who.kind.as_str(), who.who.as_deref()), ("topped_up", Some("eve")));
}
