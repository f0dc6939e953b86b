//! Opening again: after kills, lost indexes, damage.

use std::fs;
use std::sync::Arc;

use crate::call::Digest;
use crate::store::fixtures::{MINUTE, START, vote};
use crate::store::{AuditNote, Balance, BeginError, Begun, HoldError, ParkError, State};

use super::super::entry::Entry;
use super::super::index::Index;
use super::super::{OpenError, Options, Store};
use super::{
    Bench, approve, balance, begin, beginning, block, charge, conclusion, copy, declared, fresh, held, park, parking,
    question, run,
};

#[test]
fn a_kill_while_sending_leaves_unknown_and_recovery_is_idempotent() {
    let b = Bench::new();
    let (_begun, r) = begin(&b, fresh("f", Some("k")));
    let approved = approve(&b, &park(&b, held("g", None)));
    let one = b.killed();
    assert_eq!(one.recovery.to_unknown, [r.id]);
    assert_eq!(one.recovery.approved, [approved.id]);
    assert_eq!(one.recovery.epoch, b.recovery.epoch + 1);
    assert!(!one.recovery.ledgers_corrected);
    let dead = block(one.store().get(r.id)).unwrap().unwrap();
    assert_eq!((dead.state, dead.note.unwrap().code.as_str()), (State::Unknown, "process_died"));
    assert_eq!(balance(&one), Balance { used: 0, reserved: 10, extra: 0 });
    let two = one.killed();
    assert_eq!((two.recovery.to_unknown.len(), two.recovery.epoch), (0, b.recovery.epoch + 2));
    assert_eq!(one.dump(), two.dump());
    let late = Begun { id: r.id, attempt: 1, epoch: b.recovery.epoch };
    block(two.store().conclude(late, conclusion(State::Succeeded))).unwrap();
}

#[test]
fn a_kill_while_sending_a_declared_call_leaves_it_to_be_sent_again() {
    let b = Bench::new();
    let (_lost, r) = begin(&b, declared("f", Some("k")));
    let one = b.killed();
    assert_eq!((one.recovery.to_resend.as_slice(), one.recovery.to_unknown.len()), ([r.id].as_slice(), 0));
    let still = block(one.store().get(r.id)).unwrap().unwrap();
    assert_eq!((still.state, still.attempt, still.epoch), (State::Dispatching, 1, r.epoch));
    assert!(!one.recovery.ledgers_corrected);
    let dead = Begun { id: r.id, attempt: 1, epoch: r.epoch };
    one.pass(MINUTE);
    let (again, second) = block(one.store().again(&dead)).unwrap().unwrap();
    assert_eq!((again.attempt, again.epoch), (2, one.recovery.epoch));
    block(one.store().give_up(r.id)).unwrap();
    assert_eq!(block(one.store().get(r.id)).unwrap().unwrap().state, State::Dispatching, "it is our own now");
    assert!(block(one.store().conclude(dead, conclusion(State::Succeeded))).is_err());
    // Each death costs an attempt; the third one is the last.
    let two = one.killed();
    assert_eq!(two.recovery.to_resend, [r.id]);
    assert_eq!(block(two.store().get(r.id)).unwrap().unwrap(), second, "quiescence of the second attempt is forgotten");
    assert_eq!(two.killed().recovery.to_resend, [r.id], "a death before it is sent again costs nothing");
    let _third = block(two.store().again(&again)).unwrap().unwrap();
    let three = two.killed();
    assert_eq!((three.recovery.to_resend.len(), three.recovery.to_unknown.as_slice()), (0, [r.id].as_slice()));
    assert_eq!(balance(&three), Balance { used: 0, reserved: 10, extra: 0 });

    let (_lost, late) = begin(&b, declared("late", None));
    b.pass(MINUTE * 10);
    assert_eq!(b.killed().recovery.to_unknown, [r.id, late.id], "quiescence has come: others may judge it");
    let given_up = one.killed();
    block(given_up.store().give_up(r.id)).unwrap();
    assert_eq!(block(given_up.store().get(r.id)).unwrap().unwrap().state, State::Unknown);
}

