//! A reviewer changes the arguments of a held call: checked against the schema, decided and foreseen anew.

use serde_json::Value;

use crate::call::{Call, Change, Code, Refusal, Timestamp, Violation, changes, redacted, seen_digest, title};
use crate::gates::authz::Verdict;
use crate::gates::budget::Budgets;
use crate::gates::hold::{Denied, EditAsk};
use crate::snapshot::Snapshot;
use crate::store::{
    CallRecord, Edit, EditHold, Editing, HoldError, Note, Renewal, State, arguments_of, stored_request, target_of,
};

use super::{Asking, Pipeline};

impl Pipeline {
    /// Makes another call of a held one, for the same people or more to decide. The operation never changes, and what the
    /// agent asked for is kept.
    ///
    /// # Errors
    /// Why it stays as it was.
    pub async fn edit(&self, ask: EditAsk) -> Result<CallRecord, Denied> {
        let s = self.snapshots.current();
        let record = self.store.get(ask.id).await?.ok_or(HoldError::NotFound)?;
        if record.state_at(self.clock.now()) != State::Held {
            return Err(HoldError::AlreadyDecided(Box::new(record)).into());
        }
        // Before the patch is looked at: it was made for what was read.
        if record.digest != ask.digest {
            return Err(HoldError::DigestChanged(Box::new(record)).into());
        }
        let old = self.restored(&s, &record, None, None).await?;
        let arguments = amended(old.arguments(), &ask.patch, &old.operation().redact)?;
        let call = s.schemas.edited(&record.principal, &old, arguments)?;
        if call.arguments() == old.arguments() {
            return Err(invalid("", "the patch changes nothing").into());
        }
        Budgets::money(&call)?;
        let principal = record.principal.clone();
        let a = Asking { undoes: record.undoes.as_deref(), ..Asking::alone(&s, &principal, &call) };
        let facts = self.facts(&a, Some(&record)).await?;
        let terms = match self.doubted(&a, self.judge(&a, facts).0?)? {
            Verdict::Hold(terms) => terms,
            // A hold that was made stays one.
            Verdict::Allow(_) => record.terms.clone().ok_or(HoldError::NotFound)?,
        };
        // Where the operation is not read any more, what was seen of another call does not stand for this one.
        let seen = self.preview(&s, &call).await.or_else(|| record.preview.is_some().then(|| self.unread()));
        let renewal = renewal(&s, &call, &ask, terms, seen.as_ref().map(|seen| seen.preview.clone()));
        let states = seen.map(|seen| seen.sealed()).unwrap_or_default();
        let asked = self.asked_for(&record).await?;
        let editing = editing(&call, &old, &asked, &ask, renewal, self.clock.now())?;
        let names = ask.by.aliases.iter().chain([&ask.by.name]).cloned().collect();
        let body = call.request().body.clone();
        let (id, version, digest, arguments) = (ask.id, ask.version, ask.digest, arguments_of(&call));
        let edit = EditHold { id, version, digest, names, editing, body, arguments, states };
        let fetched = Box::pin(self.fetch_evidence(&s, &call)).await;
        let mut edited = self.store.edit(edit).await?;
        if edited.state == State::Stale {
            self.metrics.hold_ended(&edited.operation, edited.tier.as_str(), "stale");
        } else {
            edited = self.bring(edited, fetched).await;
        }
        Ok(edited)
    }

    /// All arguments as the agent gave them.
    async fn asked_for(&self, record: &CallRecord) -> Result<Value, Refusal> {
        let Some(edited) = &record.edited else { return Ok(self.store.arguments(record).await?) };
        let (request, arguments) = (edited.request.clone(), edited.arguments.clone());
        Ok(self.store.arguments(&CallRecord { request, arguments, ..record.clone() }).await?)
    }
}

fn renewal(
    s: &Snapshot,
    call: &Call,
    ask: &EditAsk,
    terms: crate::call::Terms,
    preview: Option<Box<crate::store::Preview>>,
) -> Renewal {
    let (config_digest, policy_digest) = s.digests();
    let fence = preview.as_ref().and_then(|p| p.fence.as_deref());
    let note = Note { code: "edited".into(), text: ask.note.clone(), by: Some(ask.by.name.clone()) };
    let digest = seen_digest(call.digest(), fence);
    Renewal { terms, digest, preview, config_digest, policy_digest, note }
}

