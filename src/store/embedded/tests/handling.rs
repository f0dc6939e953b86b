//! Claims, and rejections that stand for calls like it, in the store on real files.

use bytes::Bytes;
use serde_json::json;

use crate::call::{Ladder, Rung};
use crate::store::fixtures::{MINUTE, START, terms};
use crate::store::{
    CallRecord, Edit, EditHold, Editing, Filter, Handle, HoldError, Note, Options, ParkError, Reject, Renewal, State,
    Wish,
};

use super::{Bench, audit_note, block, held, park, parking};

fn by(record: &CallRecord, person: &str, wish: Wish) -> Handle {
    Handle { id: record.id, version: None, person: person.into(), aliases: vec![format!("idp|{person}")], wish }
}

pub(super) fn change(record: &CallRecord, person: &str) -> EditHold {
    let note = Note { code: "edited".into(), text: "less".into(), by: Some(person.into()) };
    let (config_digest, policy_digest) = (record.config_digest, record.policy_digest);
    let terms = terms(crate::call::Tier::Medium, &[], 1);
    let renewal = Renewal { terms, digest: record.digest, preview: None, config_digest, policy_digest, note };
    let edit = Edit { person: person.into(), aliases: vec![], at: START, note: "less".into(), changes: vec![] };
    let editing = Editing {
        request: record.request.clone(),
        arguments: json!({"amount": 4}).into(),
        schema_digest: record.schema_digest,
        title: "Smaller".into(),
        target: None,
        money: None,
        edit,
        changes: vec![],
        renewal,
    };
    let names = vec![person.to_owned(), format!("idp|{person}")];
    let (id, digest, version) = (record.id, record.digest, None);
    let (body, arguments, states) = (Bytes::from_static(b"{}"), Bytes::new(), Bytes::new());
    EditHold { id, version, digest, names, editing, body, arguments, states }
}

#[test]
fn what_is_claimed_is_changed_by_nobody_else() {
    let b = Bench::new();
    let hold = park(&b, held("f", None));
    let taken = by(&hold, "eve", Wish::Claim { lasts: MINUTE, take_over: false });
    block(b.store().handle(taken)).unwrap();
    assert!(matches!(block(b.store().edit(change(&hold, "max"))), Err(HoldError::ClaimedByOther(_))));
    assert_eq!(block(b.store().edit(change(&hold, "eve"))).unwrap().title, "Smaller");
    b.pass(MINUTE);
    assert_eq!(block(b.store().edit(change(&hold, "max"))).unwrap().renewals, 2);
}

#[test]
fn a_claim_and_what_was_said_outlive_a_kill() {
    let b = Bench::new();
    let hold = park(&b, held("f", None));
    block(b.store().handle(by(&hold, "eve", Wish::Comment("seen".into())))).unwrap();
    let taken = by(&hold, "eve", Wish::Claim { lasts: MINUTE, take_over: false });
    let told = block(b.store().handle(taken)).unwrap();
    let killed = b.killed();
    let found = block(killed.store().get(hold.id)).unwrap().unwrap();
    assert_eq!((found.version, &found.handling), (3, &told.handling));
}

fn reject(record: &CallRecord) -> Reject {
    Reject {
        id: record.id,
        version: None,
        digest: record.digest,
        person: "eve".into(),
        reason_code: "unsafe".into(),
        message: None,
        deny_alike: Some(MINUTE * 30),
    }
}