#[test]
fn everything_acknowledged_is_there_after_a_kill_at_any_step() {
    let b = Bench::new();
    let r = park(&b, held("f", Some("k")));
    assert_eq!(block(b.killed().store().get(r.id)).unwrap().unwrap(), r);
    let r = approve(&b, &r);
    let copy = b.killed();
    assert_eq!(block(copy.store().get(r.id)).unwrap().unwrap(), r);
    assert_eq!(block(copy.store().request_body(&r)).unwrap(), "card=canary-4111");
    let (begun, r) = block(b.store().begin(beginning(r, vec![charge(10, 100)], true))).unwrap();
    assert_eq!(b.killed().recovery.to_unknown, [r.id]);
    let r = block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap().as_ref().clone();
    let copy = b.killed();
    assert_eq!(block(copy.store().get(r.id)).unwrap().unwrap(), r);
    assert_eq!(block(copy.store().answer_body(&r)).unwrap().unwrap(), "canary-answer");
    assert_eq!(balance(&copy), Balance { used: 10, reserved: 0, extra: 0 });
}

/// Some of everything, over several segments.
fn fill(b: &Bench) {
    for n in 0..30 {
        let f = format!("f{n}");
        let states = [State::Succeeded, State::Failed, State::NotExecuted, State::Unknown];
        let mut r = fresh(&f, Some(&f));
        r.money = Some((n, "EUR".into()));
        r.target = Some(Digest::of(f.as_bytes()));
        let r = block(b.store().begin(beginning(r, vec![charge(1, 100)], false)))
            .map(|(begun, _)| block(b.store().conclude(begun, conclusion(states[n as usize % 4]))).unwrap())
            .unwrap();
        if n % 3 == 0 {
            b.store().collected(r.id).unwrap();
        }
        let h = park(b, held(&format!("h{n}"), None));
        if n % 2 == 0 {
            approve(b, &h);
        }
        let note = AuditNote {
            kind: "call.refused".into(),
            call: None,
            principal: None,
            agent: Some(("acme".into(), "bot".into())),
            run: None,
            operation: None,
            code: Some("forbidden".into()),
            more: Default::default(),
        };
        block(b.store().append(note, true)).unwrap();
    }
}

#[test]
fn the_index_is_rebuilt_the_same_when_it_is_lost_or_broken() {
    let mut b = Bench::with(Options { segment_bytes: 20_000, preallocate: 4096, ..Options::default() });
    fill(&b);
    assert!(fs::read_dir(b.dir.path().join("journal")).unwrap().count() > 3);
    b.reopen();
    assert!(!b.recovery.index_rebuilt);
    let before = b.dump();
    let index = b.dir.path().join("index");
    b.store = None;
    fs::remove_dir_all(&index).unwrap();
    b.reopen();
    assert!(b.recovery.index_rebuilt);
    assert_eq!(b.dump(), before);
    b.store = None;
    fs::write(index.join("db"), b"rubbish").unwrap();
    fs::write(index.join("conf"), b"rubbish").unwrap();
    fs::write(index.join("snap.0000.generating"), b"").unwrap();
    b.reopen();
    assert!(b.recovery.index_rebuilt);
    assert_eq!(b.dump(), before);
    b.store = None;
    let inside = Index::open(&index).unwrap();
    inside.forget_mark();
    drop(inside);
    b.reopen();
    assert!(b.recovery.index_rebuilt && b.dir.path().join("index.bad1").exists());
    assert_eq!(b.dump(), before);
}

#[test]
fn a_start_from_the_last_snapshot_gives_the_same_state_as_a_full_replay() {
    let mut b = Bench::with(Options { segment_bytes: 20_000, preallocate: 4096, ..Options::default() });
    fill(&b);
    b.reopen();
    let (replayed, short) = (b.recovery.replayed, b.dump());
    b.store = None;
    fs::remove_dir_all(b.dir.path().join("index")).unwrap();
    b.reopen();
    assert!(b.recovery.replayed > replayed + 50, "{} {replayed}", b.recovery.replayed);
    assert_eq!(b.dump(), short);
}

