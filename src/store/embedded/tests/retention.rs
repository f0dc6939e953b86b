//! What is older than its time goes, and nothing else.

use std::fs;
use std::time::Duration;

use crate::call::{ArtifactId, Digest};
use crate::clock::{Clock, SystemClock};
use crate::store::fixtures::MINUTE;
use crate::store::{Begun, CallRecord, Filter, HistoryQuestion, Keep, NewArtifact, Shortened, State};

use super::super::Options;
use super::super::entry::Entry;
use super::super::forgotten::Forgotten;
use super::{Bench, approve, begin, beginning, block, conclusion, fresh, held, park};

const DAY: Duration = Duration::from_secs(86_400);
const KEEP: Keep = Keep { calls: DAY.saturating_mul(2), artifacts: DAY, audit: DAY.saturating_mul(4) };

/// Ids are made by the machine's clock: what the store's clock calls old must not be younger than they are.
fn from_today(b: Bench) -> Bench {
    b.clock.set_wall(b.clock.now().max(SystemClock.now()));
    b
}

fn small() -> Bench {
    from_today(Bench::with(Options { segment_bytes: 20_000, preallocate: 4096, ..Options::default() }))
}

/// The segments that nothing is written to any more.
fn closed(b: &Bench) -> Vec<std::path::PathBuf> {
    let mut all = crate::journal::segments(&b.dir.path().join("journal")).unwrap();
    all.pop();
    all.into_iter().map(|s| s.path).collect()
}

fn bytes(files: &[std::path::PathBuf]) -> u64 {
    files.iter().map(|f| fs::metadata(f).unwrap().len()).sum()
}

fn evidence(b: &Bench) -> ArtifactId {
    let new = NewArtifact {
        id: ArtifactId::new(),
        kind: "ticket".into(),
        title: "t".into(),
        by: "bot".into(),
        content: ::bytes::Bytes::from(vec![b'e'; 2000]),
        principal_key: super::record(State::Held, "f", None).principal.key(),
    };
    block(b.store().put_artifact(new)).unwrap()
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
        evidence(b);
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
    let files = closed(&b);
    let before = bytes(&files);
    let one = shorten(&b);
    assert!(one.calls > 0 && one.artifacts > 0 && one.stripped > 0 && one.segments == 0, "{one:?}");
    assert_eq!(before - bytes(&files), one.bytes);
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

/// All that agents and people can be told of these.
fn told(b: &Bench, artifacts: &[ArtifactId]) -> String {
    let listed = block(b.store().list(Filter { limit: 1000, ..Filter::default() })).unwrap();
    let there: Vec<bool> = artifacts.iter().map(|id| block(b.store().artifact(*id)).unwrap().is_some()).collect();
    let keys: Vec<String> = ["old", "young"].iter().map(|k| b.known(&fresh(k, None), Some(k))).collect();
    let mut ids: Vec<_> = listed.iter().map(|r| (r.id, r.state.as_str(), r.version, r.collected)).collect();
    ids.sort();
    let ledgers = serde_json::to_string(&b.store().inner.core.lock().unwrap().image().ledgers).unwrap();
    format!("{ids:?} {there:?} {keys:?} {ledgers}")
}

fn without_index(b: &mut Bench) {
    b.store = None;
    fs::remove_dir_all(b.dir.path().join("index")).unwrap();
    b.reopen();
    assert!(b.recovery.index_rebuilt);
}

#[test]
fn what_retention_took_is_gone_after_a_kill_too_and_from_an_index_that_is_rebuilt() {
    // All of it stands in the segment that every replay begins with.
    let mut b = from_today(Bench::new());
    let old = evidence(&b);
    let kept = |name| CallRecord { keep: DAY * 50, ..fresh(name, Some(name)) };
    super::run(&b, kept("old"), State::Succeeded);
    ["a", "b", "c"].iter().for_each(|name| day(&b, name));
    let young = evidence(&b);
    let late = park(&b, held("waits", None));
    super::run(&b, kept("young"), State::Succeeded);
    let before = told(&b, &[old, young]);
    assert!(before.contains("[true, true]") && !before.contains("\"new\""), "{before}");
    assert!(shorten(&b).calls > 0);
    let after = told(&b, &[old, young]);
    assert!(after.contains("[false, true]"), "{after}");
    assert!(after.contains(r#"["new", "concluded succeeded"]"#), "{after}");
    assert_eq!(block(b.store().attach_evidence(late.id, old)).unwrap_err(), crate::store::HoldError::NotFound);
    let killed = b.killed();
    assert_eq!(told(&killed, &[old, young]), after);
    b.reopen();
    assert_eq!(told(&b, &[old, young]), after);
    without_index(&mut b);
    assert_eq!(told(&b, &[old, young]), after);
    assert_eq!(block(b.store().attach_evidence(late.id, old)).unwrap_err(), crate::store::HoldError::NotFound);
    // It is taken from the index again, and stays away when retention is set to keep more.
    let all = Keep { calls: DAY * 50, artifacts: DAY * 50, audit: DAY * 50 };
    b.indexed();
    block(b.store().shorten(all)).unwrap();
    assert_eq!(told(&b, &[old, young]), after);
}

#[test]
fn what_is_forgotten_is_gone_before_the_index_lets_go_of_it() {
    let mut b = from_today(Bench::new());
    let (target, old) = (Some(Digest::of(b"target")), evidence(&b));
    let r = super::run(&b, CallRecord { keep: DAY * 50, target, ..fresh("old", Some("old")) }, State::Succeeded);
    b.pass(DAY * 3);
    evidence(&b);
    b.indexed();
    let first = |b: &Bench| {
        let (principal, operation) = (&r.principal, r.operation.as_str());
        let q = HistoryQuestion { principal, run: "r1", operation, target, currency: None };
        b.store().history(&q).unwrap().first_time_target
    };
    assert!(!first(&b) && b.known(&r, Some("old")) == "concluded succeeded");
    // A crash between the record and the work.
    let end = b.clock.now();
    b.store().inner.say_forgotten(Forgotten { calls: end, artifacts: end }).unwrap();
    let gone = |b: &Bench| {
        assert!(first(b) && told(b, &[old]).starts_with("[] [false] [\"new\""), "{}", told(b, &[old]));
        assert!(block(b.store().get(r.id)).unwrap().is_none() && b.store().watch(r.id).unwrap().is_none());
        // No step follows: a replay could not make one of it.
        b.store().collected(r.id).unwrap();
    };
    gone(&b);
    gone(&b.killed());
    without_index(&mut b);
    gone(&b);
    // A new segment carries it on.
    {
        let mut core = b.store().inner.core.lock().unwrap();
        let image = Entry::Snapshot(Box::new(core.image()));
        b.store().inner.append(&mut core, end, true, Vec::new(), |_| image).unwrap();
    }
    super::run(&b, CallRecord { keep: DAY * 50, ..fresh("old", Some("old")) }, State::Succeeded);
    b.indexed();
    b.reopen();
    assert!(block(b.store().get(r.id)).unwrap().is_none());
    assert_eq!(b.known(&r, Some("old")), "concluded succeeded", "the key is another call's now");
    assert!(shorten(&b).calls > 0);
    assert_eq!(b.known(&r, Some("old")), "concluded succeeded");
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
