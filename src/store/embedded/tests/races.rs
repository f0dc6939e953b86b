//! Many at once, and random walks.

use crate::call::{CallId, Tier};
use crate::store::fixtures::{MINUTE, terms, vote};
use crate::store::{Balance, Begun, CallRecord, Filter, Known, State, WithdrawnBy};

use super::super::{MAX_LAG, Options};
use super::{
    Bench, audit_note, balance, beginning, block, charge, conclusion, fresh, held, ledger, parking, question, run,
    wait_indexed,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[expect(clippy::disallowed_methods, reason = "tests race plain tasks")]
async fn a_budget_is_exact_and_syncs_are_shared_under_many_tasks() {
    let b = Bench::new();
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let store = b.store().clone();
            tokio::spawn(async move {
                let r = fresh(&format!("f{n}"), None);
                let (begun, _) = store.begin(beginning(r, vec![charge(3, 100)], false)).await.ok()?;
                let state = if n % 2 == 0 { State::Succeeded } else { State::Unknown };
                store.conclude(begun, conclusion(state)).await.ok()
            })
        })
        .collect();
    let mut ran = 0;
    for task in tasks {
        ran += i64::from(task.await.unwrap().is_some());
    }
    assert_eq!(ran, 33);
    let balance = b.store().balances(&[ledger()]).unwrap()[0];
    assert_eq!(balance.used + balance.reserved, 99);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[expect(clippy::disallowed_methods, reason = "tests race plain tasks")]
async fn a_key_is_claimed_once() {
    let b = Bench::new();
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let store = b.store().clone();
            tokio::spawn(async move {
                let r = fresh("f", Some("k"));
                if n % 2 == 0 {
                    store.begin(beginning(r, vec![], false)).await.is_ok()
                } else {
                    store
                        .park(parking(CallRecord { state: State::Held, terms: Some(terms(Tier::Medium, &[], 1)), ..r }))
                        .await
                        .is_ok()
                }
            })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += usize::from(task.await.unwrap());
    }
    assert_eq!(won, 1);
}

/// Calls leave memory for the index while others look their keys up: whoever comes at whatever moment, each key has one
/// effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[expect(clippy::disallowed_methods, reason = "tests race plain tasks")]
async fn a_key_is_claimed_once_while_calls_leave_memory() {
    let b = Bench::new();
    let store = b.store().clone();
    let worker = |n: usize| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut begun = Vec::new();
            for step in 0..1500 {
                // Each worker meets the others' keys just behind them, while those are concluded and let go.
                let key = (step + n * 7).to_string();
                let Ok((right, record)) = store.begin(beginning(fresh(&key, Some(&key)), vec![], false)).await else {
                    continue;
                };
                store.conclude(right, conclusion(State::Succeeded)).await.unwrap();
                begun.push(record.key.clone().unwrap());
            }
            begun
        })
    };
    let mut all = Vec::new();
    for worker in (0..4).map(worker).collect::<Vec<_>>() {
        all.extend(worker.await.unwrap());
    }
    let (count, keys) = (all.len(), all.into_iter().collect::<std::collections::HashSet<_>>().len());
    assert_eq!((count, keys), (keys, 1500 + 3 * 7));
}

/// What was read of a key before the state was locked is void once a call with that key has come, gone, and left memory.
#[test]
fn a_look_up_that_calls_overtook_is_made_again() {
    let b = Bench::new();
    let r = fresh("f", Some("k"));
    let hint = b.store().inner.hint(&question(&r));
    run(&b, r.clone(), State::Succeeded);
    b.indexed();
    let (core, now) = b.store().inner.lock().unwrap();
    let known = core.known(&question(&r), hint.as_ref(), now).unwrap();
    assert!(matches!(known, Known::Concluded(_)), "{known:?}");
    drop(core);
    let hint = b.store().inner.hint(&question(&r));
    let (core, _) = b.store().inner.lock().unwrap();
    let known = core.known(&question(&r), hint.as_ref(), now).unwrap();
    assert!(matches!(known, Known::Concluded(_)), "{known:?}");
}

#[tokio::test]
async fn a_waiter_is_woken_and_memory_lets_concluded_calls_go() {
    let b = Bench::new();
    let store = b.store().clone();
    let (begun, r) = store.begin(beginning(fresh("f", None), vec![], false)).await.unwrap();
    let mut watch = store.watch(r.id).unwrap().unwrap();
    assert!(store.watch(CallId::new()).unwrap().is_none());
    store.conclude(begun, conclusion(State::Succeeded)).await.unwrap();
    let seen = *watch.wait_for(|(state, _)| state.is_final()).await.unwrap();
    assert_eq!(seen, (State::Succeeded, 2));
    wait_indexed(&store).await;
    assert!(store.inner.core.lock().unwrap().calls.is_empty());
    assert_eq!(*store.watch(r.id).unwrap().unwrap().borrow(), (State::Succeeded, 2));
}

