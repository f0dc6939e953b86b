//! One record for each call: a log line, counters, and an audit note for what the store has not recorded itself.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use crate::call::{
    Asked, Call, CallId, Code, Digest, Fault, Incoming, Operation, Outcome, Principal, Refusal, Timestamp,
};
use crate::store::{AuditNote, CallRecord};
use crate::telemetry::Metrics;

/// What is known of a call while it passes the gates.
#[derive(Debug)]
pub struct Entry {
    call: CallId,
    tool: String,
    started: Instant,
    principal: Option<Principal>,
    operation: Option<String>,
    effects: bool,
    context: Option<(String, String)>,
    digest: Option<Digest>,
    digests: (Digest, Digest),
    /// What policy was asked, for calls that no step of the store records.
    asked: Option<Box<Asked>>,
    undoes: Option<CallId>,
    /// A step of the store has recorded it.
    recorded: bool,
    sent: bool,
    headers: HeaderMap,
}

impl Entry {
    /// Opens the entry of a message under these versions of configuration and policies.
    #[must_use]
    pub fn open(incoming: &Incoming, digests: (Digest, Digest), started: Instant) -> Self {
        Self {
            call: incoming.id,
            tool: incoming.tool.clone(),
            started,
            principal: None,
            operation: None,
            effects: false,
            context: None,
            digest: None,
            digests,
            asked: None,
            undoes: None,
            recorded: false,
            sent: false,
            headers: HeaderMap::new(),
        }
    }

    /// Opens the entry of a stored call that is sent after its approval.
    #[must_use]
    pub fn resumed(record: &CallRecord, digests: (Digest, Digest), started: Instant) -> Self {
        Self {
            call: record.id,
            tool: record.tool.clone(),
            started,
            principal: Some((*record.principal).clone()),
            operation: Some(record.operation.clone()),
            effects: true,
            context: Some((record.context.workflow.clone(), record.context.run.clone())),
            digest: Some(record.digest),
            digests,
            asked: None,
            undoes: None,
            recorded: true,
            sent: false,
            headers: HeaderMap::new(),
        }
    }

    /// Another call than the stored one, which nothing has recorded yet.
    pub fn instead(&mut self, call: &Call) {
        (self.call, self.recorded) = (call.id(), false);
        self.operation(call.operation());
        self.call(call);
    }

    /// Who it was.
    pub fn principal(&mut self, principal: &Principal) {
        self.principal = Some(principal.clone());
    }

    /// What was asked for.
    pub fn operation(&mut self, operation: &Operation) {
        self.operation = Some(operation.name.clone());
        self.effects = !operation.effects.is_read();
    }

    /// The call that passed its schema.
    pub fn call(&mut self, call: &Call) {
        self.context = Some((call.context().workflow.clone(), call.context().run.clone()));
        self.digest = Some(call.digest());
    }

    /// What policy was asked about it.
    pub fn asked(&mut self, asked: Option<Asked>) {
        self.asked = asked.map(Box::new);
    }

    /// It takes another call back: a person wants that, not the agent.
    pub fn undoes(&mut self, call: CallId) {
        self.undoes = Some(call);
    }

    /// A step of the store has recorded this call: no note of ours is needed.
    pub fn recorded(&mut self) {
        self.recorded = true;
    }

    /// From here on the call may have its effect.
    pub fn sending(&mut self) {
        self.sent = true;
    }

    /// The refusal for a failure of ours: what may have been sent is never told as not executed.
    #[must_use]
    pub fn failed(&self, fault: Fault) -> Refusal {
        let refusal = Refusal::from(fault);
        if !self.sent {
            return refusal;
        }
        let text = "the proxy failed while the call was under way; it may have been executed";
        Refusal::new(Code::OutcomeUnknown, text).with("retryable", false)
    }

