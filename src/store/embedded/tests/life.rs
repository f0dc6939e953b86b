//! What the steps do, one rule per test.

use std::time::Duration;

use bytes::Bytes;

use crate::call::{ArtifactId, CallId, Digest, MAX_EVIDENCE, Tier};
use crate::store::fixtures::{MINUTE, START, principal, terms, vote};
use crate::store::{
    AuditNote, Balance, BeginError, Begun, CallRecord, Charge, Filter, HistoryQuestion, HoldError, LedgerKey,
    NewArtifact, Note, Park, ParkError, Reconcile, Reject, Renew, State, WithdrawnBy,
};

use super::{
    Bench, approve, balance, begin, beginning, block, charge, conclusion, declared, fresh, held, ledger, park, parking,
    run,
};

#[test]
fn a_hold_goes_all_the_way_and_its_answer_is_replayed() {
    let b = Bench::new();
    let r = park(&b, held("f", Some("k")));
    assert_eq!(block(b.store().request_body(&r)).unwrap(), "card=canary-4111");
    assert_eq!(block(b.store().arguments(&r)).unwrap()["card"], "canary-4111");
    assert_eq!(b.known(&r, Some("k")), "held held");
    let r = approve(&b, &r);
    assert_eq!((r.state, r.window_closes), (State::Approved, Some(START.plus(MINUTE * 15))));
    let (begun, r) = block(b.store().begin(beginning(r, vec![charge(10, 100)], true))).unwrap();
    assert_eq!(b.known(&r, Some("k")), "in flight");
    assert_eq!(balance(&b), Balance { used: 0, reserved: 10, extra: 0 });
    let r = block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap().as_ref().clone();
    assert_eq!(balance(&b), Balance { used: 10, reserved: 0, extra: 0 });
    assert_eq!(b.known(&r, Some("k")), "concluded succeeded");
    b.indexed();
    assert_eq!(b.store().inner.core.lock().unwrap().names(), 0);
    let again = block(b.store().get(r.id)).unwrap().unwrap();
    assert_eq!(again, r);
    assert_eq!(block(b.store().answer_body(&again)).unwrap().unwrap(), "canary-answer");
    let other = CallRecord { fingerprint: Digest::of(b"other"), ..r.clone() };
    assert_eq!(b.known(&other, Some("k")), "key reused");
    assert!(matches!(
        block(b.store().begin(beginning(CallRecord { id: CallId::new(), ..r }, vec![], false))),
        Err(BeginError::KeyTaken)
    ));
}

#[test]
fn a_hold_is_spent_once() {
    let b = Bench::new();
    let r = approve(&b, &park(&b, held("f", None)));
    let begins: Vec<_> = (0..2).map(|_| block(b.store().begin(beginning(r.clone(), vec![], true)))).collect();
    assert!(begins[0].is_ok());
    assert!(matches!(begins[1], Err(BeginError::NotApproved)));
}

#[test]
fn a_begin_without_room_changes_nothing_and_the_call_stays_approved() {
    let b = Bench::new();
    let r = approve(&b, &park(&b, held("f", None)));
    let other = LedgerKey { scope: "run".into(), ..ledger() };
    let charges = vec![Charge { ledger: other.clone(), amount: 1, limit: 5 }, charge(11, 10)];
    let refused = block(b.store().begin(beginning(r.clone(), charges, true)));
    assert!(matches!(refused, Err(BeginError::Budget(c)) if c.amount == 11));
    assert_eq!(b.store().balances(&[other, ledger()]).unwrap(), vec![Balance::default(); 2]);
    for amount in [-1, i64::MAX] {
        let charges = vec![charge(1, i64::MAX), charge(amount, i64::MAX)];
        assert!(matches!(block(b.store().begin(beginning(r.clone(), charges, true))), Err(BeginError::Budget(_))));
    }
    let note = Note { code: "budget_exhausted".into(), text: "org".into(), by: None };
    let waits = block(b.store().wait_reason(r.id, note.clone())).unwrap();
    assert_eq!((waits.state, waits.version), (State::Approved, r.version + 1));
    assert_eq!(block(b.store().wait_reason(r.id, note.clone())).unwrap().version, waits.version);
    let other_words = Note { text: "org, 3 minutes".into(), ..note };
    assert_eq!(block(b.store().wait_reason(r.id, other_words)).unwrap().version, waits.version);
    let old = block(b.store().begin(beginning(r, vec![], true)));
    assert!(matches!(old, Err(BeginError::NotApproved)), "a version that nobody looked at again");
}

