//! Nothing is told before it is on the disk: the disk stands still, and so does every answer.

use std::time::Duration;

use crate::call::ArtifactId;
use crate::store::fixtures::{MINUTE, START, terms, vote};
use crate::store::{CallRecord, Filter, NewArtifact, Note, Reconcile, Reject, Renew, State, WithdrawnBy};

use super::{
    Bench, approve, audit_note, begin, beginning, block, conclusion, declared, fresh, held, park, parking, question,
    run,
};

/// Long enough for whoever does not wait.
const WHILE: Duration = Duration::from_millis(40);

/// Whether `future` waits for the disk: no answer while that stands still. What it asked for stays in the queue.
fn waits<T>(b: &Bench, future: impl Future<Output = T>) -> bool {
    b.store().journal().hold_up(true);
    let told = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(WHILE, future).await.is_ok() });
    b.store().journal().hold_up(false);
    !told
}

fn note() -> Note {
    Note { code: "x".into(), text: "x".into(), by: None }
}

fn reject(r: &CallRecord) -> Reject {
    Reject {
        id: r.id,
        version: None,
        digest: r.digest,
        person: "eve".into(),
        reason_code: "wrong_amount".into(),
        message: None,
        deny_alike: None,
    }
}

pub(super) fn renew(r: &CallRecord) -> Renew {
    Renew {
        id: r.id,
        version: None,
        terms: terms(crate::call::Tier::Medium, &[], 1),
        digest: r.digest,
        preview: None,
        config_digest: r.config_digest,
        policy_digest: r.policy_digest,
        what_changed: note(),
    }
}

#[test]
fn an_agent_hears_of_its_hold_only_from_the_disk() {
    let b = Bench::new();
    let r = held("f", Some("k"));
    let again = CallRecord { id: crate::call::CallId::new(), ..r.clone() };
    assert!(waits(&b, b.store().park(parking(r.clone()))), "park");
    let parked = parking(held("g", Some("g")));
    let id = parked.record.id;
    assert!(waits(&b, async {
        drop(b.store().park(parked).await);
    }));
    assert!(block(b.store().get(id)).unwrap().is_some(), "what was asked for is done once the disk goes on");
    assert!(block(b.store().park(parking(again))).is_err(), "its key is taken");
}

#[test]
fn decisions_are_confirmed_only_from_the_disk() {
    let b = Bench::new();
    let hold = |name: &str| park(&b, held(name, None));
    let (a, c, d, e, f) = (hold("a"), hold("c"), hold("d"), hold("e"), hold("f"));
    assert!(waits(&b, b.store().vote(vote(&a, "eve", &["ops"]))), "vote");
    assert!(waits(&b, b.store().reject(reject(&c))), "reject");
    assert!(waits(&b, b.store().withdraw(d.id, WithdrawnBy::Person("eve".into()), "x")), "withdraw");
    assert!(waits(&b, b.store().renew(renew(&e))), "renew");
    assert!(waits(&b, b.store().revoke(f.id, note())), "revoke");
    let waiting = approve(&b, &hold("w"));
    assert!(waits(&b, b.store().wait_reason(waiting.id, note())), "wait");
    let lost = run(&b, fresh("u", None), State::Unknown);
    let said = Reconcile {
        id: lost.id,
        version: None,
        person: "eve".into(),
        aliases: vec![],
        subject: "idp|eve".into(),
        outcome: State::Succeeded,
        reason: "seen".into(),
    };
    assert!(waits(&b, b.store().reconcile(said)), "reconcile");
    b.pass(MINUTE * 15);
    assert!(waits(&b, b.store().expire_due(START.plus(MINUTE * 15))), "expire");
    let states = [&a, &c, &d, &e, &f].map(|r| block(b.store().get(r.id)).unwrap().unwrap().state);
    assert_eq!(states, [State::Expired, State::Rejected, State::Withdrawn, State::Held, State::Revoked]);
}

#[test]
fn what_is_read_is_on_the_disk() {
    let b = Bench::new();
    for read in ["get", "look_up", "list", "a decision that is refused"] {
        let r = park(&b, held(read, None));
        let store = b.store();
        let waited = waits(&b, async {
            // Counted in memory at once; its own answer is given up.
            drop(tokio::time::timeout(Duration::from_millis(1), store.vote(vote(&r, "eve", &["ops"]))).await);
            match read {
                "get" => drop(store.get(r.id).await),
                "look_up" => drop(store.look_up(question(&r)).await),
                "list" => drop(store.list(Filter { limit: 9, ..Filter::default() }).await),
                _ => drop(store.vote(vote(&r, "max", &["ops"])).await),
            }
        });
        assert!(waited, "{read} told what was not on the disk");
    }
}

#[test]
fn nothing_is_sent_and_no_outcome_told_before_the_disk_has_it() {
    let b = Bench::new();
    assert!(waits(&b, b.store().begin(beginning(fresh("a", None), vec![], false))), "begin");
    let approved = approve(&b, &park(&b, held("r", None)));
    assert!(waits(&b, b.store().begin(beginning(approved, vec![], true))), "release");
    let (lost, _) = begin(&b, declared("d", None));
    assert!(waits(&b, b.store().again(&lost)), "again");
    let (begun, _) = begin(&b, fresh("c", None));
    assert!(waits(&b, b.store().conclude(begun, conclusion(State::Succeeded))), "conclude");
    let unknown = run(&b, fresh("u", None), State::Unknown);
    assert!(waits(&b, b.store().read_says(unknown.id, true, START, note())), "a read");
    assert!(waits(&b, b.store().append(audit_note("call.refused"), true)), "a refusal");
    assert!(!waits(&b, b.store().append(audit_note("call.read"), false)), "a read of an agent need not wait");
    let artifact = NewArtifact {
        id: ArtifactId::new(),
        kind: "ticket".into(),
        title: "t".into(),
        by: "bot".into(),
        principal_key: held("f", None).principal.key(),
        content: bytes::Bytes::from_static(b"x"),
    };
    let id = artifact.id;
    assert!(waits(&b, b.store().put_artifact(artifact)), "an artifact");
    let hold = park(&b, held("h", None));
    assert!(waits(&b, b.store().attach_evidence(hold.id, id)), "attach");
}