    /// Adds a header field to the answer.
    pub fn header(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(HeaderName::from_static(name), value);
        }
    }

    /// When the message arrived.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The call's id.
    #[must_use]
    pub fn id(&self) -> CallId {
        self.call
    }

    /// Header fields for the answer.
    pub fn take_headers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.headers)
    }

    /// Whether anybody was proven.
    #[must_use]
    pub fn is_identified(&self) -> bool {
        self.principal.is_some()
    }

    /// One line and its counters.
    pub fn tell(&self, outcome: &Outcome, metrics: &Metrics, now: Instant) {
        let op = self.operation.as_deref().unwrap_or("_other");
        let (tier, code) = match outcome {
            Outcome::Forwarded { tier, .. } | Outcome::Held { tier, .. } => (tier.as_str(), None),
            Outcome::Replayed { .. } => ("none", None),
            Outcome::Refused(r) => ("none", Some(r.code())),
        };
        metrics.calls.with_label_values(&[op, tier, outcome.decision()]).inc();
        if let (Some(code), Outcome::Refused(refusal)) = (code, outcome) {
            self.count_refusal(op, code, refusal, metrics);
        }
        let code = code.map_or("", Code::as_str);
        let agent = self.principal.as_ref().map_or("", |p| p.agent.as_str());
        let micros = u64::try_from(now.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX);
        tracing::info!(
            call.id = %self.call, tool.name = self.tool, operation.name = op, principal.id = agent,
            decision = outcome.decision(), tier, code, duration_us = micros, "call"
        );
    }

    fn count_refusal(&self, op: &str, code: Code, refusal: &crate::call::Refusal, metrics: &Metrics) {
        metrics.refusals.with_label_values(&[op, code.as_str()]).inc();
        match code {
            Code::InvalidArguments => metrics.schema_violations.with_label_values(&[op, "request"]).inc(),
            Code::Forbidden => {
                let ids = refusal.policies().iter().map(|p| p.id.as_str());
                let none = refusal.policies().is_empty().then_some("none");
                ids.chain(none).for_each(|id| metrics.near_misses.with_label_values(&[op, id]).inc());
            }
            _ => {}
        }
    }

    /// The audit note, unless the store has recorded the call itself. What was asked of policy stands in it, without
    /// redacted arguments.
    #[must_use]
    pub fn note(&self, outcome: &Outcome) -> Option<AuditNote> {
        let principal = self.principal.as_ref()?;
        if self.recorded {
            return None;
        }
        let kind = match outcome {
            Outcome::Refused(_) => "call.refused",
            Outcome::Replayed { .. } => "call.replayed",
            Outcome::Held { .. } => "call.attached",
            Outcome::Forwarded { .. } => "call.read",
        };
        let mut more = BTreeMap::new();
        more.insert("tool".to_owned(), self.tool.clone().into());
        more.insert("config_digest".to_owned(), self.digests.0.to_string().into());
        more.insert("policy_digest".to_owned(), self.digests.1.to_string().into());
        if let Some(call) = self.undoes {
            more.insert("undoes".to_owned(), call.to_string().into());
        }
        if let Some(digest) = self.digest {
            more.insert("digest".to_owned(), digest.to_string().into());
        }
        if let Some(asked) = self.asked.as_ref().and_then(|asked| serde_json::to_value(asked).ok()) {
            more.insert("asked".to_owned(), asked);
        }
        let code = match outcome {
            Outcome::Refused(r) => {
                if !r.policies().is_empty() {
                    more.insert("policies".into(), r.policies().iter().map(|p| p.id.clone()).collect());
                }
                Some(r.code().as_str().to_owned())
            }
            Outcome::Replayed { call, .. } => {
                more.insert("of".into(), call.to_string().into());
                None
            }
            Outcome::Held { hold, .. } => {
                more.insert("of".into(), hold.to_string().into());
                None
            }
            Outcome::Forwarded { .. } => None,
        };
        Some(AuditNote {
            kind: kind.into(),
            call: Some(self.call),
            principal: Some(principal.subject.clone()),
            agent: Some((principal.org.clone(), principal.agent.clone())),
            run: self.context.as_ref().map(|(_, run)| run.clone()),
            operation: self.operation.clone(),
            code,
            more,
        })
    }

    /// Whether the note must be on the disk before the agent hears of the outcome.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.effects
    }
}

/// Strangers and floods cannot fill the journal: at most one line a second, with the count.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<(u64, Option<Timestamp>)>);

impl Throttle {
    /// Counts one; gives the count to record when a second has passed since the last record.
    pub fn count(&self, now: Timestamp) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        Self::due(&mut state, now)
    }

    /// What was counted and not yet recorded, when a second has passed.
    pub fn flush(&self, now: Timestamp) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Self::due(&mut state, now)
    }

    fn due(state: &mut (u64, Option<Timestamp>), now: Timestamp) -> Option<u64> {
        let waited = state.1.is_none_or(|last| now.since(last) >= Duration::from_secs(1));
        if state.0 == 0 || !waited {
            return None;
        }
        state.1 = Some(now);
        Some(std::mem::take(&mut state.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_a_second() {
        let t = Throttle::default();
        let at = Timestamp::from_millis;
        assert_eq!(t.count(at(0)), Some(1));
        assert_eq!((1..100).filter_map(|i| t.count(at(i))).count(), 0);
        assert_eq!(t.count(at(1000)), Some(100));
        assert_eq!(t.flush(at(3000)), None);
    }
}
