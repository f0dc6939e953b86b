//! Histories that lie, and what the verifier says of each. The good one is written by hand, in both forms of records:
//! the whole record, and what changed.

use holdpoint::call::{Digest, Timestamp};
use serde_json::{Value, json};

use crate::verify::{Answer, Effect, History, Line, Told, What, digest, verify};

const UPSTREAM: &str = "http://127.0.0.1:9/v2";
const PAID: &str = "call_paid";
const DUAL: &str = "call_dual";
const LOST: &str = "call_lost";
const DENIED: &str = "call_denied";

struct Book(History);

fn sha(text: &str) -> String {
    Digest::of(text.as_bytes()).to_string()
}

fn time(seconds: usize) -> String {
    format!("2026-01-01T00:{:02}:{:02}.000Z", seconds / 60, seconds % 60)
}

fn instant(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + i64::try_from(seconds * 1000).unwrap_or(0))
}

fn effect(nonce: &str, epoch: u64) -> Effect {
    Effect {
        nonce: nonce.into(),
        method: "POST".into(),
        path: format!("/v2/orders/{nonce}/refunds"),
        content_type: Some("application/json".into()),
        body: sha(nonce),
        key: None,
        repeat: false,
        epoch,
    }
}

fn charges() -> Value {
    let ledger = json!({"scope": "org", "owner": "acme", "unit": "EUR", "window": null});
    json!([{"ledger": ledger, "amount": 400, "limit": 1000}])
}

/// The first record of a call.
fn record(history: &History, id: &str, nonce: &str, state: &str) -> Value {
    let seen = effect(nonce, 1);
    let mut record = json!({
        "id": id, "version": 1, "state": state, "operation": "crm.refund", "attempt": 0, "epoch": 0,
        "principal": {"org": "acme", "agent": "bot", "operator": "ana", "subject": "key|bot"},
        "key": format!("key-of-{id}"), "fingerprint": sha(id), "created": time(1),
        "request": {
            "target": {"method": seen.method, "path": seen.path}, "content_type": seen.content_type,
            "headers": [["x-nonce", nonce]], "body": {"seq": 1, "index": 0, "len": 9, "digest": seen.body},
        },
    });
    record["digest"] = digest(history, &record, &seen).into();
    record
}

fn begin(record: &mut Value, epoch: u64) {
    record["state"] = "dispatching".into();
    record["attempt"] = 1.into();
    record["epoch"] = epoch.into();
    record["charges"] = charges();
    record["begun"] = time(5).into();
}

fn answer_of(text: &str) -> Value {
    json!({"status": 201, "headers": [], "len": 9, "digest": sha(text)})
}

fn vote(person: &str, group: &str, record: &Value) -> Value {
    json!({"person": person, "subject": format!("token|{person}"), "groups": [group], "at": time(3),
           "channel": "api", "digest": record["digest"], "justification": "seen"})
}

impl Book {
    fn push(&mut self, event: Value) {
        let seq = self.0.lines.len() as u64 + 1;
        self.0.lines.push(Line { seq, at: instant(seq), event });
    }

    fn first(&mut self, step: &str, record: &Value) {
        self.push(json!({"type": "call", "step": step, "record": record}));
    }

    fn changed(&mut self, step: &str, id: &str, changed: &Value) {
        self.push(json!({"type": "step", "step": step, "id": id, "changed": changed}));
    }

    fn epoch(&mut self, epoch: u64) {
        self.push(json!({"type": "epoch", "epoch": epoch, "key_id": sha("key"), "pid": 1}));
    }

    fn recovered(&mut self, epoch: u64, lost: &[&str]) {
        let recovery = json!({"epoch": epoch, "to_unknown": lost, "records_lost": 0, "ledgers_corrected": false});
        self.push(json!({"type": "recovery", "recovery": recovery}));
    }

    fn told(&mut self, epoch: u64, nonce: &str, call: &str, decision: &str, code: &str) {
        let (executed, status) = match (decision, code) {
            ("allowed" | "replayed", _) => ("", 201),
            (_, "outcome_unknown") => ("unknown", 409),
            _ => ("no", 403),
        };
        let creator = nonce.split('-').next().unwrap_or_default().to_owned();
        let what = What::Answer(Answer {
            nonce: nonce.into(),
            effects: true,
            call: call.into(),
            decision: decision.into(),
            status,
            code: code.into(),
            executed: executed.into(),
            body: if status == 201 { sha(&format!("answer to {creator}")) } else { sha("problem") },
            names: (status == 201).then_some(creator),
        });
        self.0.told.push(Told { epoch, what });
    }

