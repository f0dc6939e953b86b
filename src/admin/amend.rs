//! Other arguments for a held call: over the API as a JSON Patch, on the page as the text of the arguments.

use axum::extract::Path;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{Change, Code, Digest, changes, is_hidden, json as strict};
use crate::gates::hold::{Denied, EditAsk, Person};
use crate::store::CallRecord;

use super::api::{self};
use super::decide::{Decision, WORDS, words};
use super::exact::Exact;
use super::filled::Filled;
use super::include::Include;
use super::openapi::ArgumentPatch;
use super::page;
use super::posted::Posted;
use super::problem::Problem;
use super::who::Who;

/// What a reviewer wants of a held call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EditHold")]
pub(super) struct Amend {
    digest: Digest,
    /// RFC 6902, on the arguments.
    #[schemars(with = "ArgumentPatch")]
    patch: Value,
    /// For the record and for the agent; not empty.
    #[schemars(length(max = WORDS), pattern(r"\S"))]
    note: String,
}

impl Decision<'_> {
    /// Makes another call of it, decided anew by policy; earlier approvals are void.
    pub(super) async fn edit(&self, said: Amend, exact: &Exact) -> Result<CallRecord, Problem> {
        let done = self.try_edit(said, exact).await;
        let record = self.noted("hold.edit", done).await?;
        self.count("edited", "-", false);
        Ok(record)
    }

    async fn try_edit(&self, said: Amend, exact: &Exact) -> Result<CallRecord, Problem> {
        words("note", Some(&said.note))?;
        if said.note.trim().is_empty() {
            return Err(Problem::invalid("`note` is empty: say why, for the record and for the agent"));
        }
        self.asker().permit("hold.edit", self.record)?;
        let ask = EditAsk {
            id: self.record.id,
            version: self.version,
            digest: said.digest,
            patch: said.patch,
            note: exact.scrub(&said.note),
            by: person(self.who),
        };
        let edited = (self.admin.edit)(ask).await.ok_or_else(Problem::unavailable)?;
        edited.map_err(|denied| self.denied(denied))
    }

    /// Why a core would not.
    pub(super) fn denied(&self, denied: Denied) -> Problem {
        match denied {
            Denied::Cannot("not_found", _) => Problem::not_found(),
            Denied::Cannot(code, why) if code.starts_with("grant_") => {
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, why)
            }
            Denied::Cannot(code, why) => Problem::new(StatusCode::CONFLICT, code, why),
            Denied::Hold(error) => Problem::of_hold(error, self.admin.clock.now()),
            Denied::Refused(refusal) if refusal.code() == Code::Forbidden => {
                let text = "policy forbids it as you want it, and no approval can change that";
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "policy_forbids_now", text)
                    .with_policies(refusal.policies())
            }
            Denied::Refused(refusal) => refusal.into(),
        }
    }
}

pub(super) fn person(who: &Who) -> Person {
    let aliases = who.aliases.iter().chain([&who.subject]).cloned().collect();
    Person { name: who.person.clone(), aliases }
}

pub(super) async fn edit(Path(id): Path<String>, Posted { asked, said, version }: Posted<Amend>) -> api::Answer {
    let record = asked.hold(&id).await?;
    let exact = asked.exact(&record).await;
    let done = asked.decision(&record, version).edit(said, &exact).await?;
    asked.shown(&done, Include::default()).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AmendForm {
    digest: Digest,
    arguments: String,
    note: Option<String>,
}

pub(super) async fn edit_form(Path(id): Path<String>, Filled { visit, said: form }: Filled<AmendForm>) -> page::Answer {
    let record = visit.hold(&id).await?;
    let exact = visit.exact(&record).await;
    let done = match patch(&record.arguments, &form.arguments) {
        Ok(patch) => {
            let said = Amend { digest: form.digest, patch, note: form.note.unwrap_or_default() };
            visit.decision(&record).edit(said, &exact).await
        }
        Err(problem) => Err(problem),
    };
    visit.after(record.id, done).await
}

/// What leads from the arguments that were shown to those that were written. What was redacted stays as it is unless it
/// was written anew.
fn patch(shown: &Value, written: &str) -> Result<Value, Problem> {
    let written = strict::read(written.as_bytes());
    let written = written.map_err(|e| Problem::invalid(format!("the arguments are no JSON: {e}")))?;
    let one = |c: &Change| match &c.value {
        Some(value) => json!({"op": c.op, "path": c.path, "value": value}),
        None => json!({"op": c.op, "path": c.path}),
    };
    Ok(changes(shown, &written, &[]).all.iter().map(one).collect())
}

/// Arguments as JSON to be changed by hand: what would not be seen stands as an escape, which JSON reads back.
pub(super) fn editable(arguments: &Value) -> String {
    let text = serde_json::to_string_pretty(arguments).unwrap_or_default();
    let escaped = |c: char| c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
    text.chars().map(|c| if is_hidden(c) && c != '\n' { escaped(c) } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_by_hand_becomes_a_patch() {
        let shown = json!({"a": 1, "card": "[redacted]", "b": [1], "c": "x\u{202e}y"});
        let text = editable(&shown);
        assert!(text.contains("x\\u202ey") && !text.contains('\u{202e}'), "{text}");
        assert_eq!(patch(&shown, &text).unwrap(), json!([]));
        let written = text.replace("\"a\": 1", "\"a\": 2").replace("\"b\": [\n    1\n  ],", "");
        let wanted = json!([{"op": "replace", "path": "/a", "value": 2}, {"op": "remove", "path": "/b"}]);
        assert_eq!(patch(&shown, &written).unwrap(), wanted);
        assert!(patch(&shown, "{").is_err());
        assert!(patch(&shown, r#"{"a":1,"a":2}"#).is_err(), "a member that stands twice");
    }
}
