//! Takes an executed call back: a new call, linked to the first one, through every gate.

use serde_json::Value;

use crate::call::{
    Call, CallId, Code, Operation, Outcome, Principal, Refusal, States, UndoRule, Undone, undo_arguments,
};
use crate::gates::budget::Budgets;
use crate::gates::hold::{Denied, UndoAsk};
use crate::signals::Entry;
use crate::snapshot::Snapshot;
use crate::store::{CallRecord, State, UndoOf, undo_key};

use super::{Asking, Pipeline};

impl Pipeline {
    /// Makes the call that undoes another one; policy may hold it. Asked twice, it is the same call.
    ///
    /// # Errors
    /// Why there is no such call.
    pub async fn undo(&self, ask: UndoAsk) -> Result<CallRecord, Denied> {
        let s = self.snapshots.current();
        let record = self.store.get(ask.id).await?.ok_or_else(|| cannot("not_found", "there is no such call"))?;
        let rule = self.undoable(&s, &record)?;
        let operation = s.operation(&rule.operation).ok_or_else(|| cannot("not_undoable", "its undo is gone"))?;
        if !s.identity.still_active(&record.principal) {
            return Err(Refusal::new(Code::Forbidden, "the agent is not one that may act any more").into());
        }
        let first = self.restored(&s, &record, None, None).await?;
        let arguments = self.inverse(rule, operation, &record, &first).await?;
        let id = CallId::new();
        let call = s.schemas.inverse(&record.principal, &first, operation, arguments, (id, undo_key(record.id)))?;
        let mut entry = Entry::resumed(&record, s.digests(), self.clock.instant());
        entry.instead(&call);
        entry.undoes(record.id);
        let (person, aliases) = (ask.by.name, ask.by.aliases);
        let undoes = UndoOf { call: record.id, person, aliases, reason: ask.reason };
        let principal = record.principal.clone();
        let a = Asking { undoes: Some(&undoes), ..Asking::alone(&s, &principal, &call) };
        let outcome = Box::pin(self.undone(a, &mut entry)).await;
        let outcome = outcome.unwrap_or_else(|refusal| Outcome::Refused(refusal.for_call(id)));
        let about = outcome.call().unwrap_or(id);
        let outcome = self.close(&entry, outcome).await;
        match (self.store.get(about).await?, outcome) {
            (Some(made), _) => Ok(made),
            (None, Outcome::Refused(refusal)) => Err(refusal.into()),
            (None, _) => Err(cannot("not_undoable", "its undo changes nothing, so there is no record of it")),
        }
    }

    async fn undone(&self, a: Asking<'_>, entry: &mut Entry) -> Result<Outcome, Refusal> {
        a.s.rates.check(a.principal, &a.call.operation().name)?;
        self.pins.check(a.call.operation())?;
        Budgets::money(a.call)?;
        self.decide(a, entry).await
    }

    /// The rule by which it can be undone now.
    fn undoable<'s>(&self, s: &'s Snapshot, record: &CallRecord) -> Result<&'s UndoRule, Denied> {
        if record.state != State::Succeeded {
            return Err(cannot("not_executed", "only a call that was executed can be undone"));
        }
        let rule = s.operation(&record.operation).and_then(|o| o.undo.as_ref());
        let rule = rule.ok_or_else(|| cannot("not_undoable", "its operation says of no call that takes it back"))?;
        if self.clock.now() >= record.updated.plus(rule.within) {
            return Err(cannot("undo_too_late", "the time in which it could be undone is over"));
        }
        Ok(rule)
    }

    async fn inverse(
        &self,
        rule: &UndoRule,
        operation: &Operation,
        record: &CallRecord,
        first: &Call,
    ) -> Result<Value, Denied> {
        let states = if rule.needs_before() { self.store.states(record).await? } else { States::default() };
        let answer = if rule.needs_result() { self.store.answer_body(record).await? } else { None };
        let result = answer.map(|body| result(first, &body)).unwrap_or_default();
        let body = serde_json::from_slice(&first.request().body).unwrap_or_default();
        let of = Undone { input: first.arguments(), body: &body, states: &states, result: &result };
        let patch = operation.route.as_ref().is_some_and(|(method, _)| method == "PATCH");
        undo_arguments(&rule.how, &operation.path_params, patch, &of).map_err(|why| cannot("not_undoable", why))
    }
}

impl<'a> Asking<'a> {
    /// A call that the proxy carries by itself: nobody waits for it.
    pub(super) fn alone(s: &'a Snapshot, principal: &'a Principal, call: &'a Call) -> Self {
        Self { s, principal, call, token: None, waits: None, round: None, judged: None, undoes: None, granted: None }
    }
}

/// What the tool answered; of an MCP tool its structured result, else its text where that is JSON.
fn result(call: &Call, body: &[u8]) -> Value {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    if call.request().rpc.is_none() {
        return answer;
    }
    if let Some(structured) = answer.pointer("/result/structuredContent") {
        return structured.clone();
    }
    let text = answer.pointer("/result/content/0/text").and_then(Value::as_str);
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn cannot(code: &'static str, why: impl Into<String>) -> Denied {
    Denied::Cannot(code, why.into())
}