    fn decided(&mut self, epoch: u64, person: &str, action: &str, call: &str, (state, version): (&str, u64)) {
        let what = What::Decision {
            person: person.into(),
            action: action.into(),
            call: call.into(),
            state: state.into(),
            version,
        };
        self.0.told.push(Told { epoch, what });
    }

    fn paid(&mut self) {
        let mut paid = record(&self.0, PAID, "npaid", "dispatching");
        begin(&mut paid, 1);
        self.first("begun", &paid);
        self.0.effects.push(effect("npaid", 1));
        paid["state"] = "succeeded".into();
        paid["version"] = 2.into();
        paid["answer"] = answer_of("answer to npaid");
        self.first("concluded", &paid);
        self.told(1, "npaid", PAID, "allowed", "");
        self.told(2, "npaid-again", PAID, "replayed", "");
    }

    fn dual(&mut self) {
        let mut dual = record(&self.0, DUAL, "ndual", "held");
        dual["expires"] = time(600).into();
        let requirement = json!({"policy": "p", "groups": ["leads", "finance"], "all": true});
        let needs = json!({"people": 2, "requirements": [requirement], "justification": true, "evidence": []});
        dual["terms"] = json!({"tier": "high", "needs": needs});
        self.first("parked", &dual);
        self.told(1, "ndual", DUAL, "held", "held");
        let (one, two) = (vote("maya", "leads", &dual), vote("li", "finance", &dual));
        self.changed("voted", DUAL, &json!({"version": 2, "approvals": [one]}));
        self.decided(1, "maya", "approve", DUAL, ("held", 2));
        let closes = json!({"version": 3, "state": "approved", "approvals": [one, two], "window_closes": time(900)});
        self.changed("approved", DUAL, &closes);
        self.decided(1, "li", "approve", DUAL, ("approved", 3));
        let mut begun = json!({"version": 4});
        begin(&mut begun, 1);
        self.changed("begun", DUAL, &begun);
        self.0.effects.push(effect("ndual", 1));
        let answer = answer_of("answer to ndual");
        self.changed("concluded", DUAL, &json!({"version": 5, "state": "succeeded", "answer": answer}));
    }

    fn denied(&mut self) {
        let mut denied = record(&self.0, DENIED, "ndenied", "held");
        denied["expires"] = time(600).into();
        denied["terms"] = json!({"tier": "medium", "needs": {"people": 1}});
        self.first("parked", &denied);
        let note = json!({"code": "unsafe", "text": "no", "by": "maya"});
        self.changed("rejected", DENIED, &json!({"version": 2, "state": "rejected", "note": note}));
        self.decided(2, "maya", "reject", DENIED, ("rejected", 2));
        self.told(2, "ndenied-again", DENIED, "refused", "rejected");
    }
}

/// A short life with two processes: the first one dies while a call is on the wire.
fn good() -> History {
    let history = History {
        chain: Ok(()),
        lines: Vec::new(),
        effects: Vec::new(),
        told: Vec::new(),
        upstream: UPSTREAM.into(),
        closed: true,
        linked: vec![("token|mia".into(), "token|maya".into())],
        tampered: false,
        first: 1,
        forgetful: Vec::new(),
    };
    let mut book = Book(history);
    book.epoch(1);
    book.recovered(1, &[]);
    book.paid();
    book.dual();
    let artifact = json!({"evidence": {"id": "art_1", "kind": "ticket"}});
    book.push(json!({"type": "artifact", "artifact": artifact}));
    book.0.told.push(Told { epoch: 1, what: What::Artifact("art_1".into()) });
    let mut lost = record(&book.0, LOST, "nlost", "dispatching");
    begin(&mut lost, 1);
    lost["charges"][0]["amount"] = 200.into();
    book.first("begun", &lost);
    book.0.effects.push(effect("nlost", 1));
    book.epoch(2);
    book.changed("died", LOST, &json!({"version": 2, "state": "unknown"}));
    book.recovered(2, &[LOST]);
    book.told(2, "nlost-again", LOST, "refused", "outcome_unknown");
    let opinion = json!({"person": "omar", "outcome": "succeeded"});
    book.changed("opined", LOST, &json!({"version": 3, "opinion": opinion}));
    let note = json!({"code": "reconciled", "text": "seen", "by": "pia"});
    book.changed("reconciled", LOST, &json!({"version": 4, "state": "succeeded", "note": note}));
    book.decided(2, "pia", "reconcile", LOST, ("succeeded", 4));
    book.denied();
    book.push(json!({"type": "note", "note": {"kind": "call.refused", "call": "call_refused"}}));
    book.told(2, "nrefused", "call_refused", "refused", "forbidden");
    book.push(json!({"type": "closed", "epoch": 2}));
    book.0
}

