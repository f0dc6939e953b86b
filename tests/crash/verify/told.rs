//! I8, I11, I12, I18: whatever was told is true, was recorded before, and is never told otherwise.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::fold::{Call, Folded};
use super::{Answer, Findings, History, What, is_final, list, number, text};

/// Refusals that are counted, not recorded one by one, or told when nothing can be recorded.
const UNRECORDED: [&str; 4] = ["unauthenticated", "rate_limited", "malformed_request", "unavailable"];

pub fn check(history: &History, folded: &Folded, found: &mut Findings) {
    let effects: BTreeSet<&str> = history.effects.iter().map(|e| e.nonce.as_str()).collect();
    let creators = super::join::by_nonce(folded);
    let nonces: BTreeMap<&str, &str> = creators.iter().map(|(nonce, call)| (call.id.as_str(), *nonce)).collect();
    let mut answers: BTreeMap<&str, (u16, &str)> = BTreeMap::new();
    for told in &history.told {
        match &told.what {
            What::Answer(answer) if !answer.effects => {}
            What::Answer(answer) => {
                if matches!(answer.decision.as_str(), "allowed" | "replayed") {
                    let first = answers.entry(&answer.call).or_insert((answer.status, &answer.body));
                    found.check(*first == (answer.status, &*answer.body), "I11", || {
                        format!("{} was answered in two ways", answer.call)
                    });
                }
                let own = creators.get(answer.nonce.as_str()).copied();
                let checker = Checker { epoch: told.epoch, answer, folded, effects: &effects, nonces: &nonces, own };
                checker.check(found);
            }
            What::Decision { person, action, call, state, version } => {
                decision(folded, told.epoch, (person, action, call, state, *version), found);
            }
            What::Artifact(id) => {
                let in_time = folded.artifacts.get(id).is_some_and(|epoch| *epoch <= told.epoch);
                found.check(in_time, "I12", || format!("{id} was told and is not there"));
            }
            What::Switched { scope, reason } => {
                let said = folded.switched.get(reason).is_some_and(|(s, epoch)| s == scope && *epoch <= told.epoch);
                let why = || format!("what an operator did ({scope}, {reason}) was confirmed and is not there");
                found.check(said || folded.partial, "I12", why);
            }
            What::State { call, state } => match folded.calls.get(call) {
                None => found.check(folded.partial, "I12", || format!("{call} was told and is not there")),
                Some(known) => found.check(stood(known, state, told.epoch), "I8", || {
                    format!("{call} was told to be {state} in epoch {}", told.epoch)
                }),
            },
        }
    }
}

/// Whether the call looked so to the process of that epoch. An expiry holds before its record is written.
fn stood(call: &Call, state: &str, epoch: u64) -> bool {
    let seen = [state];
    call.was(&seen, epoch) || (state == "expired" && call.was(&["held", "approved"], epoch))
}

struct Checker<'a> {
    epoch: u64,
    answer: &'a Answer,
    folded: &'a Folded,
    effects: &'a BTreeSet<&'a str>,
    nonces: &'a BTreeMap<&'a str, &'a str>,
    /// The call that this very asking made, if it made one.
    own: Option<&'a Call>,
}