#[test]
fn outcomes_settle_what_was_set_aside() {
    let cases = [
        (State::Succeeded, Balance { used: 10, reserved: 0, extra: 0 }),
        (State::Failed, Balance { used: 10, reserved: 0, extra: 0 }),
        (State::NotExecuted, Balance::default()),
        (State::Unknown, Balance { used: 0, reserved: 10, extra: 0 }),
    ];
    for (state, wanted) in cases {
        let b = Bench::new();
        let r = run(&b, fresh("f", Some("k")), state);
        assert_eq!(balance(&b), wanted, "{state:?}");
        let known = b.known(&r, Some("k"));
        let wanted_known = match state {
            State::NotExecuted => "new".to_owned(),
            State::Unknown => "unknown".to_owned(),
            state => format!("concluded {}", state.as_str()),
        };
        assert_eq!(known, wanted_known);
        b.indexed();
        assert_eq!(b.known(&r, Some("k")), wanted_known);
    }
}

#[test]
fn a_late_answer_settles_an_unknown_call_but_a_stale_attempt_never() {
    let b = Bench::new();
    let (begun, r) = begin(&b, fresh("f", None));
    let again = Begun { ..Begun { id: begun.id, attempt: begun.attempt, epoch: begun.epoch } };
    let stale = Begun { id: begun.id, attempt: begun.attempt + 1, epoch: begun.epoch };
    block(b.store().conclude(begun, conclusion(State::Unknown))).unwrap();
    assert_eq!(b.store().unknown_like(&r.principal, &r.operation, &r.fingerprint).unwrap(), Some(r.id));
    assert!(block(b.store().conclude(stale, conclusion(State::Failed))).is_err());
    let r = block(b.store().conclude(again, conclusion(State::Succeeded))).unwrap().as_ref().clone();
    assert_eq!((r.state, balance(&b)), (State::Succeeded, Balance { used: 10, reserved: 0, extra: 0 }));
}

fn said(r: &CallRecord, person: &str, outcome: State) -> Reconcile {
    Reconcile {
        id: r.id,
        version: None,
        person: person.into(),
        aliases: vec![],
        subject: format!("idp|{person}"),
        outcome,
        reason: "ledger shows it".into(),
    }
}

#[test]
fn a_late_answer_settles_an_unknown_call_before_and_after_quiescence() {
    for pass in [MINUTE, MINUTE * 60] {
        let b = Bench::new();
        let (begun, r) = begin(&b, fresh("f", None));
        assert_eq!(r.quiet_after, Some(START.plus(MINUTE * 10)));
        let late = Begun { id: begun.id, attempt: begun.attempt, epoch: begun.epoch };
        block(b.store().conclude(begun, conclusion(State::Unknown))).unwrap();
        b.pass(pass);
        assert_eq!(block(b.store().conclude(late, conclusion(State::Succeeded))).unwrap().state, State::Succeeded);
    }
}