/// The event of the first such step of a call.
fn event<'a>(history: &'a mut History, step: &str, id: &str) -> &'a mut Value {
    let fits = |e: &Value| e["step"] == step && (e["id"] == id || e["record"]["id"] == id);
    &mut history.lines.iter_mut().find(|l| fits(&l.event)).expect("no such step").event
}

/// Adds a record before the orderly end.
fn insert(history: &mut History, event: Value) {
    let mut closed = history.lines.pop().expect("no end");
    history.lines.push(Line { event, ..closed.clone() });
    closed.seq += 1;
    closed.at = instant(closed.seq);
    history.lines.push(closed);
}

fn answer<'a>(history: &'a mut History, nonce: &str) -> &'a mut Told {
    let fits = |t: &&mut Told| matches!(&t.what, What::Answer(a) if a.nonce == nonce);
    history.told.iter_mut().find(fits).expect("no such answer")
}

type Lie = (&'static str, &'static str, fn(&mut History));

const LIES: &[Lie] = &[
    ("an effect happens twice", "I1", |h| h.effects.push(effect("npaid", 1))),
    ("an effect without a record", "I2", |h| h.effects.push(effect("nnobody", 1))),
    ("an effect in an epoch that did not begin it", "I2", |h| h.effects[0].epoch = 2),
    ("another body is sent", "I2", |h| h.effects[1].body = sha("more money")),
    ("another content type is sent", "I3", |h| h.effects[1].content_type = None),
    ("a record is missing", "I13", |h| drop(h.lines.remove(4))),
    ("a step is missing, and the numbers are closed", "I13", |h| {
        let at = h.lines.iter().position(|l| l.event["step"] == "voted").unwrap_or_default();
        h.lines.remove(at);
        h.lines.iter_mut().skip(at).for_each(|l| l.seq -= 1);
    }),
    ("the chain is broken", "I13", |h| h.chain = Err("bad".into())),
    ("more is spent than there is", "I6", |h| event(h, "begun", LOST)["record"]["charges"][0]["amount"] = 201.into()),
    ("a charge shrinks when it is settled", "I10", |h| {
        event(h, "concluded", PAID)["record"]["charges"][0]["amount"] = 1.into();
    }),
    ("recovery corrects the ledgers", "I10", |h| {
        h.lines.iter_mut().for_each(|l| {
            if l.event["type"] == "recovery" {
                l.event["recovery"]["ledgers_corrected"] = true.into();
            }
        })
    }),
    ("an answer comes before its record", "I8", |h| answer(h, "npaid").epoch = 0),
    ("another answer is told than was recorded", "I8", |h| {
        if let What::Answer(a) = &mut answer(h, "npaid").what {
            a.body = sha("else");
        }
    }),
    ("not executed is told, and it was", "I8", |h| {
        if let What::Answer(a) = &mut answer(h, "nrefused").what {
            a.nonce = "npaid".into();
        }
    }),
    ("a replay differs", "I11", |h| {
        if let What::Answer(a) = &mut answer(h, "npaid-again").what {
            a.body = sha("else");
        }
    }),
    ("a key stands for two calls", "I11", |h| {
        let key = event(h, "begun", PAID)["record"]["key"].clone();
        event(h, "begun", LOST)["record"]["key"] = key;
    }),
    ("the requester votes", "I17", |h| event(h, "approved", DUAL)["changed"]["approvals"][1]["person"] = "ana".into()),
    ("the same person votes twice", "I17", |h| {
        event(h, "approved", DUAL)["changed"]["approvals"][1]["person"] = "maya".into();
    }),
    ("a linked account votes, too", "I17", |h| {
        event(h, "approved", DUAL)["changed"]["approvals"][1]["subject"] = "token|mia".into();
    }),
    ("a vote on another digest", "I3", |h| {
        event(h, "approved", DUAL)["changed"]["approvals"][1]["digest"] = sha("else").into();
    }),
    ("a vote comes too late", "I3", |h| {
        event(h, "approved", DUAL)["changed"]["approvals"][1]["at"] = time(601).into();
    }),
    ("one person is enough for two", "I3", |h| {
        let one = event(h, "voted", DUAL)["changed"]["approvals"].clone();
        event(h, "approved", DUAL)["changed"]["approvals"] = one;
    }),
    ("a group is missing", "I3", |h| {
        event(h, "approved", DUAL)["changed"]["approvals"][1]["groups"] = json!(["leads"]);
    }),
    ("it begins after its window", "I3", |h| event(h, "begun", DUAL)["changed"]["begun"] = time(901).into()),
    ("the tail is cut", "I14", |h| drop(h.lines.pop())),
    ("the tail is cut, and what was told is gone", "I12", |h| h.lines.truncate(h.lines.len() - 2)),
    ("a final state changes", "I4", |h| {
        let changed = json!({"version": 3, "state": "approved"});
        insert(h, json!({"type": "call", "step": "approved", "id": DENIED, "changed": changed}));
    }),
    ("unknown is left twice", "I4", |h| {
        let changed = json!({"version": 5, "state": "not_executed"});
        insert(h, json!({"type": "call", "step": "reconciled", "id": LOST, "changed": changed}));
    }),
    ("an arrow that the diagram has not", "I4", |h| event(h, "voted", DUAL)["changed"]["state"] = "approved".into()),
    ("rejected, and it happened", "I5", |h| h.effects.push(effect("ndenied", 1))),
    ("succeeded, and nothing happened", "I5", |h| h.effects.truncate(2)),
    ("an epoch goes back", "I15", |h| {
        let second = h.lines.iter_mut().filter(|l| l.event["type"] == "epoch").nth(1);
        second.expect("two epochs").event["epoch"] = 1.into();
    }),
    ("a stale attempt concludes", "I15", |h| event(h, "concluded", DUAL)["changed"]["attempt"] = 2.into()),
    ("an id is told that does not exist", "I12", |h| {
        if let What::Answer(a) = &mut answer(h, "ndual").what {
            a.call = "call_nowhere".into();
        }
    }),
    ("a vote is confirmed that does not count", "I12", |h| {
        let told = What::Decision {
            person: "lou".into(),
            action: "approve".into(),
            call: DUAL.into(),
            state: "approved".into(),
            version: 3,
        };
        h.told.push(Told { epoch: 2, what: told });
    }),
    ("an artifact is told that does not exist", "I12", |h| {
        h.told.push(Told { epoch: 2, what: What::Artifact("art_2".into()) });
    }),
    ("a dead call goes on dispatching", "I22", |h| {
        let at = h.lines.iter().position(|l| l.event["step"] == "died").unwrap_or_default();
        let died = h.lines.remove(at);
        h.lines.insert(at + 1, died);
        (0..).zip(&mut h.lines).for_each(|(i, l)| l.seq = i + 1);
    }),
    ("records were lost", "I22", |h| h.lines[1].event["recovery"]["records_lost"] = 3.into()),
    ("a call is dispatching after the end", "I24", |h| {
        let mut open = record(h, "call_open", "nopen", "dispatching");
        begin(&mut open, 2);
        open["charges"] = json!([]);
        insert(h, json!({"type": "call", "step": "begun", "record": open}));
    }),
];