impl Checker<'_> {
    fn check(&self, found: &mut Findings) {
        let a = self.answer;
        let call = self.folded.calls.get(&a.call);
        if call.is_none() && self.folded.partial {
            return;
        }
        match (a.decision.as_str(), a.code.as_str()) {
            ("allowed" | "replayed", _) => self.answered(call, found),
            ("held", _) | (_, "held") => {
                let id = &a.call;
                let there = call.is_some_and(|c| c.was(&["held", "approved"], self.epoch));
                found.check(there, "I12", || format!("{id} was told to be held, and no record says so"));
            }
            (_, "outcome_unknown" | "in_flight") => {
                let there = call.is_some_and(|c| c.was(&["dispatching", "unknown"], self.epoch));
                let known = there || (a.code == "in_flight" && self.noted());
                found.check(known, "I12", || format!("{} was told to be under way, and no record says so", a.call));
            }
            _ => self.refused(call, found),
        }
        if a.code == "outcome_unknown" {
            found.check(a.executed == "unknown", "I8", || format!("{}: unknown, told `{}`", a.call, a.executed));
        }
    }

    /// The upstream's answer: it happened, once, and its record has this very answer.
    fn answered(&self, call: Option<&Call>, found: &mut Findings) {
        let (a, id) = (self.answer, &self.answer.call);
        let Some(call) = call else { return found.add("I12", format!("{id} was answered and is not there")) };
        let ended = call.versions.iter().find(|v| matches!(v.state(), "succeeded" | "failed" | "not_executed"));
        let Some(ended) = ended else { return found.add("I8", format!("{id} was answered and never concluded")) };
        found.check(ended.epoch <= self.epoch, "I8", || format!("{id} was answered before its record existed"));
        let stored = (number(&ended.record, "/answer/status"), text(&ended.record, "/answer/digest"));
        found.check(stored == (u64::from(a.status), a.body.as_str()), "I8", || {
            format!("{id} was told another answer than its record has")
        });
        if ended.state() == "succeeded" {
            let executed = self.nonces.get(id.as_str()).copied();
            found.check(executed.is_some_and(|n| self.effects.contains(n)), "I8", || {
                format!("{id} was answered as done, and nothing happened")
            });
            found.check(a.names.as_deref() == executed, "I8", || format!("{id} got the answer of another call"));
        }
    }

    fn noted(&self) -> bool {
        self.folded.noted.get(&self.answer.call).is_some_and(|epoch| *epoch <= self.epoch)
    }

    fn refused(&self, call: Option<&Call>, found: &mut Findings) {
        let (a, id) = (self.answer, &self.answer.call);
        let there = call.is_some_and(|c| c.versions[0].epoch <= self.epoch) || self.noted();
        found.check(there || UNRECORDED.contains(&a.code.as_str()), "I12", || {
            format!("{id} was refused with `{}`, and no record names it", a.code)
        });
        if a.executed == "no" {
            let happened = self.effects.contains(a.nonce.as_str());
            found.check(!happened, "I8", || format!("`{}` was told not executed ({}), and it was", a.nonce, a.code));
            if let Some(own) = self.own.filter(|c| c.id != *id && is_final(c.state())) {
                found.check(own.state() != "succeeded", "I8", || format!("{}: refused, and done", own.id));
            }
        }
        let state = match a.code.as_str() {
            "rejected" => "rejected",
            "withdrawn" => "withdrawn",
            "revoked" => "revoked",
            "stale" => "stale",
            "hold_expired" => "expired",
            "upstream_unreachable" => "not_executed",
            _ => return,
        };
        let stood = call.is_some_and(|c| stood(c, state, self.epoch));
        found.check(stood, "I8", || format!("{id} was told to be {state} and is not"));
    }
}

/// A decision that was confirmed stands in the record with that version.
/// One of these was written by this person.
fn by(record: &Value, at: &str, person: &str) -> bool {
    list(record, at).iter().any(|one| text(one, "/by") == person)
}

fn decision(
    folded: &Folded,
    epoch: u64,
    (person, action, call, state, version): (&str, &str, &str, &str, u64),
    found: &mut Findings,
) {
    let Some(known) = folded.calls.get(call) else {
        return found.check(folded.partial, "I12", || format!("{call} was decided and is not there"));
    };
    let Some(told) = known.versions.iter().find(|v| number(&v.record, "/version") == version) else {
        return found.add("I12", format!("{call}: {person}'s `{action}` was confirmed and is not there"));
    };
    found.check(told.epoch <= epoch, "I8", || format!("{call}: `{action}` was confirmed before its record existed"));
    let expired = state == "expired" && matches!(told.state(), "held" | "approved");
    found.check(told.state() == state || expired, "I8", || format!("{call} was told to be {state} by `{action}`"));
    let counted = match action {
        "approve" => list(&told.record, "/approvals").iter().any(|v| text(v, "/person") == person),
        "reject" | "withdraw" => text(&told.record, "/note/by") == person,
        "edit" => list(&told.record, "/edited/edits").iter().any(|e| text(e, "/person") == person),
        "claim" => text(&told.record, "/handling/claim/person") == person,
        "comments" => by(&told.record, "/handling/comments", person),
        "evidence-requests" => by(&told.record, "/handling/requests", person),
        "escalate" => by(&told.record, "/handling/escalations", person),
        "reconcile" => text(&told.record, "/opinion/person") == person || text(&told.record, "/note/by") == person,
        _ => true,
    };
    found.check(counted, "I12", || format!("{call}: {person}'s `{action}` was confirmed and does not count"));
}