#[test]
fn a_rejection_that_stands_for_others_outlives_segments_and_restarts() {
    let mut b = Bench::with(Options { preallocate: 4096, segment_bytes: 16 << 10, ..Options::default() });
    let hold = park(&b, held("f", None));
    block(b.store().reject(reject(&hold))).unwrap();
    let alike = |b: &Bench| block(b.store().park(parking(held("g", None)))).map(|r| r.state);
    assert_eq!(alike(&b), Err(ParkError::DeniedAlike(hold.id)));
    // Over many segments: those that say so can go.
    for _ in 0..400 {
        block(b.store().append(audit_note("filler"), true)).unwrap();
    }
    b.indexed();
    assert_eq!(alike(&b.killed()), Err(ParkError::DeniedAlike(hold.id)));
    b.store = None;
    let mut segments = crate::journal::segments(&b.dir.path().join("journal")).unwrap();
    assert!(segments.pop().is_some() && segments.len() > 2, "too few segments");
    segments.iter().for_each(|s| std::fs::remove_file(&s.path).unwrap());
    b.reopen();
    assert_eq!(alike(&b), Err(ParkError::DeniedAlike(hold.id)));
    let other = held("g", None);
    let other = CallRecord { operation: "crm.update".into(), ..other };
    assert_eq!(block(b.store().park(parking(other))).unwrap().state, State::Held, "another operation");
    b.pass(MINUTE * 30);
    assert_eq!(alike(&b), Ok(State::Held));
}

#[test]
fn a_rung_is_told_once_also_after_a_kill() {
    let b = Bench::new();
    park(&b, held("f", None));
    let rung = Rung { after: crate::call::After::Sla(1000), text: "1x".into(), to: "leads".into() };
    let ladder = Ladder { rungs: vec![rung] };
    assert!(block(b.store().escalate_due(&ladder)).unwrap().is_empty());
    b.pass(MINUTE * 15);
    assert_eq!(block(b.store().escalate_due(&ladder)).unwrap().len(), 1);
    assert!(block(b.store().escalate_due(&ladder)).unwrap().is_empty());
    assert!(block(b.killed().store().escalate_due(&ladder)).unwrap().is_empty());
}

#[test]
fn a_list_looks_no_further_than_it_is_told() {
    let b = Bench::new();
    let ended: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            let r = park(&b, held(name, None));
            let rejected = block(b.store().reject(Reject { deny_alike: None, ..reject(&r) })).unwrap();
            b.pass(MINUTE);
            rejected
        })
        .into();
    b.indexed();
    let list = |filter: Filter| {
        let found = block(b.store().list(Filter { limit: 10, ..filter })).unwrap();
        found.iter().map(|r| r.id).collect::<Vec<_>>()
    };
    let newest_first: Vec<_> = ended.iter().rev().map(|r| r.id).collect();
    assert_eq!(list(Filter::default()), newest_first);
    assert_eq!(list(Filter { looks: Some(2), ..Filter::default() }), newest_first[..2]);
    let since = Some(ended[1].created);
    assert_eq!(list(Filter { since, looks: Some(2), ..Filter::default() }), newest_first[..2]);
    assert_eq!(list(Filter { since: Some(ended[2].created), ..Filter::default() }), newest_first[..1]);
}

#[test]
fn that_time_is_nearly_over_is_told_once_for_each_clock_also_after_a_kill() {
    let mut b = Bench::new();
    let hold = park(&b, held("f", None));
    let due = |b: &Bench| block(b.store().warn_due()).unwrap();
    let expires = hold.terms.as_ref().unwrap().expires;
    b.pass(expires * 4 / 5 - MINUTE);
    assert!(due(&b).is_empty());
    b.pass(MINUTE);
    let told = due(&b);
    assert_eq!(
        told.iter().map(|r| (r.id, r.version, r.state)).collect::<Vec<_>>(),
        [(hold.id, hold.version, State::Held)]
    );
    assert!(due(&b).is_empty());
    assert!(due(&b.killed()).is_empty(), "it is in the journal");
    b.reopen();
    assert!(due(&b).is_empty());
    let renewed = block(b.store().renew(super::held_up::renew(&told[0]))).unwrap();
    assert!(due(&b).is_empty(), "its clock began anew");
    b.pass(renewed.terms.as_ref().unwrap().expires * 4 / 5);
    assert_eq!(due(&b).len(), 1);
    b.pass(expires);
    assert!(due(&b).is_empty(), "its time is over");
}
