//! Taking an executed call back: until when, by which call, what that changes; and the request itself.

use axum::extract::Path;
use axum::response::{IntoResponse, Redirect};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{Change, ChangeOp, Digest, Timestamp, UndoHow, UndoRule, duration_text, visible};
use crate::gates::hold::UndoAsk;
use crate::snapshot::Snapshot;
use crate::store::{CallRecord, Known, Question, State as CallState, Store, undo_key};

use super::amend::person;
use super::api::{self};
use super::decide::{Decision, REASONS, WORDS, words};
use super::exact::Exact;
use super::filled::Filled;
use super::foreseen::{Foreseen, Row, rows};
use super::openapi::ReasonCode;
use super::page;
use super::posted::Posted;
use super::problem::Problem;
use super::view;

/// How a call can be taken back.
#[derive(Debug)]
pub(super) struct Undo {
    rule: Option<UndoRule>,
    /// Until when, once it was executed.
    until: Option<Timestamp>,
    /// The call that takes, or took, it back.
    by: Option<(String, &'static str)>,
    /// What that changes, where the states are known.
    diff: Option<Vec<Change>>,
    /// The call that this one takes back, by whom and why.
    of: Option<(String, String, String)>,
    delay: Option<std::time::Duration>,
    not_before: Option<Timestamp>,
}

impl Undo {
    pub(super) async fn of(s: &Snapshot, store: &Store, record: &CallRecord, foreseen: Option<&Foreseen>) -> Self {
        let rule = s.operation(&record.operation).and_then(|o| o.undo.clone());
        let succeeded = record.state == CallState::Succeeded;
        let until = rule.as_ref().filter(|_| succeeded).map(|rule| record.updated.plus(rule.within));
        let by = match &rule {
            Some(rule) if succeeded => known(store, record, rule).await,
            _ => None,
        };
        let before = rule.as_ref().is_some_and(|r| r.how == UndoHow::Before);
        let diff = foreseen.filter(|_| before).and_then(|f| f.all()).map(|all| all.iter().map(reversed).collect());
        let of = record.undoes.as_ref().map(|u| (u.call.to_string(), u.person.clone(), u.reason.clone()));
        Self { rule, until, by, diff, of, delay: record.delay, not_before: record.not_before }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "operation": self.rule.as_ref().map(|r| &r.operation),
            "within_s": self.rule.as_ref().map(|r| r.within.as_secs()),
            "until": self.until,
            "diff": self.diff,
            "by": self.by.as_ref().map(|(call, state)| json!({"call": call, "state": state})),
            "of": self.of.as_ref().map(|(call, by, reason)| json!({"call": call, "by": by, "reason": reason})),
            "delay_s": self.delay.map(|d| d.as_secs()),
            "not_before": self.not_before,
        })
    }

    /// In a sentence, for approvers.
    fn words(&self) -> String {
        let delay = self
            .delay
            .map(|d| format!("It is sent {} after its approval and can be taken back until then. ", duration_text(d)));
        let undo = match &self.rule {
            Some(rule) => {
                let within = duration_text(rule.within);
                format!("Once executed it can be undone within {within}, by {}.", rule.operation)
            }
            None => "Once executed it cannot be undone.".to_owned(),
        };
        format!("{}{undo}", delay.unwrap_or_default())
    }

    /// For the page.
    pub(super) fn shown(&self) -> ShownUndo {
        ShownUndo {
            words: visible(&self.words()),
            until: self.until.map(|at| at.to_string()),
            rows: rows(self.diff.as_deref().unwrap_or_default()),
            by: self.by.clone(),
            of: self.of.as_ref().map(|(call, by, why)| (call.clone(), visible(by), visible(why))),
        }
    }
}

