//! I1, I2, I3, I5: the journal against what the upstream really did.

use std::collections::{BTreeMap, BTreeSet};

use holdpoint::call::Digest;
use serde_json::{Value, json};

use super::fold::{Call, Folded};
use super::{Effect, Findings, History, UNSAID, is_never, list, number, text};

pub fn check(history: &History, folded: &Folded, found: &mut Findings) {
    let by_nonce = by_nonce(folded);
    let mut of_call: BTreeMap<&str, Vec<&Effect>> = BTreeMap::new();
    for effect in &history.effects {
        match by_nonce.get(effect.nonce.as_str()) {
            Some(call) => of_call.entry(&call.id).or_default().push(effect),
            None if folded.partial => {}
            None => found.add("I2", format!("{} {} ({}) has no record", effect.method, effect.path, effect.nonce)),
        }
    }
    for call in folded.calls.values() {
        let effects = of_call.get(call.id.as_str()).map_or(&[][..], Vec::as_slice);
        let target = text(&call.last().record, "/request/target/path");
        // Of a call that retention made the proxy forget a second one is made, and its read, or its key, finds the first.
        let before = !history.forgetful.is_empty() && history.effects.iter().any(|e| e.path == target && !e.repeat);
        once(call, effects, before, found);
        for effect in effects {
            begun(history, call, effect, found);
        }
    }
}

/// Which call each asking made.
pub fn by_nonce(folded: &Folded) -> BTreeMap<&str, &Call> {
    folded.calls.values().filter_map(|call| Some((nonce_of(call)?, call))).collect()
}

fn nonce_of(call: &Call) -> Option<&str> {
    let headers = list(&call.last().record, "/request/headers");
    headers.iter().find(|h| h[0] == "x-nonce").and_then(|h| h[1].as_str())
}

fn once(call: &Call, effects: &[&Effect], before: bool, found: &mut Findings) {
    let (id, sent, state) = (&call.id, effects.len(), call.state());
    let count = effects.iter().filter(|e| !e.repeat).count();
    let declared = call.declared();
    found.check(count <= 1 || declared == "repeatable", "I1", || format!("{id} executed {count} times"));
    let keys: BTreeSet<_> = effects.iter().map(|e| &e.key).collect();
    found.check(declared != "header" || keys.len() <= 1, "I1", || format!("{id} was sent with {} keys", keys.len()));
    found.check(sent <= 1 || !declared.is_empty(), "I1", || format!("{id} was sent {sent} times"));
    let attempts = call.begun().count();
    found.check(sent <= attempts, "I2", || format!("{id} was sent {sent} times and begun {attempts} times"));
    found.check(state != "succeeded" || count >= 1 || before, "I5", || {
        format!("{id} is succeeded, and nothing happened")
    });
    found.check(!is_never(state) || count == 0, "I5", || format!("{id} is {state}, and it happened"));
}

fn begun(history: &History, call: &Call, effect: &Effect, found: &mut Findings) {
    let id = &call.id;
    let Some(begun) = call.begun().find(|v| effect.epoch == UNSAID || v.epoch == effect.epoch) else {
        return found.add("I2", format!("{id} was executed in epoch {}, where no record begins it", effect.epoch));
    };
    let record = &begun.record;
    if number(record, "/request/body/len") > 0 {
        found.check(text(record, "/request/body/digest") == effect.body, "I2", || {
            format!("{id}: the upstream saw another body than the begin record has")
        });
    }
    let target = (text(record, "/request/target/method"), text(record, "/request/target/path"));
    found.check(target == (&*effect.method, &*effect.path), "I2", || format!("{id} was sent to another target"));
    found.check(digest(history, record, effect) == text(record, "/digest"), "I3", || {
        format!("{id}: what was sent is not what its digest covers")
    });
}

/// The digest of what the upstream saw, as the contract defines it.
pub fn digest(history: &History, record: &Value, seen: &Effect) -> String {
    let principal = &record["principal"];
    Digest::of_json(&json!({
        "v": 1,
        "operation": record["operation"],
        "upstream": history.upstream,
        "method": seen.method,
        "target": seen.path,
        "content_type": seen.content_type,
        "body": seen.body,
        "principal": [principal["org"], principal["agent"]],
        "acting_for": principal.get("acting_for"),
    }))
    .to_string()
}
