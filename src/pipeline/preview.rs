//! What a call will change: its target is read when people must decide, and once more before it is sent.

use bytes::Bytes;
use serde_json::Value;

use crate::call::{Call, Certainty, Code, DiffRule, PreviewRead, PreviewRule, Refusal, States, json, seen_digest};
use crate::gates::upstream::Read;
use crate::snapshot::Snapshot;
use crate::store::{CallRecord, Preview};

use super::Pipeline;
use super::own::{base, patience};

/// What was found out of a target, and the states that go with it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) preview: Box<Preview>,
    pub(super) states: States,
}

impl Seen {
    /// The states as they are sealed; empty when there are none.
    pub(super) fn sealed(&self) -> Bytes {
        if self.states == States::default() {
            return Bytes::new();
        }
        serde_json::to_vec(&self.states).map(Bytes::from).unwrap_or_default()
    }

    /// Puts it into the record of a call that is about to be written; returns what is sealed.
    pub(super) fn record(self, record: &mut CallRecord) -> Bytes {
        let states = self.sealed();
        record.digest = seen_digest(record.digest, self.preview.fence.as_deref());
        record.preview = Some(self.preview);
        states
    }
}

/// A target as it was read.
struct Found {
    target: String,
    fence: String,
    state: Value,
}

impl Pipeline {
    /// What the call will change, where its operation says how to find out. Whatever goes wrong is told, and costs the
    /// call nothing.
    pub(super) async fn preview(&self, s: &Snapshot, call: &Call) -> Option<Seen> {
        let rule = call.operation().preview.as_ref()?;
        let found = self.found(s, rule, call).await;
        if let Err(why) = &found {
            tracing::warn!(call.id = %call.id(), why, "the target of a call could not be read");
        }
        let (certainty, after, found, why) = match found {
            Err(why) => (Certainty::Unknown, None, None, Some(why)),
            Ok(found) => match self.after(s, rule, call, &found.state).await {
                Ok(after) => (certainty(s, rule, call, &found), Some(after), Some(found), None),
                Err(why) => (Certainty::Unknown, None, Some(found), Some(why)),
            },
        };
        let label = certainty.as_str();
        self.metrics.previews.with_label_values(&[call.operation().name.as_str(), label]).inc();
        let (target, fence, before) = match found {
            Some(found) => (Some(found.target), Some(found.fence), Some(found.state)),
            None => (None, None, None),
        };
        let redact = hidden(s, rule, call);
        let read_at = self.clock.now();
        let preview = Box::new(Preview { certainty, target, read_at, fence, why, redact, states: None });
        Some(Seen { preview, states: States { before, after, was: None } })
    }

    /// The target as it is now, if it is not as approvers saw it.
    ///
    /// # Errors
    /// When it cannot be read: then nothing is sent, and it is tried again.
    pub(super) async fn moved(&self, s: &Snapshot, record: &CallRecord, call: &Call) -> Result<Option<Seen>, Refusal> {
        let Some(fence) = record.preview.as_ref().and_then(|p| p.fence.as_ref()) else { return Ok(None) };
        if let Some(rule) = &call.operation().preview {
            let found = self.found(s, rule, call).await;
            let unread = |why: String| {
                let text = format!("its target cannot be read again, so nobody knows whether it moved: {why}");
                Refusal::new(Code::Unavailable, text)
            };
            if found.map_err(unread)?.fence == *fence {
                return Ok(None);
            }
        }
        // Where the operation has no preview any more, approvers saw what cannot be checked.
        let mut seen = self.preview(s, call).await.unwrap_or_else(|| self.unread());
        seen.states.was = self.store.states(record).await?.before;
        Ok(Some(seen))
    }

    pub(super) fn unread(&self) -> Seen {
        let preview = Preview {
            certainty: Certainty::Unknown,
            target: None,
            read_at: self.clock.now(),
            fence: None,
            why: Some("its operation is not read any more".into()),
            redact: Vec::new(),
            states: None,
        };
        Seen { preview: Box::new(preview), states: States::default() }
    }

    async fn found(&self, s: &Snapshot, rule: &PreviewRule, call: &Call) -> Result<Found, String> {
        let read = match &rule.read {
            PreviewRead::Request(request) => self.ask(s, request, call, None).await?,
            PreviewRead::Call(own) => Box::pin(self.own_read(s, own, call)).await?,
        };
        let Read { target, status, etag, body } = read;
        if !status.is_success() {
            return Err(format!("the read answered {}", status.as_u16()));
        }
        let state = json::read_any_number(&body).map_err(|e| format!("the read's answer: {e}"))?;
        let fence = rule.fence.of(etag.as_deref(), &state, &body);
        Ok(Found { target, fence, state })
    }

    async fn after(&self, s: &Snapshot, rule: &PreviewRule, call: &Call, before: &Value) -> Result<Value, String> {
        let body = call.request().body.clone();
        match &rule.diff {
            None => Err("its operation does not say what the request makes of it".into()),
            Some(DiffRule::DryRun(run)) => {
                let answer = self.ask(s, run, call, Some(body)).await?;
                if !answer.status.is_success() {
                    return Err(format!("the dry run answered {}", answer.status.as_u16()));
                }
                json::read_any_number(&answer.body).map_err(|e| format!("the dry run's answer: {e}"))
            }
            Some(diff) => diff.apply(before, &body),
        }
    }

    async fn ask(
        &self,
        s: &Snapshot,
        rule: &crate::call::ReadRule,
        call: &Call,
        body: Option<Bytes>,
    ) -> Result<Read, String> {
        let operation = call.operation();
        let (endpoint, base) = self.answering(s, &operation.tool.name)?;
        self.upstreams.read(endpoint, base, rule, call, body, patience(operation)).await
    }
}

/// What no page shows of the states: what is redacted of the call, and of what reads its target.
fn hidden(s: &Snapshot, rule: &PreviewRule, call: &Call) -> Vec<String> {
    let read = match &rule.read {
        PreviewRead::Request(_) => None,
        PreviewRead::Call(own) => s.operation(&own.operation),
    };
    call.operation().redact.iter().chain(read.iter().flat_map(|o| &o.redact)).cloned().collect()
}

/// Exact is what the tool itself says, and what goes to the very thing that was read.
fn certainty(s: &Snapshot, rule: &PreviewRule, call: &Call, found: &Found) -> Certainty {
    let dry = matches!(rule.diff, Some(DiffRule::DryRun(_)));
    if dry || goes_to(s, &call.operation().tool.name, &call.request().target.path, &found.target) {
        Certainty::Exact
    } else {
        Certainty::Predicted
    }
}

/// Whether a request to this path of a tool's upstream goes to what was read below its base.
pub(super) fn goes_to(s: &Snapshot, tool: &str, path: &str, read: &str) -> bool {
    fn path_of(target: &str) -> &str {
        target.split_once('?').map_or(target, |(path, _)| path)
    }
    path_of(path).strip_prefix(base(s, tool)) == Some(path_of(read))
}
