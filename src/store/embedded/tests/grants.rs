//! What a grant lets pass is counted exactly, over races, kills and time; whatever ends it, ends it for good.

use std::collections::BTreeMap;

use serde_json::json;

use crate::call::{CallId, GrantId, GrantOver};
use crate::clock::Clock;
use crate::store::fixtures::{MINUTE, grant, vote};
use crate::store::{Begin, BeginError, Begun, CallRecord, Grant, GrantUse, HoldError, Reject, State, UndoOf};

use super::super::{Options, Store};
use super::held_up::renew;
use super::{Bench, approve, begin, beginning, block, conclusion, fresh, held, park};

/// A call of this amount that passes by a grant.
fn by(grant: &Grant, name: &str, amount: i64) -> Begin {
    let arguments = json!({"amount": amount, "card": "[redacted]"});
    let charges = grant.takes(&arguments).expect("it lets this pass");
    let record = CallRecord { grant: Some(grant.id), arguments: arguments.into(), ..fresh(name, None) };
    Begin { charges, ..beginning(record, Vec::new(), false) }
}

fn given(b: &Bench, most: i64, uses: u32, sum: i64) -> Grant {
    let hold = approve(b, &park(b, held(&CallId::new().to_string(), None)));
    let grant =
        Grant { created: hold.updated, expires: hold.updated.plus(MINUTE * 60), ..grant(&hold, most, uses, sum) };
    block(b.store().give_grant(grant)).unwrap().as_ref().clone()
}

fn seen(store: &Store, of: &Grant) -> GrantUse {
    block(store.grants()).unwrap().into_iter().find(|g| g.grant.id == of.id).expect("a grant is gone")
}

fn ended(b: &Bench, of: &Grant) -> Option<&'static str> {
    seen(b.store(), of).over_at(b.clock.now()).map(GrantOver::as_str)
}

#[test]
fn it_comes_only_from_a_call_that_people_approved_and_from_others_than_who_asked() {
    let b = Bench::new();
    let hold = park(&b, held("f", None));
    let asked = grant(&hold, 9, 2, 20);
    assert_eq!(block(b.store().give_grant(asked.clone())).unwrap_err(), HoldError::NotApproved);
    let approved = approve(&b, &hold);
    for own in ["olga", "anna", "ANNA@acme.example"] {
        let own = Grant { by: own.into(), ..asked.clone() };
        assert_eq!(block(b.store().give_grant(own)).unwrap_err(), HoldError::SelfReview);
    }
    block(b.store().give_grant(asked.clone())).unwrap();
    assert_eq!(seen(b.store(), &asked).used, 0);
    let twice = block(b.store().give_grant(Grant { id: GrantId::new(), ..asked.clone() }));
    assert_eq!(twice.unwrap_err(), HoldError::AlreadyGranted(asked.id));
    // A call that ran by itself was approved by nobody.
    let (_, alone) = begin(&b, fresh("g", None));
    assert_eq!(block(b.store().give_grant(grant(&alone, 9, 2, 20))).unwrap_err(), HoldError::NotApproved);
    assert_eq!(approved.state, State::Approved);
}

#[test]
fn the_last_vote_gives_it_and_a_vote_that_is_not_the_last_gives_nothing() {
    let b = Bench::new();
    let mut two = held("f", None);
    two.terms = Some(crate::store::fixtures::terms(crate::call::Tier::Medium, &[(&["ops", "lead"], true)], 1));
    let hold = park(&b, two);
    let early = b.store().vote_and_grant(vote(&hold, "eve", &["ops"]), grant(&hold, 9, 2, 20));
    assert_eq!(block(early).unwrap_err(), HoldError::NotApproved);
    let after = block(b.store().get(hold.id)).unwrap().unwrap();
    assert!(after.approvals.is_empty() && block(b.store().grants()).unwrap().is_empty());
    block(b.store().vote(vote(&hold, "max", &["lead"]))).unwrap();
    let done = b.store().vote_and_grant(vote(&hold, "eve", &["ops"]), grant(&hold, 9, 2, 20));
    let (record, grant) = block(done).unwrap();
    assert_eq!((record.state, seen(b.store(), &grant).used), (State::Approved, 0));
}

