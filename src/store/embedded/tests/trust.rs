//! Trust as the store keeps it, on real files.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::call::{CallContext, GrantOver, Trust, Verdict};
use crate::store::fixtures::{MINUTE, grant, principal};
use crate::store::{AuditNote, CallRecord, JudgeSample, Note, Reject, Renew, Sample, State, Surprise, UndoOf};

use super::handling::change;
use super::{Bench, approve, audit_note, beginning, block, conclusion, fresh, held, park, run};

fn trust(b: &Bench) -> (i64, i64) {
    let Trust { score, surprises_7d } = b.store().trust(&principal(), "crm.refund").unwrap();
    (score, surprises_7d)
}

fn reject(b: &Bench, reason: &str) {
    reject_as(b, &park(b, held(reason, None)), reason);
}

fn reject_as(b: &Bench, hold: &CallRecord, reason: &str) {
    let reject = Reject {
        id: hold.id,
        version: None,
        digest: hold.digest,
        person: "eve".into(),
        reason_code: reason.into(),
        message: None,
        deny_alike: None,
    };
    block(b.store().reject(reject)).unwrap();
}

fn undo(b: &Bench, call: &CallRecord) {
    let of = UndoOf { call: call.id, person: "eve".into(), aliases: vec![], reason: "wrong".into() };
    let back = CallRecord { undoes: Some(Box::new(of)), operation: "crm.update".into(), ..fresh("undo", None) };
    let (begun, _) = block(b.store().begin(beginning(back, vec![], false))).unwrap();
    block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
}

fn missed() -> AuditNote {
    let asked = json!({"context": {"workflow": "w"}, "principal": {"groups": ["support"]}});
    AuditNote {
        operation: Some("crm.refund".into()),
        code: Some("forbidden".into()),
        more: [("asked".to_owned(), asked)].into(),
        ..audit_note("call.refused")
    }
}

fn sampled(b: &Bench, call: &CallRecord) -> Sample {
    let sample = Sample {
        id: call.id,
        operation: call.operation.clone(),
        principal: Arc::clone(&call.principal),
        workflow: "w".into(),
        title: "Refund".into(),
        arguments: Arc::clone(&call.arguments),
        policies: vec![],
        grant: None,
        recorded: true,
        at: call.created,
        judged: None,
    };
    b.store().sample(sample.clone()).unwrap();
    sample
}

fn judge(b: &Bench, sample: &Sample, verdict: Verdict) {
    let names = vec!["eve".to_owned()];
    let said = JudgeSample { id: sample.id, verdict, reason_code: None, person: "eve".into(), names };
    block(b.store().judge_sample(said)).unwrap();
}

/// What people and policy say of an agent's calls, one after the other.
#[test]
fn every_surprise_and_every_good_word_counts_once_over_kills_and_rebuilds() {
    let mut b = Bench::with(super::Options { segment_bytes: 8 << 10, preallocate: 4096, ..super::Options::default() });
    assert_eq!(trust(&b), (50, 0));
    reject(&b, "not_needed");
    assert_eq!(trust(&b), (50, 0), "that its time has not come is no surprise");
    reject(&b, "unsafe");
    assert_eq!(trust(&b), (42, 1));
    for name in ["yes", "yes too"] {
        let approved = approve(&b, &park(&b, held(name, None)));
        let (begun, _) = block(b.store().begin(beginning(approved, vec![], true))).unwrap();
        block(b.store().conclude(begun, conclusion(State::Failed))).unwrap();
    }
    assert_eq!(trust(&b), (43, 1), "once for each that was sent");
    let done = run(&b, fresh("f", None), State::Succeeded);
    undo(&b, &done);
    assert_eq!(trust(&b), (28, 2), "the operation that was taken back, not that which took back");
    for _ in 0..3 {
        block(b.store().append(missed(), true)).unwrap();
    }
    assert_eq!(trust(&b), (22, 3));
    let (good, bad) = (run(&b, fresh("g", None), State::Succeeded), run(&b, fresh("b", None), State::Succeeded));
    judge(&b, &sampled(&b, &good), Verdict::Good);
    judge(&b, &sampled(&b, &bad), Verdict::Bad);
    assert_eq!(trust(&b), (11, 4));
    let elsewhere = b.store().trust(&principal(), "crm.update").unwrap();
    assert_eq!((elsewhere.score, elsewhere.surprises_7d), (50, 0), "nothing is earned or spent elsewhere");

    b.pass(Duration::from_secs(2 * 86_400));
    assert_eq!(trust(&b), (11, 4), "one call of which nobody said anything");
    let before = b.dump().0;
    let killed = b.killed();
    assert_eq!((killed.dump().0, trust(&killed)), (before.clone(), (11, 4)));
    assert_eq!(killed.store().take_surprises().unwrap(), [], "counted by the process that saw it");
    b.store = None;
    std::fs::remove_dir_all(b.dir.path().join("index")).unwrap();
    b.reopen();
    assert_eq!((b.dump().0, trust(&b)), (before, (11, 4)));
    let all = b.store().trusts().unwrap();
    let kinds: Vec<Surprise> = all[0].surprises.iter().map(|s| s.kind).collect();
    assert_eq!(kinds, [Surprise::JudgedBad, Surprise::NearMiss, Surprise::Undone, Surprise::Rejected]);
    assert_eq!((all[0].group.as_deref(), all[0].surprises[2].call), (Some("support"), Some(done.id)));
}