#[test]
fn a_read_settles_an_unknown_call_and_not_found_only_once_it_is_quiet() {
    let note = |code: &str| Note { code: code.into(), text: "GET /refunds".into(), by: None };
    let b = Bench::new();
    let r = run(&b, fresh("f", Some("k")), State::Unknown);
    let says = |found, asked| block(b.store().read_says(r.id, found, asked, note("read"))).unwrap();
    assert_eq!(says(false, START), None);
    assert_eq!(says(false, START.plus(MINUTE * 60)), None, "the store's own clock counts, too");
    b.pass(MINUTE * 10);
    assert_eq!(says(false, START.plus(MINUTE * 9)), None, "a read that was begun too early");
    let settled = says(false, START.plus(MINUTE * 10)).unwrap();
    assert_eq!((settled.state, settled.note.unwrap().code.as_str()), (State::NotExecuted, "read"));
    assert_eq!((balance(&b), b.known(&r, Some("k")).as_str()), (Balance::default(), "new"));
    assert_eq!(says(true, START.plus(MINUTE * 10)), None, "unknown is left once");

    let found = run(&b, fresh("g", Some("g")), State::Unknown);
    let settled = block(b.store().read_says(found.id, true, START, note("read"))).unwrap().unwrap();
    assert_eq!((settled.state, balance(&b)), (State::Succeeded, Balance { used: 10, reserved: 0, extra: 0 }));
}

#[test]
fn the_next_attempt_of_a_declared_call_keeps_what_is_set_aside_and_old_attempts_end_nothing() {
    let b = Bench::new();
    let (begun, r) = begin(&b, fresh("plain", None));
    assert!(block(b.store().again(&begun)).unwrap().is_none(), "not declared");
    block(b.store().conclude(begun, conclusion(State::NotExecuted))).unwrap();
    let (first, _) = begin(&b, declared("f", Some("k")));
    b.pass(MINUTE);
    let (second, r2) = block(b.store().again(&first)).unwrap().unwrap();
    assert_eq!((r2.state, r2.attempt, r2.version), (State::Dispatching, 2, 2));
    assert_eq!(r2.quiet_after, Some(START.plus(MINUTE * 11)), "another request is on the wire");
    assert_eq!(balance(&b), Balance { used: 0, reserved: 10, extra: 0 });
    assert!(block(b.store().again(&first)).unwrap().is_none(), "two that follow one attempt");
    assert!(block(b.store().conclude(first, conclusion(State::Succeeded))).is_err(), "a stale attempt");
    let copy = |x: &Begun| Begun { id: x.id, attempt: x.attempt, epoch: x.epoch };
    assert!(
        block(b.store().conclude(copy(&second), conclusion(State::NotExecuted))).is_err(),
        "the first may have had its effect"
    );
    let (third, _) = block(b.store().again(&second)).unwrap().unwrap();
    assert!(block(b.store().again(&third)).unwrap().is_none(), "three in all");
    block(b.store().conclude(third, conclusion(State::Succeeded))).unwrap();
    assert_eq!(balance(&b), Balance { used: 10, reserved: 0, extra: 0 });
    drop(r);
    let (late, _) = begin(&b, declared("late", None));
    b.pass(MINUTE * 10);
    assert!(block(b.store().again(&late)).unwrap().is_none(), "after quiescence others may judge it");
}

#[test]
fn two_people_settle_an_unknown_call() {
    let b = Bench::new();
    let r = run(&b, fresh("f", Some("k")), State::Unknown);
    b.store().collected(r.id).unwrap();
    assert_eq!(block(b.store().get(r.id)).unwrap().unwrap().collected, None, "no outcome was handed out");
    let say = |person: &str, outcome| block(b.store().reconcile(said(&r, person, outcome)));
    assert!(matches!(say("eve", State::NotExecuted), Err(HoldError::TooEarly(_))), "it may still be on the wire");
    assert_eq!(say("olga", State::Succeeded).unwrap_err(), HoldError::SelfReview, "who runs the agent");
    assert_eq!(say("anna", State::Succeeded).unwrap_err(), HoldError::SelfReview, "who is acted for");
    assert_eq!(say("eve", State::Succeeded).unwrap().state, State::Unknown);
    assert_eq!(say("eve", State::Succeeded).unwrap_err(), HoldError::AlreadyCounted);
    b.pass(MINUTE * 10 - Duration::from_millis(1));
    assert!(matches!(say("max", State::NotExecuted), Err(HoldError::TooEarly(_))));
    b.pass(Duration::from_millis(1));
    assert_eq!(say("max", State::NotExecuted).unwrap().state, State::Unknown);
    let linked = Reconcile { aliases: vec!["MAX".into()], ..said(&r, "maxine", State::NotExecuted) };
    assert_eq!(block(b.store().reconcile(linked)).unwrap_err(), HoldError::AlreadyCounted, "one person, two accounts");
    let old = Reconcile { version: Some(1), ..said(&r, "eve", State::NotExecuted) };
    assert!(matches!(block(b.store().reconcile(old)), Err(HoldError::VersionChanged(_))));
    assert_eq!(say("eve", State::NotExecuted).unwrap().state, State::NotExecuted);
    assert!(matches!(say("max", State::Succeeded), Err(HoldError::AlreadyDecided(_))));
    assert_eq!(balance(&b), Balance::default());
}

