//! Signed checkpoints against a state that went back, or was written anew.

use std::fs;

use crate::store::State;

use super::{Bench, block, copy, fresh, run};

const PARTS: [&str; 2] = ["journal", "index"];

/// Puts journal and index of `from` where those of `b` are; keys and checkpoint stay.
fn replace(b: &Bench, from: &std::path::Path) {
    for part in PARTS {
        fs::remove_dir_all(b.dir.path().join(part)).unwrap();
        copy(&from.join(part), &b.dir.path().join(part));
    }
}

/// A call, the state so far, another call, a signature.
fn signed() -> (Bench, tempfile::TempDir) {
    let mut b = Bench::new();
    run(&b, fresh("a", None), State::Succeeded);
    b.store = None;
    let early = tempfile::tempdir().unwrap();
    copy(b.dir.path(), early.path());
    b.reopen();
    assert_eq!(b.recovery.rollback, None);
    run(&b, fresh("b", None), State::Succeeded);
    assert!(block(b.store().checkpoint()).unwrap().is_some());
    b.store = None;
    (b, early)
}

#[test]
fn a_journal_that_went_back_behind_its_checkpoint_is_found_at_start() {
    let (mut b, early) = signed();
    replace(&b, early.path());
    b.reopen();
    assert!(b.recovery.rollback.as_ref().is_some_and(|t| t.contains("rollback detected")), "{:?}", b.recovery);
    assert!(block(b.store().checkpoint()).unwrap().is_none(), "nothing more is signed");
    b.reopen();
    assert!(b.recovery.rollback.is_some(), "it is not forgotten by another start");
    b.store().accept_history("restored from a backup", "omar").unwrap();
    assert!(block(b.store().checkpoint()).unwrap().is_none(), "it was signed when it was accepted");
    b.reopen();
    assert_eq!(b.recovery.rollback, None);
}

#[test]
fn a_journal_that_went_back_and_grew_again_is_found_at_start() {
    let (mut b, early) = signed();
    replace(&b, early.path());
    fs::rename(b.dir.path().join("checkpoint"), early.path().join("newest")).unwrap();
    b.reopen();
    for n in 0..9 {
        run(&b, fresh(&format!("other {n}"), None), State::Succeeded);
    }
    b.store = None;
    fs::rename(early.path().join("newest"), b.dir.path().join("checkpoint")).unwrap();
    b.reopen();
    assert!(b.recovery.rollback.as_ref().is_some_and(|t| t.contains("rewritten")), "{:?}", b.recovery);
}

#[test]
fn a_checkpoint_of_another_key_is_not_believed() {
    let (mut b, _early) = signed();
    let place = b.dir.path().join("checkpoint");
    let text = fs::read_to_string(&place).unwrap();
    fs::write(&place, text.replacen('\n', "\n1", 1)).unwrap();
    b.reopen();
    assert!(b.recovery.rollback.as_ref().is_some_and(|t| t.contains("cannot be believed")), "{:?}", b.recovery);
}

#[test]
fn a_checkpoint_that_is_gone_is_missed_at_start() {
    let mut b = Bench::new();
    let place = b.dir.path().join("checkpoint");
    assert!(place.exists(), "the first one is signed before the first record");
    b.store = None;
    fs::remove_file(&place).unwrap();
    b.reopen();
    assert!(b.recovery.rollback.as_ref().is_some_and(|t| t.contains("is gone")), "{:?}", b.recovery);
    b.reopen();
    assert!(b.recovery.rollback.is_some() && !place.exists(), "it is not forgotten by another start");
    b.store().accept_history("I deleted it", "omar").unwrap();
    b.reopen();
    assert_eq!(b.recovery.rollback, None);
}
