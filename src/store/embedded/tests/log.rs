//! The log as auditors see it: checkpoints, exports, proofs, and what is found when somebody touched it.

use std::fs;
use std::path::Path;

use crate::call::Digest;
use crate::journal::note::Signer;
use crate::store::State;

use super::super::Options;
use super::{Bench, audit_note, block, copy, fresh, run};

/// Some calls, signed.
fn signed(b: &Bench, name: &str) -> String {
    for n in 0..5 {
        run(b, fresh(&format!("{name}{n}"), None), State::Failed);
        block(b.store().append(audit_note("call.read"), true)).unwrap();
        b.pass(std::time::Duration::from_secs(1));
    }
    block(b.store().checkpoint()).unwrap().unwrap()
}

fn bench() -> Bench {
    Bench::with(Options { segment_bytes: 20_000, preallocate: 4096, ..Options::default() })
}

fn exported(dir: &Path, from: u64) -> Vec<String> {
    let mut out = Vec::new();
    crate::audit::export(dir, from, u64::MAX, &mut out).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

fn verify(lines: &[String], older: &[String]) -> Result<crate::audit::Verified, String> {
    let key = None;
    crate::audit::verify_export(lines.join("\n").as_bytes(), key, older).map_err(|e| e.to_string())
}

#[test]
fn an_export_verifies_without_the_directory_and_every_change_is_named() {
    let mut b = bench();
    let first = signed(&b, "a");
    let second = signed(&b, "b");
    b.store = None;
    let report = crate::audit::verify_signed(b.dir.path(), None, &[first.clone(), second.clone()]).unwrap();
    assert_eq!(report.checkpoints.len(), 3);
    for from in [1, 7] {
        let good = exported(b.dir.path(), from);
        let verified = verify(&good, std::slice::from_ref(&second)).unwrap();
        assert_eq!(verified.report.first_seq, Some(from));
        assert_eq!(verified.checkpoints.len(), 2);
        assert_eq!(verified.report.head, report.report.head);
        let last = good.len() - 1;
        let seq = |line: usize| format!("record {}", from + line as u64 - 1);
        let mut changed = good.clone();
        changed[4] = changed[4].replacen("\"event\":{", "\"event\":{\"x\":1,", 1);
        assert!(verify(&changed, &[]).unwrap_err().contains(&seq(4)));
        let mut cut = good.clone();
        cut.remove(5);
        assert!(verify(&cut, &[]).unwrap_err().contains(&seq(5)));
        let mut swapped = good.clone();
        swapped.swap(3, 4);
        assert!(verify(&swapped, &[]).unwrap_err().contains(&seq(3)));
        assert!(verify(&good[..last], &[]).unwrap_err().contains("tail is missing"));
        let mut header = good.clone();
        header[0] = header[0].replacen("holdpoint_export\":1", "holdpoint_export\":2", 1);
        assert!(verify(&header, &[]).is_err());
    }
    let other = Signer::new(&[5; 32]).unwrap().verifier().clone();
    let text = exported(b.dir.path(), 1).join("\n");
    assert!(crate::audit::verify_export(text.as_bytes(), Some(other), &[]).unwrap_err().to_string().contains("signed"));
}

#[test]
fn a_history_that_was_written_anew_fits_no_old_checkpoint() {
    let (a, mut b) = (bench(), bench());
    let kept = signed(&a, "a");
    signed(&b, "b");
    b.store = None;
    fs::copy(a.dir.path().join("checkpoint.key"), b.dir.path().join("checkpoint.key")).unwrap();
    fs::remove_file(b.dir.path().join("checkpoint")).unwrap();
    let wrong = crate::audit::verify_signed(b.dir.path(), None, &[kept]).unwrap_err().to_string();
    assert!(wrong.contains("not those that were signed"), "{wrong}");
}

#[test]
fn proofs_hold_for_every_record_and_for_older_checkpoints_only() {
    let mut b = bench();
    let first = signed(&b, "a");
    signed(&b, "b");
    b.store = None;
    let dir = b.dir.path();
    let key = crate::audit::key_of(dir).unwrap();
    let size = crate::audit::verify(dir).unwrap().records;
    for seq in 1..=size {
        let proof = crate::audit::prove_inclusion(dir, seq).unwrap();
        let shown = crate::audit::check(&proof, key.clone()).unwrap();
        assert_eq!(shown, crate::audit::Checked::Included { seq, size });
        let lied = proof.replacen("\"event\":{", "\"event\":{\"x\":1,", 1);
        assert!(crate::audit::check(&lied, key.clone()).is_err());
    }
    assert!(crate::audit::prove_inclusion(dir, size + 1).is_err());
    let proof = crate::audit::prove_consistency(dir, &first).unwrap();
    assert!(
        matches!(crate::audit::check(&proof, key).unwrap(), crate::audit::Checked::Extends { size: s, .. } if s == size)
    );
    let mut forged: serde_json::Value = serde_json::from_str(&proof).unwrap();
    forged["path"][0] = serde_json::json!(Digest::of(b"x"));
    assert!(crate::audit::check(&forged.to_string(), None).is_err());
}

/// An older copy of the journal, with the index that belongs to it, in the place of the newer one.
fn rolled_back(b: &mut Bench, whole: bool) {
    let saved = tempfile::tempdir().unwrap();
    signed(b, "a");
    b.store = None;
    copy(b.dir.path(), saved.path());
    b.reopen();
    signed(b, "b");
    b.store = None;
    for part in ["journal", "index"] {
        fs::remove_dir_all(b.dir.path().join(part)).unwrap();
        copy(&saved.path().join(part), &b.dir.path().join(part));
    }
    if whole {
        fs::copy(saved.path().join("checkpoint"), b.dir.path().join("checkpoint")).unwrap();
    }
}

#[test]
fn an_older_copy_of_the_journal_is_found_until_a_person_accepts_it() {
    let mut b = bench();
    rolled_back(&mut b, false);
    for _ in 0..2 {
        b.reopen();
        let trouble = b.recovery.rollback.clone().unwrap();
        assert!(trouble.contains("rollback detected"), "{trouble}");
        assert!(b.recovery.to_string().contains("rollback detected"));
        assert!(block(b.store().checkpoint()).unwrap().is_none(), "nothing is signed over it");
    }
    assert!(crate::audit::verify_signed(b.dir.path(), None, &[]).unwrap_err().to_string().contains("tail is missing"));
    b.store().accept_history("restored from last night's backup", "olga").unwrap();
    b.reopen();
    assert_eq!(b.recovery.rollback, None);
    assert!(crate::audit::verify_signed(b.dir.path(), None, &[]).is_ok());
    assert!(b.dir.path().join("checkpoint.rejected1").exists());
    let said: Vec<String> = crate::audit::lines(b.dir.path(), 1).unwrap().map(|l| l.unwrap().kind()).collect();
    assert!(said.contains(&"history.accepted".to_owned()));
}

#[test]
fn a_state_directory_that_is_older_as_a_whole_is_found_by_the_copy_of_the_checkpoint() {
    let other_disk = tempfile::tempdir().unwrap();
    let checkpoint_copy = Some(other_disk.path().join("holdpoint.checkpoint"));
    let mut b = Bench::with(Options { checkpoint_copy, preallocate: 4096, ..Options::default() });
    rolled_back(&mut b, true);
    b.reopen();
    assert!(b.recovery.rollback.clone().unwrap().contains("rollback detected"));
    let mut blind = bench();
    rolled_back(&mut blind, true);
    blind.reopen();
    assert_eq!(blind.recovery.rollback, None, "without a copy nobody can know");
}

#[test]
fn a_journal_of_another_history_or_another_key_is_found() {
    let (mut a, mut b) = (bench(), bench());
    signed(&a, "a");
    signed(&b, "b");
    (a.store, b.store) = (None, None);
    let key = fs::read(b.dir.path().join("checkpoint.key")).unwrap();
    for part in ["journal", "index"] {
        fs::remove_dir_all(b.dir.path().join(part)).unwrap();
        copy(&a.dir.path().join(part), &b.dir.path().join(part));
    }
    fs::copy(a.dir.path().join("payload.key"), b.dir.path().join("payload.key")).unwrap();
    b.reopen();
    let trouble = b.recovery.rollback.clone().unwrap();
    assert!(trouble.contains("rewritten") || trouble.contains("rollback"), "{trouble}");
    b.store = None;
    fs::remove_file(b.dir.path().join("checkpoint.key")).unwrap();
    b.reopen();
    assert!(b.recovery.rollback.clone().unwrap().contains("cannot be believed"));
    assert_ne!(fs::read(b.dir.path().join("checkpoint.key")).unwrap(), key);
}

#[test]
fn a_tree_that_is_not_the_one_that_was_signed_stops_the_store() {
    let mut b = bench();
    signed(&b, "a");
    b.store = None;
    // Chain hashes from before the last segment are believed at the start, and compared at the first signature.
    let path = b.dir.path().join("journal/tree");
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, bytes).unwrap();
    b.reopen();
    assert!(b.store().healthy());
    run(&b, fresh("later", None), State::Failed);
    assert!(block(b.store().checkpoint()).unwrap().is_none());
    assert!(!b.store().healthy());
}