/// What the page shows of it.
#[derive(Debug)]
pub(super) struct ShownUndo {
    pub(super) words: String,
    pub(super) until: Option<String>,
    pub(super) rows: Vec<Row>,
    pub(super) by: Option<(String, &'static str)>,
    pub(super) of: Option<(String, String, String)>,
}

async fn known(store: &Store, record: &CallRecord, rule: &UndoRule) -> Option<(String, &'static str)> {
    let key = undo_key(record.id);
    let (principal, operation) = (&*record.principal, rule.operation.as_str());
    // Whatever its arguments: the key is the call's own.
    let fingerprint = Digest::of(key.as_bytes());
    let question = Question { principal, operation, key: Some(&key), key_derived: false, fingerprint };
    let Ok(Known::KeyReused(id)) = store.look_up(question).await else { return None };
    let made = store.get(id).await.ok()??;
    Some((id.to_string(), made.state.as_str()))
}

fn reversed(change: &Change) -> Change {
    let op = match change.op {
        ChangeOp::Add => ChangeOp::Remove,
        ChangeOp::Remove => ChangeOp::Add,
        ChangeOp::Replace => ChangeOp::Replace,
    };
    Change { op, path: change.path.clone(), from: change.value.clone(), value: change.from.clone() }
}

/// Why a call is taken back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "UndoCall")]
pub(super) struct Wish {
    /// Not empty.
    #[schemars(length(max = WORDS), pattern(r"\S"))]
    justification: String,
    /// For the metric: one of the reasons of a rejection.
    #[serde(default)]
    #[schemars(with = "Option<ReasonCode>")]
    reason_code: Option<String>,
}

impl Decision<'_> {
    /// Makes the call that takes it back.
    async fn undo(&self, wish: Wish, exact: &Exact) -> Result<CallRecord, Problem> {
        let code = wish.reason_code.clone();
        let done = self.noted("undo.run", self.try_undo(wish, exact).await).await;
        let result = done.as_ref().map_or("refused", |made| match made.state {
            CallState::Held | CallState::Approved => "held",
            CallState::Succeeded => "executed",
            CallState::Dispatching | CallState::Unknown => "unknown",
            _ => "failed",
        });
        let reason = code.as_deref().map_or("other", |c| if REASONS.contains(&c) { c } else { "x_local" });
        self.admin.metrics.undo.with_label_values(&[self.record.operation.as_str(), result, reason]).inc();
        done
    }

    async fn try_undo(&self, wish: Wish, exact: &Exact) -> Result<CallRecord, Problem> {
        words("justification", Some(&wish.justification))?;
        if wish.justification.trim().is_empty() {
            let text = "`justification` is empty: say why it is taken back";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "justification_required", text));
        }
        if let Some(code) = wish.reason_code.as_deref().filter(|c| !REASONS.contains(c) && !c.starts_with("x_")) {
            let text = format!("`{}` is not one of {}", code.escape_debug(), REASONS.join(", "));
            return Err(Problem::invalid(text));
        }
        self.asker().permit("undo.run", self.record)?;
        let ask = UndoAsk { id: self.record.id, reason: exact.scrub(&wish.justification), by: person(self.who) };
        let made = (self.admin.undo)(ask).await.ok_or_else(Problem::unavailable)?;
        made.map_err(|denied| self.denied(denied))
    }
}

pub(super) async fn undo(Path(id): Path<String>, Posted { asked, said: wish, .. }: Posted<Wish>) -> api::Answer {
    let record = asked.call(&id).await?;
    let exact = asked.exact(&record).await;
    let made = asked.decision(&record, None).undo(wish, &exact).await?;
    let mut out = view::decided(&made, asked.admin.clock.now());
    if let Some(members) = out.as_object_mut() {
        members.insert("call".into(), made.id.to_string().into());
        if made.terms.is_some() {
            members.insert("hold".into(), made.id.hold().to_string().into());
        }
    }
    Ok(api::ok(&out, Some(made.version)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WishForm {
    justification: Option<String>,
    reason_code: Option<String>,
}

pub(super) async fn form(Path(id): Path<String>, Filled { visit, said: form }: Filled<WishForm>) -> page::Answer {
    let record = visit.call(&id).await?;
    let exact = visit.exact(&record).await;
    let reason_code = form.reason_code.filter(|c| !c.is_empty());
    let wish = Wish { justification: form.justification.unwrap_or_default(), reason_code };
    match visit.decision(&record).undo(wish, &exact).await {
        Ok(made) => Ok(Redirect::to(&format!("/calls/{}", made.id)).into_response()),
        Err(problem) => {
            let record = visit.call(&id).await?;
            visit.record(&record, false, Some(&problem)).await
        }
    }
}