#[test]
fn it_ends_with_the_votes_that_it_was_given_with() {
    let b = Bench::new();
    let hold = park(&b, held("f", None));
    let give = |hold: &CallRecord| {
        block(b.store().vote_and_grant(vote(hold, "eve", &["ops"]), grant(hold, 9, 2, 20))).unwrap()
    };
    let (approved, first) = give(&hold);
    let moved = block(b.store().renew(renew(&approved))).unwrap();
    assert_eq!((moved.state, ended(&b, &first)), (State::Held, Some("voided")));
    assert_eq!(block(b.store().begin(by(&first, "g", 1))).unwrap_err(), BeginError::GrantOver);
    let (_, second) = give(&moved);
    assert_eq!(ended(&b, &second), None);
    let b = b.killed();
    assert_eq!((ended(&b, &first), ended(&b, &second)), (Some("voided"), None), "after a kill");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[expect(clippy::disallowed_methods, reason = "tests race plain tasks")]
async fn not_one_use_too_many_under_many_tasks() {
    for (uses, sum, wanted) in [(7, 10_000, 7), (1_000, 20, 6), (1, 10_000, 1)] {
        let b = Bench::new();
        let grant = tokio::task::block_in_place(|| given(&b, 9, uses, sum));
        let tasks: Vec<_> = (0..64)
            .map(|n| {
                let (store, begin) = (b.store().clone(), by(&grant, &format!("f{n}"), 3));
                tokio::spawn(async move { store.begin(begin).await.map(drop) })
            })
            .collect();
        let mut passed = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(()) => passed += 1,
                Err(error) => assert_eq!(error, BeginError::GrantOver),
            }
        }
        assert_eq!(passed, wanted, "uses {uses}, sum {sum}");
    }
}

#[test]
fn a_begin_that_does_not_count_its_use_or_is_no_call_of_that_kind_is_none() {
    let b = Bench::new();
    let g = given(&b, 9, 5, 20);
    let refused = |begin: Begin| block(b.store().begin(begin)).unwrap_err();
    assert_eq!(refused(Begin { charges: Vec::new(), ..by(&g, "f", 3) }), BeginError::GrantOver);
    let mut other = by(&g, "f", 3);
    other.record.operation = "crm.delete".into();
    assert_eq!(refused(other), BeginError::GrantOver);
    let mut other = by(&g, "f", 3);
    other.record.principal = crate::call::Principal { acting_for: None, ..(*other.record.principal).clone() }.into();
    assert_eq!(refused(other), BeginError::GrantOver);
    // Who gave it has become the one who runs the agent.
    let mut own = by(&g, "f", 3);
    own.record.principal =
        crate::call::Principal { operator: Some("Eve".into()), ..(*own.record.principal).clone() }.into();
    assert_eq!(refused(own), BeginError::GrantOver);
    let (begun, _) = block(b.store().begin(by(&g, "f", 3))).unwrap();
    block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
}

#[test]
fn a_rejection_or_an_undo_of_a_call_like_those_ends_it_for_good() {
    let b = Bench::new();
    let first = given(&b, 9, 5, 20);
    let elsewhere = park(&b, CallRecord { operation: "crm.other".into(), ..held("x", None) });
    let reject = |r: &CallRecord| Reject {
        id: r.id,
        version: None,
        digest: r.digest,
        person: "max".into(),
        reason_code: "unsafe".into(),
        message: None,
        deny_alike: None,
    };
    block(b.store().reject(reject(&elsewhere))).unwrap();
    assert_eq!(ended(&b, &first), None, "another operation's rejection");
    let alike = park(&b, held("alike", None));
    block(b.store().reject(reject(&alike))).unwrap();
    assert_eq!(ended(&b, &first), Some("rejected"));
    assert_eq!(block(b.store().begin(by(&first, "f", 1))).unwrap_err(), BeginError::GrantOver);

    let second = given(&b, 9, 5, 20);
    let (begun, used) = block(b.store().begin(by(&second, "g", 1))).unwrap();
    block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
    let undoes = UndoOf { call: used.id, person: "max".into(), aliases: vec![], reason: "wrong".into() };
    park(&b, CallRecord { undoes: Some(Box::new(undoes)), operation: "crm.cancel".into(), ..held("undo", None) });
    assert_eq!(ended(&b, &second), Some("undone"));
    let b = b.killed();
    assert_eq!((ended(&b, &first), ended(&b, &second)), (Some("rejected"), Some("undone")), "after a kill");
}