#[test]
fn a_hold_is_collected_and_not_forgotten() {
    let b = Bench::new();
    let r = park(&b, CallRecord { keep: MINUTE * 2, ..held("f", None) });
    assert_eq!(b.known(&r, None), "held held");
    assert_eq!(b.known(&r, Some("its own key")), "new");
    let approved = approve(&b, &r);
    let (begun, _) = block(b.store().begin(beginning(approved, vec![], true))).unwrap();
    let r = block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap().as_ref().clone();
    b.pass(MINUTE * 60 * 5);
    assert_eq!(b.known(&r, None), "concluded succeeded");
    b.store().collected(r.id).unwrap();
    b.pass(MINUTE * 2 - Duration::from_millis(1));
    assert_eq!(b.known(&r, None), "concluded succeeded");
    b.pass(Duration::from_millis(1));
    assert_eq!(b.known(&r, None), "new");
}

#[test]
fn a_hold_that_was_not_executed_may_be_asked_for_again() {
    let b = Bench::new();
    let r = approve(&b, &park(&b, held("f", Some("k"))));
    let (begun, _) = block(b.store().begin(beginning(r, vec![], true))).unwrap();
    let r = block(b.store().conclude(begun, conclusion(State::NotExecuted))).unwrap().as_ref().clone();
    for _ in 0..2 {
        assert_eq!((b.known(&r, None), b.known(&r, Some("k"))), ("new".to_owned(), "new".to_owned()));
        b.indexed();
    }
    assert_eq!(b.store().inner.core.lock().unwrap().names(), 0);
}

#[test]
fn a_denial_is_told_and_repeated_for_two_minutes() {
    let b = Bench::new();
    let r = park(&b, held("f", Some("k")));
    let reject = Reject {
        id: r.id,
        version: None,
        digest: r.digest,
        person: "eve".into(),
        reason_code: "wrong_amount".into(),
        message: None,
        deny_alike: None,
    };
    assert_eq!(block(b.store().reject(reject)).unwrap().state, State::Rejected);
    b.pass(MINUTE * 30);
    assert_eq!(b.known(&r, Some("k")), "over rejected");
    assert_eq!(b.known(&r, None), "over rejected");
    b.store().collected(r.id).unwrap();
    assert_eq!(b.known(&r, Some("k")), "over rejected");
    b.pass(MINUTE * 2);
    assert_eq!(b.known(&r, Some("k")), "new");
}

#[test]
fn derived_keys_live_for_their_window_and_given_ones_from_the_conclusion() {
    let b = Bench::new();
    let derived = CallRecord { key_derived: true, keep: MINUTE * 2, ..fresh("d", Some("derived")) };
    let given = CallRecord { keep: MINUTE * 2, ..fresh("g", Some("given")) };
    let (one, d) = begin(&b, derived);
    let (two, g) = begin(&b, given);
    b.pass(MINUTE);
    block(b.store().conclude(one, conclusion(State::Succeeded))).unwrap();
    block(b.store().conclude(two, conclusion(State::Succeeded))).unwrap();
    b.pass(MINUTE);
    assert_eq!(b.known(&d, Some("derived")), "new");
    assert_eq!(b.known(&g, Some("given")), "concluded succeeded");
    b.pass(MINUTE);
    assert_eq!(b.known(&g, Some("given")), "new");
}