#[test]
fn a_good_history_is_clean() {
    assert_eq!(verify(&good()), Vec::<String>::new());
}

#[test]
fn every_lie_is_found_under_its_name() {
    for (what, name, doctor) in LIES {
        let mut history = good();
        doctor(&mut history);
        let found = verify(&history);
        assert!(found.iter().any(|v| v.starts_with(&format!("{name}: "))), "{what}: {found:#?}");
    }
}

/// What is declared idempotent upstream may be sent again, and each sending is begun.
#[test]
fn a_declared_resend_is_no_double_effect() {
    let mut history = good();
    resent(&mut history, "repeatable", 3);
    assert_eq!(verify(&history), Vec::<String>::new());
    // The upstream's own key makes of two requests one effect; without it they are two.
    let mut history = good();
    resent(&mut history, "header", 3);
    assert!(verify(&history).iter().any(|v| v.starts_with("I1: ")));
    history.effects.last_mut().expect("an effect").repeat = true;
    assert_eq!(verify(&history), Vec::<String>::new());
    history.effects.last_mut().expect("an effect").key = Some("another".into());
    assert!(verify(&history).iter().any(|v| v.starts_with("I1: ")));
    // An attempt more than was declared, or that no record begins.
    let mut history = good();
    resent(&mut history, "repeatable", 1);
    assert!(verify(&history).iter().any(|v| v.starts_with("I1: ")));
    let mut history = good();
    resent(&mut history, "repeatable", 3);
    history.effects.push(effect("nlost", 2));
    assert!(verify(&history).iter().any(|v| v.starts_with("I2: ")));
}