/// What a walk knows of one grant.
#[derive(Debug, Default)]
struct Known {
    /// Amounts of calls that ran, may have run, or are running.
    taken: BTreeMap<CallId, i64>,
    over: bool,
}

fn dice(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// Begins, ends, kills, new segments, time: the store says of each begin what the model says, and never lets one pass
/// too many.
fn walk(seed: u64) {
    const USES: u32 = 6;
    const SUM: i64 = 25;
    let mut state = seed;
    let options = Options { segment_bytes: 12_000, preallocate: 4096, ..Options::default() };
    let mut b = Bench::with(options);
    let grant = given(&b, 9, USES, SUM);
    let mut known = Known::default();
    let mut open: Vec<Begun> = Vec::new();
    for step in 0..60 {
        match dice(&mut state, 12) {
            0..=5 => {
                let amount = i64::try_from(dice(&mut state, 10)).unwrap();
                let fits = known.taken.len() < USES as usize && known.taken.values().sum::<i64>() + amount <= SUM;
                let wanted = fits && !known.over && b.clock.now() < grant.expires;
                let begun = block(b.store().begin(by(&grant, &format!("{seed}/{step}"), amount)));
                assert_eq!(begun.is_ok(), wanted, "seed {seed} step {step}: {begun:?} {known:?}");
                if let Ok((begun, record)) = begun {
                    known.taken.insert(record.id, amount);
                    open.push(begun);
                }
            }
            6..=8 => {
                let Some(begun) = open.pop() else { continue };
                let to = [State::Succeeded, State::Failed, State::NotExecuted, State::Unknown];
                let to = to[usize::try_from(dice(&mut state, 4)).unwrap()];
                let id = begun.id;
                block(b.store().conclude(begun, conclusion(to))).unwrap();
                if to == State::NotExecuted {
                    known.taken.remove(&id);
                }
            }
            // What a dead process was sending may have happened.
            9 => {
                b = b.killed();
                open.clear();
            }
            10 => b.pass(MINUTE * 4),
            _ if dice(&mut state, 8) == 0 => {
                block(b.store().end_grants(Some("max"), |_| Some(GrantOver::Revoked))).unwrap();
                known.over = true;
            }
            _ => {}
        }
        let now = seen(b.store(), &grant);
        let sum = known.taken.values().sum::<i64>();
        assert_eq!((now.used, now.sums["/amount"]), (i64::try_from(known.taken.len()).unwrap(), sum), "seed {seed}");
        assert!(now.used <= i64::from(USES) && sum <= SUM);
    }
}

#[test]
fn random_walks_over_kills_never_let_one_pass_too_many() {
    for seed in 0..12 {
        walk(seed);
    }
}

#[test]
fn past_ones_are_forgotten_with_their_counts_and_live_ones_never() {
    let mut b = Bench::with(Options { segment_bytes: 8_000, preallocate: 4096, ..Options::default() });
    let hold = approve(&b, &park(&b, held("origin", None)));
    let long = Grant { expires: hold.updated.plus(MINUTE * 60 * 24 * 30), ..grant(&hold, 9, 2, 20) };
    let long = block(b.store().give_grant(long)).unwrap().as_ref().clone();
    let short = given(&b, 9, 1, 20);
    for (g, name) in [(&long, "a"), (&short, "b")] {
        let (begun, _) = block(b.store().begin(by(g, name, 1))).unwrap();
        block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
    }
    let fill = |b: &Bench, name: &str| {
        for n in 0..40 {
            let one = beginning(fresh(&format!("{name}{n}"), None), Vec::new(), false);
            let (begun, _) = block(b.store().begin(one)).unwrap();
            block(b.store().conclude(begun, conclusion(State::Succeeded))).unwrap();
        }
    };
    b.pass(MINUTE * 60 * 24 * 29);
    fill(&b, "x");
    b.reopen();
    assert_eq!(seen(b.store(), &long).used, 1, "idle for weeks, and counted anew");
    b.pass(MINUTE * 60 * 24 * 30);
    fill(&b, "y");
    b.reopen();
    let left: Vec<_> = block(b.store().grants()).unwrap().into_iter().map(|g| g.grant.id).collect();
    assert_eq!(left, [long.id]);
}