#[test]
fn expiry_needs_no_sweeper_and_a_clock_that_steps_back_revives_nothing() {
    let mut b = Bench::new();
    let (r, s) = (park(&b, held("f", None)), park(&b, held("g", None)));
    b.clock.set_wall(START.plus(MINUTE * 60));
    assert_eq!(b.known(&r, None), "over expired");
    b.clock.set_wall(START);
    let told = block(b.killed().store().get(r.id)).unwrap().unwrap();
    assert_eq!(told.state, State::Expired, "what was told is in the record");
    assert!(matches!(
        block(b.store().vote(vote(&r, "eve", &["ops"]))),
        Err(HoldError::Expired(_) | HoldError::AlreadyDecided(_))
    ));
    assert!(matches!(block(b.store().vote(vote(&s, "eve", &["ops"]))), Err(HoldError::Expired(_))));
    assert!(block(b.store().expire_due(START)).unwrap().is_empty());
    b.reopen();
    assert_eq!(block(b.store().get(s.id)).unwrap().unwrap().state, State::Expired);
}

#[test]
fn expire_due_records_what_is_over() {
    let b = Bench::new();
    let r = approve(&b, &park(&b, held("f", None)));
    assert!(block(b.store().expire_due(START.plus(MINUTE * 14))).unwrap().is_empty());
    assert_eq!(block(b.store().expire_due(START.plus(MINUTE * 15))).unwrap(), [r.id]);
    assert_eq!(b.store().take_expired(), [r.id]);
    let r = block(b.store().get(r.id)).unwrap().unwrap();
    assert_eq!((r.state, r.note.unwrap().code.as_str()), (State::Expired, "hold_expired"));
    let late = approve(&b, &park(&b, CallRecord { fingerprint: Digest::of(b"2"), ..held("g", None) }));
    b.pass(MINUTE * 60);
    for _ in 0..2 {
        let begun = block(b.store().begin(beginning(late.clone(), vec![], true)));
        assert!(matches!(begun, Err(BeginError::WindowClosed)));
    }
    assert_eq!(b.store().take_expired(), [late.id], "a step that finds its window closed counts as well, once");
    assert!(b.store().take_expired().is_empty());
}

#[test]
fn caps_count_what_waits() {
    let b = Bench::new();
    let put = |f: &str, per_agent, total| {
        let park = Park { max_per_agent: per_agent, max_total: total, ..parking(held(f, None)) };
        block(b.store().park(park))
    };
    let first = put("1", 1, 9).unwrap();
    assert_eq!(put("2", 1, 9).unwrap_err(), ParkError::TooManyAgent);
    assert_eq!(put("2", 9, 1).unwrap_err(), ParkError::TooManyTotal);
    assert_eq!(put("1", 9, 9).unwrap_err(), ParkError::KeyTaken(first.id));
    block(b.store().withdraw(first.id, WithdrawnBy::Agent(principal().key()), "no need")).unwrap();
    put("2", 1, 9).unwrap();
}

#[test]
fn another_agent_cannot_withdraw() {
    let b = Bench::new();
    let r = park(&b, held("f", None));
    let mut other = principal();
    other.agent = "mallory".into();
    let by = WithdrawnBy::Agent(other.key());
    assert_eq!(block(b.store().withdraw(r.id, by, "x")).unwrap_err(), HoldError::NotFound);
    assert_eq!(
        block(b.store().withdraw(CallId::new(), WithdrawnBy::Person("p".into()), "x")).unwrap_err(),
        HoldError::NotFound
    );
}

