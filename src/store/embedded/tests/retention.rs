//! What is older than its time goes, and nothing else.

use std::fs;
use std::time::Duration;

use crate::call::ArtifactId;
use crate::clock::Clock;
use crate::store::fixtures::MINUTE;
use crate::store::{Begun, Filter, Keep, NewArtifact, Shortened, State};

use super::super::Options;
use super::{Bench, approve, begin, beginning, block, conclusion, fresh, held, park};

const DAY: Duration = Duration::from_secs(86_400);
const KEEP: Keep = Keep { calls: DAY.saturating_mul(2), artifacts: DAY, audit: DAY.saturating_mul(4) };

fn small() -> Bench {
    Bench::with(Options { segment_bytes: 20_000, preallocate: 4096, ..Options::default() })
}

fn journal_bytes(b: &Bench) -> u64 {
    let files = fs::read_dir(b.dir.path().join("journal")).unwrap();
    files.map(|f| f.unwrap().metadata().unwrap().len()).sum()
}

/// A day of calls, holds and evidence that all end.
fn day(b: &Bench, name: &str) {
    for n in 0..20 {
        let key = format!("{name}{n}");
        let (begun, r) = block(b.store().begin(beginning(fresh(&key, Some(&key)), vec![], false))).unwrap();
        block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
        if n % 2 == 0 {
            b.store().collected(r.id).unwrap();
        }
        let content = bytes::Bytes::from(vec![b'e'; 2000]);
        let new = NewArtifact {
            id: ArtifactId::new(),
            kind: "ticket".into(),
            title: "t".into(),
            by: "bot".into(),
            content,
            principal_key: super::record(State::Held, "f", None).principal.key(),
        };
        block(b.store().put_artifact(new)).unwrap();
        let h = approve(b, &park(b, held(&format!("hold {key}"), None)));
        let (begun, _) = block(b.store().begin(beginning(h, vec![], true))).unwrap();
        block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
    }
    b.pass(DAY);
}

fn shorten(b: &Bench) -> Shortened {
    b.indexed();
    block(b.store().shorten(KEEP)).unwrap()
}

#[test]
fn the_journal_gets_shorter_still_verifies_and_a_rebuilt_index_agrees() {
    let mut b = small();
    let waiting = park(&b, held("waits for days", None));
    let sent = begin(&b, fresh("unknown for days", Some("u"))).1;
    // Ids are made by the machine's clock; the store's clock of this test is ahead of it from here on.
    ["a", "b", "c"].iter().for_each(|name| day(&b, name));
    let before = journal_bytes(&b);
    let one = shorten(&b);
    assert!(one.calls > 0 && one.artifacts > 0 && one.stripped > 0 && one.segments == 0, "{one:?}");
    assert_eq!(before - journal_bytes(&b), one.bytes);
    assert!(crate::audit::verify(b.dir.path()).unwrap().first_seq == Some(1));
    assert_eq!(shorten(&b), Shortened::default(), "a second time there is nothing to do");
    ["d", "e", "f"].iter().for_each(|name| day(&b, name));
    let two = shorten(&b);
    assert!(two.segments == 0 && two.bytes > 0, "{two:?}");
    assert_eq!(block(b.store().request_body(&waiting)).unwrap(), "card=canary-4111", "an open call lost its request");
    assert_eq!(block(b.store().get(sent.id)).unwrap().unwrap().state, State::Dispatching);
    let by = Begun { id: sent.id, attempt: 1, epoch: 1 };
    block(b.store().conclude(by, conclusion(State::Succeeded))).unwrap();
    assert!(!block(b.store().expire_due(b.clock.now())).unwrap().is_empty());
    assert_eq!(shorten(&b).segments, 0, "a call that ended today keeps its request for as long as any");
    ["g", "h", "i"].iter().for_each(|name| day(&b, name));
    let three = shorten(&b);
    assert!(three.segments > 0 && three.bytes > 0, "{three:?}");
    assert!(crate::audit::verify(b.dir.path()).unwrap().first_seq.unwrap() > 1);
    let kept = b.dump();
    let listed = block(b.store().list(Filter { limit: 1000, ..Filter::default() })).unwrap();
    assert!(listed.len() > 40, "two days are kept");
    assert!(listed.iter().all(|r| b.clock.now().since(r.updated) <= KEEP.calls));
    assert_eq!(b.known(&fresh("a1", None), Some("a1")), "new");
    b.store = None;
    fs::remove_dir_all(b.dir.path().join("index")).unwrap();
    b.reopen();
    assert!(b.recovery.index_rebuilt);
    shorten(&b);
    assert_eq!(b.dump().1, kept.1);
    assert!(crate::audit::verify(b.dir.path()).is_ok());
}

#[test]
fn records_that_somebody_else_cut_off_the_front_are_missed() {
    let mut b = small();
    ["a", "b"].iter().for_each(|name| day(&b, name));
    b.store = None;
    let oldest = crate::journal::segments(&b.dir.path().join("journal")).unwrap().remove(0);
    fs::remove_file(oldest.path).unwrap();
    let error = crate::audit::verify(b.dir.path()).unwrap_err().to_string();
    assert!(error.contains("missing") && error.contains("retention"), "{error}");
}

#[test]
fn a_crash_while_a_segment_is_written_anew_leaves_nothing_behind() {
    let mut b = small();
    day(&b, "a");
    b.store = None;
    let left = b.dir.path().join("journal/journal-00000000000000000001.shorter");
    fs::write(&left, b"half").unwrap();
    b.reopen();
    assert!(!left.exists());
    b.pass(MINUTE);
}
