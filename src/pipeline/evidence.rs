//! Evidence that the proxy fetches by itself when people must decide: from a tool of its own choice, checked, and never
//! the agent's word.

use bytes::Bytes;
use futures_util::future::join_all;

use crate::call::{ArtifactId, Call, EvidenceRule, json, redacted, scrubbed};
use crate::snapshot::Snapshot;
use crate::store::{CallRecord, HoldError, NewArtifact, PROXY, Unfetched, proxys_own};

use super::Pipeline;

/// What was fetched for one call, and what was not.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    found: Vec<NewArtifact>,
    missing: Vec<Unfetched>,
}

impl Pipeline {
    /// Fetches every kind that the call's operation names, side by side. Whatever goes wrong is told, and costs the call
    /// nothing.
    pub(super) async fn fetch_evidence(&self, s: &Snapshot, call: &Call) -> Fetched {
        let rules = &call.operation().evidence;
        let all = join_all(rules.iter().map(|rule| self.fetch_kind(s, rule, call))).await;
        let mut fetched = Fetched::default();
        for (rule, outcome) in rules.iter().zip(all) {
            let label = if outcome.is_ok() { "fetched" } else { "missing" };
            self.metrics.evidence.with_label_values(&[call.operation().name.as_str(), &rule.kind, label]).inc();
            match outcome {
                Ok(artifact) => fetched.found.push(artifact),
                Err(why) => fetched.missing.push(unfetched(rule, why)),
            }
        }
        fetched
    }

    async fn fetch_kind(&self, s: &Snapshot, rule: &EvidenceRule, call: &Call) -> Result<NewArtifact, String> {
        let read = self.own_read(s, &rule.read, call).await?;
        if !read.status.is_success() {
            return Err(format!("the read answered {}", read.status.as_u16()));
        }
        let answer = json::read_any_number(&read.body).map_err(|e| format!("the read's answer: {e}"))?;
        rule.check(&answer)?;
        let of_operation = s.operation(&rule.read.operation).map(|o| o.redact.clone()).unwrap_or_default();
        let hidden: Vec<String> = rule.redact.iter().cloned().chain(of_operation).collect();
        // A tool may keep a secret of the call under another name.
        let text = scrubbed(redacted(&answer, &hidden).to_string(), call.arguments(), &call.operation().redact);
        Ok(NewArtifact {
            id: ArtifactId::new(),
            kind: rule.kind.clone(),
            title: format!("{}: {}", rule.read.operation, read.target),
            by: PROXY.to_owned(),
            principal_key: proxys_own(),
            content: Bytes::from(text),
        })
    }

    /// Keeps what was fetched and attaches it to the hold as it is in this record. The hold stands whatever comes of it.
    pub(super) async fn bring(&self, record: CallRecord, fetched: Fetched) -> CallRecord {
        let Fetched { found, mut missing } = fetched;
        if found.is_empty() && missing.is_empty() {
            return record;
        }
        let mut kept = Vec::new();
        for artifact in found {
            let (id, kind, title) = (artifact.id, artifact.kind.clone(), artifact.title.clone());
            match self.store.put_artifact(artifact).await {
                Ok(_) => kept.push(id),
                Err(_) => missing.push(Unfetched { kind, call: title, why: "it could not be stored".into() }),
            }
        }
        let attached = self.store.attach_fetched(record.id, kept, missing, record.digest).await;
        attached.unwrap_or_else(|error: HoldError| {
            tracing::warn!(call.id = %record.id, %error, "what was fetched for a hold is not attached");
            record
        })
    }
}

fn unfetched(rule: &EvidenceRule, why: String) -> Unfetched {
    tracing::warn!(operation.name = rule.read.operation, kind = rule.kind, why, "evidence could not be fetched");
    Unfetched { kind: rule.kind.clone(), call: rule.read.operation.clone(), why }
}