#[test]
fn a_renewed_hold_needs_new_votes_and_rejecting_an_approved_one_revokes_it() {
    let b = Bench::new();
    let r = approve(&b, &park(&b, held("f", None)));
    let moved = Renew {
        id: r.id,
        version: Some(r.version),
        terms: terms(Tier::High, &[(&["ops"], true)], 2),
        digest: Digest::of(b"moved"),
        preview: None,
        config_digest: r.config_digest,
        policy_digest: r.policy_digest,
        what_changed: Note { code: "changed".into(), text: "limit".into(), by: None },
    };
    let r2 = block(b.store().renew(moved.clone())).unwrap();
    assert_eq!((r2.state, r2.approvals.len(), r2.renewals), (State::Held, 0, 1));
    assert!(matches!(block(b.store().renew(moved)), Err(HoldError::VersionChanged(_))));
    assert!(matches!(block(b.store().vote(vote(&r, "eve", &["ops"]))), Err(HoldError::DigestChanged(_))));
    assert_eq!(approve(&b, &r2).state, State::Held);
    let r3 = block(b.store().vote(vote(&r2, "max", &["ops"]))).unwrap();
    assert_eq!((r3.state, r3.approvals.len()), (State::Approved, 2));
    let reject = Reject {
        id: r.id,
        version: None,
        digest: r3.digest,
        person: "eve".into(),
        reason_code: "other".into(),
        message: None,
        deny_alike: None,
    };
    assert_eq!(block(b.store().reject(reject)).unwrap().state, State::Revoked);
}

#[test]
fn evidence_is_attached_by_its_owner_and_lifts_the_demand() {
    let b = Bench::new();
    let mut wants = held("f", None);
    wants.terms.as_mut().unwrap().needs.evidence = vec!["ticket".into()];
    let r = park(&b, wants);
    let put = |principal_key| {
        let new = NewArtifact {
            id: ArtifactId::new(),
            kind: "ticket".into(),
            title: "T-1".into(),
            by: "bot".into(),
            principal_key,
            content: Bytes::from_static(b"canary-ticket"),
        };
        block(b.store().put_artifact(new)).unwrap()
    };
    assert!(matches!(block(b.store().vote(vote(&r, "eve", &["ops"]))), Err(HoldError::EvidenceMissing(_))));
    let mut other = principal();
    other.agent = "mallory".into();
    let foreign = put(other.key());
    assert_eq!(block(b.store().attach_evidence(r.id, foreign)).unwrap_err(), HoldError::NotFound);
    let own = put(r.principal.key());
    let r = block(b.store().attach_evidence(r.id, own)).unwrap();
    assert_eq!(block(b.store().attach_evidence(r.id, own)).unwrap().version, r.version);
    assert_eq!(block(b.store().artifact(own)).unwrap().unwrap().1, "canary-ticket");
    for _ in 1..MAX_EVIDENCE {
        block(b.store().attach_evidence(r.id, put(r.principal.key()))).unwrap();
    }
    let more = block(b.store().attach_evidence(r.id, put(r.principal.key())));
    assert_eq!(more.unwrap_err(), HoldError::Full, "whoever counted before");
    let r = block(b.store().attach_evidence(r.id, own)).unwrap();
    assert_eq!(approve(&b, &r).state, State::Approved);
}

#[test]
fn history_is_counted_from_the_records() {
    let b = Bench::new();
    let p = principal();
    let target = Digest::of(b"customer 7");
    let ask = |b: &Bench| {
        let q = HistoryQuestion {
            principal: &p,
            run: "r1",
            operation: "crm.refund",
            target: Some(target),
            currency: Some("EUR"),
        };
        b.store().history(&q).unwrap()
    };
    assert!(ask(&b).first_time_target);
    let paid = CallRecord { money: Some((500, "EUR".into())), target: Some(target), ..fresh("f", None) };
    run(&b, paid.clone(), State::Succeeded);
    let failed = CallRecord { id: CallId::new(), fingerprint: Digest::of(b"g"), ..paid };
    run(&b, failed, State::Failed);
    let note = |kind: &str, code: Option<&str>| AuditNote {
        kind: kind.into(),
        call: None,
        principal: None,
        agent: Some((p.org.clone(), p.agent.clone())),
        run: Some("r1".into()),
        operation: None,
        code: code.map(str::to_owned),
        more: Default::default(),
    };
    block(b.store().append(note("call.refused", Some("forbidden")), false)).unwrap();
    block(b.store().append(note("call.read", None), false)).unwrap();
    let check = |b: &Bench| {
        let h = ask(b);
        assert_eq!((h.calls_this_run, h.calls_last_hour, h.denied_last_hour), (3, 4, 1));
        assert_eq!((h.sum_minor_today, h.first_time_target), (500, false));
    };
    check(&b);
    block(b.store().append(note("other", None), true)).unwrap();
    b.indexed();
    check(&b);
    check(&b.killed());
    b.pass(MINUTE * 60);
    let h = ask(&b);
    assert_eq!((h.calls_this_run, h.calls_last_hour, h.denied_last_hour), (3, 0, 0));
    b.pass(MINUTE * 60 * 24);
    assert_eq!(ask(&b).sum_minor_today, 0);
    run(&b, CallRecord { money: Some((7, "EUR".into())), ..fresh("h", None) }, State::Succeeded);
    assert_eq!(ask(&b).sum_minor_today, 7);
}