fn editing(
    call: &Call,
    old: &Call,
    asked: &Value,
    ask: &EditAsk,
    renewal: Renewal,
    now: Timestamp,
) -> Result<Editing, Refusal> {
    let operation = call.operation();
    let differ = |from: &Value| -> Vec<Change> { changes(from, call.arguments(), &operation.redact).all };
    let shown = redacted(call.arguments(), &operation.redact);
    let edit = Edit {
        person: ask.by.name.clone(),
        aliases: ask.by.aliases.clone(),
        at: now,
        note: ask.note.clone(),
        changes: differ(old.arguments()),
    };
    Ok(Editing {
        request: stored_request(call),
        title: title(operation, &shown),
        arguments: shown.into(),
        schema_digest: operation.schema_digest,
        target: target_of(call),
        money: Budgets::money(call)?,
        edit,
        changes: differ(asked),
        renewal,
    })
}

/// The arguments after a JSON Patch. It can replace what is redacted, and neither compare it nor carry it to where it would
/// be seen: what the editor sees must come out as what there is does.
fn amended(arguments: &Value, patch: &Value, redact: &[String]) -> Result<Value, Refusal> {
    let seen = patched(&redacted(arguments, redact), patch)?;
    let after = patched(arguments, patch)?;
    if redacted(&seen, redact) != redacted(&after, redact) {
        let message = "the patch carries what is redacted to another place; give the values that you want there";
        return Err(invalid("/patch", message));
    }
    Ok(after)
}

/// A value after a JSON Patch.
fn patched(arguments: &Value, patch: &Value) -> Result<Value, Refusal> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|e| invalid("/patch", format!("is no JSON Patch (RFC 6902): {e}")))?;
    let mut after = arguments.clone();
    json_patch::patch(&mut after, &patch).map_err(|e| invalid("/patch", format!("does not apply: {e}")))?;
    Ok(after)
}

fn invalid(pointer: &str, message: impl Into<String>) -> Refusal {
    let message = message.into();
    let violation = Violation { pointer: pointer.into(), keyword: "patch".into(), message: message.clone() };
    Refusal::new(Code::InvalidArguments, format!("the edit cannot be made: {message}")).with_errors(vec![violation])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_brings_nothing_redacted_to_light() {
        let arguments = json!({"card": "4111", "note": "x", "who": [{"pin": "99"}, {"pin": "7"}]});
        let redact = ["/card".to_owned(), "/who/0/pin".to_owned()];
        let amend = |patch: Value| amended(&arguments, &patch, &redact).map_err(|r| r.public_text().to_owned());
        for patch in [
            json!([{"op": "copy", "from": "/card", "path": "/note"}]),
            json!([{"op": "move", "from": "/card", "path": "/note"}]),
            json!([{"op": "copy", "from": "", "path": "/note"}]),
            json!([{"op": "add", "path": "/who/0", "value": {}}]),
            json!([{"op": "copy", "from": "/who/0/pin", "path": "/who/1/pin"}]),
        ] {
            assert!(amend(patch.clone()).is_err(), "{patch}");
        }
        let guess = |card: &str| amend(json!([{"op": "test", "path": "/card", "value": card}])).unwrap_err();
        assert_eq!(guess("4111"), guess("4112"), "who guesses hears nothing");
        for (patch, card, note) in [
            (json!([{"op": "replace", "path": "/note", "value": "y"}]), "4111", "y"),
            (json!([{"op": "replace", "path": "/card", "value": "5500"}]), "5500", "x"),
            (json!([{"op": "test", "path": "/note", "value": "x"}]), "4111", "x"),
            (json!([{"op": "copy", "from": "/who/1/pin", "path": "/note"}]), "4111", "7"),
        ] {
            let after = amend(patch).unwrap();
            assert_eq!((&after["card"], &after["note"]), (&json!(card), &json!(note)));
        }
    }
}
