use super::*;
use crate::call::Tier;
use crate::store::fixtures::{MINUTE, START, record, terms};

fn note(by: Option<&str>) -> Note {
    Note { code: "x".into(), text: "x".into(), by: by.map(str::to_owned) }
}

fn approval(person: &str) -> Approval {
    Approval {
        person: person.into(),
        subject: person.into(),
        groups: vec![],
        at: START,
        channel: "api".into(),
        digest: Digest::of(b"digest"),
        justification: None,
    }
}

fn conclude(attempt: u32, state: State) -> Event {
    Event::Conclude { attempt, epoch: 1, state, answer: None, note: None }
}

/// One of each event; those of an attempt fit attempt 1 of epoch 1.
fn events() -> Vec<(&'static str, Event)> {
    vec![
        ("vote", Event::Vote { approval: approval("a"), last: false }),
        ("last vote", Event::Vote { approval: approval("a"), last: true }),
        ("renew", renew()),
        ("wait", Event::Wait(note(None))),
        ("reject", Event::Reject(note(None))),
        ("withdraw", Event::Withdraw(note(None))),
        ("revoke", Event::Revoke(note(None))),
        ("begin", Event::Begin { epoch: 1, charges: vec![], ruling: Ruling::of(&record(State::Approved, "f", None)) }),
        ("succeed", conclude(1, State::Succeeded)),
        ("fail", conclude(1, State::Failed)),
        ("not executed", conclude(1, State::NotExecuted)),
        ("unknown", conclude(1, State::Unknown)),
        ("died", Event::Died),
        ("reconcile", Event::Reconcile { outcome: State::NotExecuted, note: note(Some("second")) }),
        ("expire", Event::Expire),
    ]
}

fn renew() -> Event {
    let digest = Digest::of(b"moved");
    Event::Renew {
        terms: terms(Tier::Medium, &[], 1),
        digest,
        config_digest: digest,
        policy_digest: digest,
        note: note(None),
    }
}

fn in_state(state: State) -> CallRecord {
    let mut r = record(State::Held, "f", None);
    r.state = state;
    r.expires = Some(START.plus(MINUTE));
    r.window_closes = Some(START.plus(MINUTE));
    (r.attempt, r.epoch) = (1, 1);
    r.opinion =
        Some(Opinion { person: "first".into(), outcome: State::NotExecuted, reason: "looked".into(), at: START });
    r
}

#[test]
fn the_diagram_has_these_arrows_and_no_others() {
    use State::{Approved, Dispatching, Failed, Held, NotExecuted, Rejected, Revoked, Succeeded, Unknown, Withdrawn};
    let arrows: &[(State, &str, State)] = &[
        (Held, "vote", Held),
        (Held, "last vote", Approved),
        (Held, "renew", Held),
        (Held, "reject", Rejected),
        (Held, "withdraw", Withdrawn),
        (Held, "revoke", Revoked),
        (Approved, "renew", Held),
        (Approved, "wait", Approved),
        (Approved, "reject", Revoked),
        (Approved, "withdraw", Withdrawn),
        (Approved, "revoke", Revoked),
        (Approved, "begin", Dispatching),
        (Dispatching, "succeed", Succeeded),
        (Dispatching, "fail", Failed),
        (Dispatching, "not executed", NotExecuted),
        (Dispatching, "unknown", Unknown),
        (Dispatching, "died", Unknown),
        (Unknown, "succeed", Succeeded),
        (Unknown, "fail", Failed),
        (Unknown, "reconcile", NotExecuted),
    ];
    for state in State::ALL {
        for (name, event) in events() {
            let wanted = arrows.iter().find(|(s, n, _)| (*s, *n) == (state, name)).map(|(_, _, to)| *to);
            assert_eq!(allowed(&in_state(state), &event, START), wanted, "{state:?} {name}");
        }
    }
}

#[test]
fn once_its_time_is_over_only_the_expiry_is_left() {
    for state in [State::Held, State::Approved] {
        let over = START.plus(MINUTE);
        for (name, event) in events() {
            let wanted = (name == "expire").then_some(State::Expired);
            assert_eq!(allowed(&in_state(state), &event, over), wanted, "{state:?} {name}");
        }
    }
}

#[test]
fn the_fourth_renewal_is_stale_and_clears_votes_like_the_others() {
    let mut r = record(State::Held, "f", None);
    for n in 1..=3 {
        r = apply(&r, Event::Vote { approval: approval("a"), last: true }, START).unwrap();
        assert_eq!(r.state, State::Approved);
        r = apply(&r, renew(), START).unwrap();
        assert_eq!((r.state, r.renewals, r.approvals.len(), r.window_closes), (State::Held, n, 0, None));
    }
    assert_eq!(apply(&r, renew(), START).unwrap().state, State::Stale);
}

#[test]
fn another_attempt_or_epoch_changes_nothing() {
    let r = in_state(State::Dispatching);
    assert!(apply(&r, conclude(2, State::Succeeded), START).is_err());
    let other = Event::Conclude { attempt: 1, epoch: 2, state: State::Succeeded, answer: None, note: None };
    assert!(apply(&r, other, START).is_err());
}

#[test]
fn one_person_cannot_settle_an_unknown_call_alone() {
    let r = in_state(State::Unknown);
    for by in [None, Some("first")] {
        let event = Event::Reconcile { outcome: State::NotExecuted, note: note(by) };
        assert!(apply(&r, event, START).is_err());
    }
    let other = Event::Reconcile { outcome: State::Succeeded, note: note(Some("second")) };
    assert!(apply(&r, other, START).is_err());
}

/// A small generator, so that a failing seed can be tried again.
struct Lcg(u64);

impl Lcg {
    fn next(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

#[test]
fn random_interleavings_keep_the_invariants() {
    for seed in 0..3000 {
        let mut random = Lcg(seed);
        let mut r = record(State::Held, "f", None);
        let (mut now, mut begins, mut effects) = (START, 0, 0);
        for _ in 0..40 {
            now = now.plus(MINUTE * u32::try_from(random.next(6)).unwrap());
            let all = events();
            let event = all[random.next(all.len())].1.clone();
            let (was, begun) = (r.clone(), matches!(event, Event::Begin { .. }));
            let Ok(next) = apply(&r, event, now) else {
                assert_eq!(r, was);
                continue;
            };
            assert!(!was.state.is_final(), "seed {seed}: a final state changed");
            assert_eq!(next.version, was.version + 1);
            begins += u32::from(begun);
            effects += u32::from(next.state == State::Succeeded);
            if begun {
                assert!(was.window_closes.unwrap() > now, "seed {seed}: begun outside the window");
                assert!(!was.approvals.is_empty(), "seed {seed}: begun without approval");
            }
            if was.state == State::Unknown {
                assert!(matches!(next.state, State::Succeeded | State::Failed | State::NotExecuted));
            }
            r = next;
        }
        assert!(begins <= 1 && effects <= begins, "seed {seed}: a hold was spent twice");
    }
}