/// The lost call is sent again by the next process, instead of being settled by people.
fn resent(history: &mut History, by: &str, attempts: u64) {
    event(history, "begun", LOST)["record"]["resend"] = json!({"by": by, "attempts": attempts});
    let at = history.lines.iter().position(|l| l.event["step"] == "died").expect("a death");
    history.lines[at].event = json!({"type": "recovery",
        "recovery": {"epoch": 2, "to_unknown": [], "to_resend": [LOST], "records_lost": 0, "ledgers_corrected": false}});
    let step = |step: &str, changed: &Value| json!({"type": "step", "step": step, "id": LOST, "changed": changed});
    history.lines[at + 1].event = step("begun_again", &json!({"version": 2, "attempt": 2, "epoch": 2}));
    history.lines[at + 2].event = step("concluded", &json!({"version": 3, "state": "unknown"}));
    let answer = answer_of("answer to nlost");
    history.lines[at + 3].event = step("concluded", &json!({"version": 4, "state": "succeeded", "answer": answer}));
    history.told.retain(|t| !matches!(&t.what, What::Decision { call, .. } if call == LOST));
    history.effects.push(effect("nlost", 2));
}

/// What a read says of a call that was lost.
#[test]
fn a_read_settles_and_says_no_only_after_quiescence() {
    let read = |outcome: &str, at: usize| {
        let mut history = good();
        let step = if outcome == "succeeded" { "found" } else { "not_found" };
        event(&mut history, "begun", LOST)["record"]["quiet_after"] = time(60).into();
        let opined = event(&mut history, "opined", LOST);
        *opined = json!({"type": "step", "step": step, "id": LOST,
            "changed": {"version": 3, "state": outcome, "updated": time(at)}});
        let settled = event(&mut history, "reconciled", LOST);
        *settled = json!({"type": "note", "note": {"kind": "else"}});
        history.told.retain(|t| !matches!(&t.what, What::Decision { call, .. } if call == LOST));
        history
    };
    assert_eq!(verify(&read("succeeded", 1)), Vec::<String>::new());
    let mut nothing = read("not_executed", 61);
    assert!(verify(&nothing).iter().any(|v| v.starts_with("I5: ")), "it happened");
    nothing.effects.retain(|e| e.nonce != "nlost");
    assert_eq!(verify(&nothing), Vec::<String>::new());
    let mut early = read("not_executed", 59);
    early.effects.retain(|e| e.nonce != "nlost");
    assert!(verify(&early).iter().any(|v| v.starts_with("I5: ")), "it was too early");
}

/// Retention takes what is old, says so before, and leaves what open calls need.
#[test]
fn what_retention_took_was_old_and_needed_by_nobody() {
    let shortened = |first: u64| {
        let mut history = good();
        insert(
            &mut history,
            json!({"type": "note", "note": {"kind": "journal.shortened", "more": {"first_seq": first}}}),
        );
        history.first = first;
        history
    };
    assert_eq!(verify(&shortened(5)), Vec::<String>::new());
    let mut unsaid = shortened(5);
    unsaid.first = 6;
    assert!(verify(&unsaid).iter().any(|v| v.starts_with("I14: ")), "nobody said so");
    let mut young = shortened(5);
    let end = young.lines.len() - 2;
    young.lines[end].at = instant(3);
    assert!(verify(&young).iter().any(|v| v.starts_with("I14: ")), "it was too young");
    let mut open = shortened(5);
    event(&mut open, "parked", DENIED)["record"]["request"]["body"]["seq"] = 4.into();
    let at = open.lines.iter().position(|l| l.event["step"] == "rejected").expect("a rejection");
    let rejected = open.lines[at].event.clone();
    open.lines[at].event = open.lines[end].event.clone();
    open.lines[end].event = rejected;
    assert!(verify(&open).iter().any(|v| v.starts_with("I12: ")), "an open call needs it");
}

/// What the kill switch stops does not begin, and a switch that was confirmed stands in the log.
#[test]
fn what_is_stopped_does_not_begin() {
    let switched = |at: &str, scope: &str| {
        let mut history = good();
        let pause = json!({"type": "paused", "pause": {"scope": scope, "reason": "why", "by": "omar"}});
        let line = history.lines.iter().position(|l| l.event["step"] == at).expect("a step");
        history.lines[line].event = pause;
        history
    };
    // In place of a vote on the call that two people approve: all that begins after it was stopped.
    let stopped = |scope: &str| verify(&switched("voted", scope)).iter().filter(|v| v.starts_with("pause: ")).count();
    assert!(stopped("all") > 0 && stopped("agent:bot") > 0);
    assert_eq!(stopped("agent:nobody"), 0);
    let mut told = good();
    told.told.push(Told { epoch: 1, what: What::Switched { scope: "all".into(), reason: "why".into() } });
    assert!(verify(&told).iter().any(|v| v.starts_with("I12: what an operator did")));
}