/// Votes that are void and given anew, and what people do about undos, say nothing of the agent.
#[test]
fn one_edit_is_one_surprise_and_what_a_person_takes_back_is_none_of_the_agents() {
    let b = Bench::new();
    let hold = park(&b, held("e", None));
    let edited = block(b.store().edit(change(&hold, "max"))).unwrap();
    approve(&b, &edited);
    let again = Renew {
        id: hold.id,
        version: None,
        terms: edited.terms.clone().unwrap(),
        digest: edited.digest,
        preview: None,
        config_digest: edited.config_digest,
        policy_digest: edited.policy_digest,
        what_changed: Note { code: "moved".into(), text: "moved".into(), by: None },
    };
    let renewed = block(b.store().renew(again)).unwrap();
    let approved = approve(&b, &renewed);
    assert_eq!(trust(&b), (50, 0), "nothing was sent yet");
    let (begun, _) = block(b.store().begin(beginning(approved, vec![], true))).unwrap();
    block(b.store().conclude(begun, conclusion(State::Failed))).unwrap();
    assert_eq!(trust(&b), (46, 1));
    let of = UndoOf { call: hold.id, person: "eve".into(), aliases: vec![], reason: "wrong".into() };
    let undo = park(&b, CallRecord { undoes: Some(Box::new(of)), ..held("u", None) });
    reject_as(&b, &undo, "wrong_target");
    let asked = AuditNote {
        more: [missed().more, [("undoes".to_owned(), json!("call_x"))].into()].into_iter().flatten().collect(),
        ..missed()
    };
    block(b.store().append(asked, true)).unwrap();
    assert_eq!(trust(&b), (46, 1));
}

/// An agent names its workflow itself: trust that is spent in one is not there in another.
#[test]
fn naming_another_workflow_brings_no_trust() {
    let b = Bench::new();
    reject(&b, "unsafe");
    let elsewhere = CallContext { workflow: "other".into(), run: "r1".into(), ..CallContext::default() };
    let record = CallRecord { context: elsewhere.into(), ..fresh("f", None) };
    run(&b, record, State::Succeeded);
    assert_eq!(trust(&b), (42, 1));
    assert_eq!(b.store().trusts().unwrap().len(), 2);
}

#[test]
fn surprises_are_handed_to_whoever_counts_them_once() {
    let b = Bench::new();
    reject(&b, "wrong_amount");
    assert_eq!(b.store().take_surprises().unwrap(), [("w".to_owned(), Surprise::Rejected)]);
    assert_eq!(b.store().take_surprises().unwrap(), []);
}

/// Policy of grants: any surprise ends them.
#[test]
fn a_surprise_ends_grants_for_calls_like_it() {
    let b = Bench::new();
    let give = || {
        let from = approve(&b, &park(&b, held(&format!("f{}", crate::call::GrantId::new()), None)));
        block(b.store().give_grant(grant(&from, 100, 5, 500))).unwrap().id
    };
    let over =
        |id| block(b.store().grants()).unwrap().into_iter().find(|g| g.grant.id == id).unwrap().grant.ended.clone();
    let granted = give();
    block(b.store().append(AuditNote { operation: Some("crm.update".into()), ..missed() }, true)).unwrap();
    assert_eq!(over(granted), None, "another operation");
    block(b.store().append(missed(), true)).unwrap();
    assert_eq!(over(granted).unwrap().why, GrantOver::NearMiss);
    let granted = give();
    let hold = park(&b, held("changed", None));
    approve(&b, &block(b.store().edit(change(&hold, "max"))).unwrap());
    assert_eq!(over(granted).unwrap().why, GrantOver::Edited);
    let granted = give();
    let done = run(&b, fresh("f", None), State::Succeeded);
    let sample = sampled(&b, &done);
    b.pass(MINUTE);
    judge(&b, &sample, Verdict::Bad);
    assert_eq!(over(granted).unwrap().why, GrantOver::JudgedBad);
}