#[test]
fn an_index_that_is_ahead_of_the_journal_is_not_believed() {
    let mut b = Bench::new();
    let r = run(&b, fresh("f", Some("k")), State::Succeeded);
    b.indexed();
    let journal = b.dir.path().join("journal");
    b.store = None;
    let saved = tempfile::tempdir().unwrap();
    copy(&journal, saved.path());
    b.reopen();
    let later = run(&b, fresh("g", Some("l")), State::Succeeded);
    b.store = None;
    fs::remove_dir_all(&journal).unwrap();
    copy(saved.path(), &journal);
    b.reopen();
    assert!(b.recovery.index_rebuilt && b.recovery.records_lost > 0);
    assert!(block(b.store().get(later.id)).unwrap().is_none());
    assert_eq!(b.known(&r, Some("k")), "concluded succeeded");
}

/// A kill while the index was being filled, and a journal whose end is gone: what it has of that end must not be told.
#[test]
fn an_index_that_was_being_filled_from_records_that_are_gone_is_not_believed() {
    let mut b = Bench::new();
    run(&b, fresh("f", Some("k")), State::Succeeded);
    b.store = None;
    Index::open(&b.dir.path().join("index")).unwrap().was_writing(1000);
    b.reopen();
    assert!(b.recovery.index_rebuilt && b.recovery.records_lost > 900, "{:?}", b.recovery);
}

#[test]
fn only_one_process_has_it() {
    let mut b = Bench::new();
    let error = Store::open(b.dir.path(), b.clock.clone(), b.options.clone()).unwrap_err();
    assert!(matches!(&error, OpenError::Locked { who, .. } if who.contains("epoch 1")), "{error}");
    b.reopen();
    assert_eq!(b.recovery.epoch, 2);
}

#[test]
fn another_payload_key_is_refused() {
    let mut b = Bench::new();
    b.store = None;
    let other = Options { key: Some([3; 32]), ..b.options.clone() };
    assert!(matches!(Store::open(b.dir.path(), b.clock.clone(), other), Err(OpenError::WrongKey)));
    b.reopen();
}

#[test]
fn damage_in_the_middle_refuses_to_open() {
    let mut b = Bench::new();
    run(&b, fresh("f", None), State::Succeeded);
    b.store = None;
    let file = crate::journal::segments(&b.dir.path().join("journal")).unwrap().pop().unwrap().path;
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 4;
    fs::write(&file, bytes).unwrap();
    let error = Store::open(b.dir.path(), b.clock.clone(), b.options.clone()).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged(bad) if bad.seq == 1), "{error}");
    assert!(crate::audit::verify(b.dir.path()).is_err());
}

#[test]
fn a_failed_write_makes_everything_with_effects_unavailable() {
    let b = Bench::new();
    let r = park(&b, held("f", None));
    b.store().journal().fail_from_now_on();
    assert_eq!(block(b.store().vote(vote(&r, "eve", &["ops"]))).unwrap_err(), HoldError::Unavailable);
    assert!(!b.store().healthy());
    assert!(matches!(block(b.store().begin(beginning(fresh("g", None), vec![], false))), Err(BeginError::Unavailable)));
    assert_eq!(block(b.store().park(parking(held("h", None)))).unwrap_err(), ParkError::Unavailable);
    assert!(block(b.store().look_up(question(&r))).is_err());
    assert_eq!(block(b.killed().store().get(r.id)).unwrap().unwrap().state, State::Held);
}

#[test]
fn no_payload_stands_in_the_clear_anywhere() {
    let mut b = Bench::new();
    let r = approve(&b, &park(&b, held("f", None)));
    let (begun, _) = block(b.store().begin(beginning(r, vec![], true))).unwrap();
    block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
    b.store = None;
    let mut dirs = vec![b.dir.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                assert!(!bytes.windows(6).any(|w| w == b"canary"), "{}", path.display());
            }
        }
    }
}

#[test]
fn every_step_is_one_audit_record_and_the_whole_verifies() {
    let mut b = Bench::new();
    let r = approve(&b, &park(&b, held("f", None)));
    let (begun, _) = block(b.store().begin(beginning(r, vec![], true))).unwrap();
    block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
    b.store = None;
    let kinds: Vec<String> = crate::audit::lines(b.dir.path(), 1).unwrap().map(|l| l.unwrap().kind()).collect();
    assert_eq!(kinds, ["snapshot", "epoch", "recovery", "parked", "approved", "begun", "concluded", "closed"]);
    let report = crate::audit::verify(b.dir.path()).unwrap();
    assert_eq!((report.records, report.segments, report.first_at), (8, 1, Some(START)));
    assert!(report.to_string().contains("8 records (1 to 8)"));
    assert_eq!(crate::audit::lines(b.dir.path(), 5).unwrap().count(), 4);
}