#[test]
fn lists_are_newest_first_over_memory_and_index() {
    let b = Bench::new();
    let ids: Vec<CallId> = (0..6)
        .map(|n| {
            let f = format!("f{n}");
            if n % 2 == 0 { run(&b, fresh(&f, None), State::Succeeded).id } else { park(&b, held(&f, None)).id }
        })
        .collect();
    b.indexed();
    let list = |filter| block(b.store().list(filter)).unwrap().into_iter().map(|r| r.id).collect::<Vec<_>>();
    let all: Vec<CallId> = ids.iter().rev().copied().collect();
    assert_eq!(list(Filter { limit: 9, ..Filter::default() }), all);
    assert_eq!(list(Filter { limit: 2, before: Some(ids[4]), ..Filter::default() }), [ids[3], ids[2]]);
    assert_eq!(list(Filter { limit: 9, holds_only: true, ..Filter::default() }), [ids[5], ids[3], ids[1]]);
    let succeeded = Filter { limit: 9, states: vec![State::Succeeded], ..Filter::default() };
    assert_eq!(list(succeeded), [ids[4], ids[2], ids[0]]);
    assert!(list(Filter { limit: 9, agent: Some("other".into()), ..Filter::default() }).is_empty());
    let text = ids[1].hold().to_string().to_lowercase();
    assert_eq!(b.store().find_by_suffix_or_code(text.split_at(text.len() - 6).1).unwrap(), [ids[1]]);
    let code = crate::call::short_code(&Digest::of(b"digest"));
    assert_eq!(b.store().find_by_suffix_or_code(&code).unwrap().len(), 3);
    assert!(b.store().find_by_suffix_or_code("").unwrap().is_empty());
    let counts = b.store().open_calls().unwrap();
    assert_eq!((counts.len(), counts[0].state, counts[0].calls), (1, State::Held, 3));
}

#[test]
fn a_late_word_about_an_old_call_does_not_take_its_key_from_the_new_one() {
    for (restart, settled) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut b = Bench::new();
        let again = |r: &CallRecord| CallRecord { id: CallId::new(), ..r.clone() };
        let asked = CallRecord { key_derived: true, keep: MINUTE * 2, ..fresh("f", Some("k")) };
        // The first one ran, or was held and expired without anybody noticing.
        let old = if settled {
            let hold = CallRecord { keep: MINUTE * 2, ..held("f", Some("k")) };
            park(&b, hold)
        } else {
            run(&b, asked.clone(), State::Succeeded)
        };
        b.pass(MINUTE * 60 * 26);
        b.indexed();
        let asked = if settled { CallRecord { key_derived: false, ..asked } } else { asked };
        let (_, new) = begin(&b, again(&asked));
        b.store().collected(old.id).unwrap();
        block(b.store().get(old.id)).unwrap();
        if restart {
            b.indexed();
            b.reopen();
        }
        let wanted = if restart { "unknown" } else { "in flight" };
        assert_eq!(b.known(&new, Some("k")), wanted, "settled late: {settled}");
        b.indexed();
        assert_eq!(b.known(&new, Some("k")), wanted, "settled late: {settled}");
        let third = block(b.store().begin(beginning(again(&asked), vec![], false)));
        assert!(matches!(third, Err(BeginError::KeyTaken)), "{third:?}");
    }
}