#[tokio::test]
async fn many_notes_without_a_step_make_nobody_wait_for_the_index() {
    let b = Bench::new();
    for _ in 0..MAX_LAG + 10 {
        b.store().append(audit_note("call.read"), false).await.unwrap();
    }
    b.store().append(audit_note("call.read"), true).await.unwrap();
    b.store().begin(beginning(fresh("f", None), vec![], false)).await.map(drop).unwrap();
}

/// A small generator, so that a failing seed can be tried again.
struct Lcg(u64);

impl Lcg {
    fn next(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// One random step; whatever it answers.
fn random_step(b: &Bench, random: &mut Lcg, begun: &mut Vec<Begun>, holds: &mut Vec<CallRecord>) {
    let f = format!("f{}", random.next(6));
    let some = (!holds.is_empty()).then(|| holds[random.next(holds.len().max(1))].clone());
    match (random.next(7), some) {
        (0, _) => {
            let key = format!("k{}", random.next(6));
            let charges = vec![charge(7, 60)];
            begun.extend(block(b.store().begin(beginning(fresh(&f, Some(&key)), charges, false))).ok().map(|(g, _)| g));
        }
        (1, _) => holds.extend(block(b.store().park(parking(held(&f, None)))).ok()),
        (2, Some(r)) => drop(block(b.store().vote(vote(&r, "eve", &["ops"])))),
        (3, Some(r)) => {
            if let Some(now) = block(b.store().get(r.id)).unwrap() {
                begun.extend(block(b.store().begin(beginning(now, vec![charge(5, 60)], true))).ok().map(|(g, _)| g));
            }
        }
        (4, _) if !begun.is_empty() => {
            let states = [State::Succeeded, State::Failed, State::NotExecuted, State::Unknown];
            let which = begun.swap_remove(random.next(begun.len()));
            block(b.store().conclude(which, conclusion(states[random.next(4)]))).unwrap();
        }
        (5, Some(r)) => drop(block(b.store().withdraw(r.id, WithdrawnBy::Person("p".into()), "x"))),
        _ => b.pass(MINUTE * u32::try_from(random.next(20)).unwrap()),
    }
}

/// What must be the same after a kill: budgets, and every call that was not being sent.
fn picture(b: &Bench) -> (Balance, Vec<(CallId, State, u64)>) {
    let all = block(b.store().list(Filter { limit: 1000, ..Filter::default() })).unwrap();
    let settled = |s: State| if s == State::Dispatching { State::Unknown } else { s };
    let version = |r: &CallRecord| if settled(r.state) == State::Unknown { 0 } else { r.version };
    (balance(b), all.iter().map(|r| (r.id, settled(r.state), version(r))).collect())
}

#[test]
fn random_steps_keep_budgets_and_calls_over_kills() {
    for seed in 0..12 {
        let b = Bench::with(Options { segment_bytes: 30_000, preallocate: 4096, ..Options::default() });
        let (mut random, mut begun, mut holds) = (Lcg(seed), vec![], vec![]);
        let mut finals: std::collections::HashMap<CallId, State> = Default::default();
        for step in 0..60 {
            random_step(&b, &mut random, &mut begun, &mut holds);
            let (balance, calls) = picture(&b);
            assert!(balance.used + balance.reserved <= 60 && balance.reserved >= 0, "seed {seed} step {step}");
            for (id, state, _) in calls.iter().filter(|(_, s, _)| s.is_final()) {
                assert_eq!(finals.insert(*id, *state).unwrap_or(*state), *state, "seed {seed} step {step}");
            }
            if step % 20 == 19 {
                let copy = b.killed();
                assert!(!copy.recovery.ledgers_corrected);
                assert_eq!(picture(&copy), (balance, calls), "seed {seed} step {step}");
            }
        }
        crate::journal::verify(&b.dir.path().join("journal")).unwrap();
    }
}

#[test]
fn every_step_can_be_awaited_on_any_thread() {
    fn send<T: Send>(_: T) {}
    let b = Bench::new();
    let (s, r) = (b.store(), held("f", None));
    send(s.look_up(question(&r)));
    send(s.get(r.id));
    send(s.list(Filter::default()));
    send(s.append(audit_note("x"), true));
    send(s.vote(vote(&r, "eve", &[])));
    send(s.withdraw(r.id, WithdrawnBy::Person("p".into()), "x"));
    send(s.expire_due(s.inner.clock.now()));
    send(s.arguments(&r));
    send(s.answer_body(&r));
    send(s.artifact(crate::call::ArtifactId::new()));
}