#[test]
fn an_entry_reads_back_as_it_was_written() {
    let mut r = held("f", Some("k"));
    r.charges = vec![charge(i64::MAX, i64::MAX)];
    r.arguments = Arc::new(serde_json::json!({"n": 9_007_199_254_740_993_i64, "f": 0.1}));
    let entry = Entry::Call { step: crate::store::Step::Parked, record: Arc::new(r.clone()) };
    let text = serde_json::to_string(&entry).unwrap();
    let Entry::Call { record, .. } = serde_json::from_str(&text).unwrap() else { panic!() };
    assert_eq!(*record, r);
}

#[test]
fn a_lost_key_file_is_not_replaced() {
    let mut b = Bench::new();
    b.store = None;
    let key = b.dir.path().join("payload.key");
    fs::remove_file(&key).unwrap();
    assert!(matches!(Store::open(b.dir.path(), b.clock.clone(), b.options.clone()), Err(OpenError::WrongKey)));
    assert!(!key.exists());
}

#[test]
fn what_a_power_cut_took_from_the_index_is_written_again() {
    let mut b = Bench::new();
    fill(&b);
    b.indexed();
    let lost = b.killed();
    let before = lost.dump();
    lost.store().inner.index.lose_unsynced();
    assert_eq!(lost.killed().dump(), before);
    b.reopen();
}

#[test]
fn old_segments_can_go_because_newer_ones_begin_with_what_they_carry() {
    let mut b = Bench::with(Options { segment_bytes: 20_000, preallocate: 4096, ..Options::default() });
    fill(&b);
    let image = |b: &Bench| {
        let image = b.store().inner.core.lock().unwrap().image();
        let open: Vec<_> = image.calls.iter().map(|r| (r.id, r.state, r.version)).collect();
        (open, serde_json::to_string(&image.ledgers).unwrap(), serde_json::to_string(&image.tally).unwrap())
    };
    b.indexed();
    let before = image(&b);
    b.store = None;
    let mut segments = crate::journal::segments(&b.dir.path().join("journal")).unwrap();
    segments.pop();
    segments.iter().for_each(|s| fs::remove_file(&s.path).unwrap());
    fs::remove_dir_all(b.dir.path().join("index")).unwrap();
    let report = crate::journal::verify(&b.dir.path().join("journal")).unwrap();
    assert!(report.first_seq.unwrap() > 1);
    b.reopen();
    assert_eq!(image(&b), before);
}

#[test]
fn the_index_of_another_journal_is_not_believed() {
    let (mut a, mut b) = (Bench::new(), Bench::new());
    run(&a, fresh("a", Some("k")), State::Succeeded);
    let r = run(&b, fresh("b", Some("k")), State::Succeeded);
    (a.store, b.store) = (None, None);
    let index = b.dir.path().join("index");
    fs::remove_dir_all(&index).unwrap();
    copy(&a.dir.path().join("index"), &index);
    b.reopen();
    assert!(b.recovery.index_rebuilt);
    assert_eq!(b.known(&r, Some("k")), "concluded succeeded");
}

#[test]
fn damage_in_an_older_segment_refuses_to_open_too() {
    let mut b = Bench::with(Options { segment_bytes: 20_000, preallocate: 4096, ..Options::default() });
    fill(&b);
    b.store = None;
    let file = crate::journal::segments(&b.dir.path().join("journal")).unwrap()[1].path.clone();
    let mut bytes = fs::read(&file).unwrap();
    bytes[5000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let error = Store::open(b.dir.path(), b.clock.clone(), b.options.clone()).unwrap_err();
    assert!(matches!(&error, OpenError::Damaged(bad) if bad.seq > 1), "{error}");
    b.options.check_bytes = 0;
    b.reopen();
}

#[test]
fn only_an_orderly_end_leaves_no_gap() {
    let mut b = Bench::new();
    assert!(!b.recovery.audit_gap);
    assert!(b.killed().recovery.audit_gap);
    b.reopen();
    assert!(!b.recovery.audit_gap);
}
