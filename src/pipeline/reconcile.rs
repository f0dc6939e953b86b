//! What became of an unknown call, asked of its upstream by the read that the operation's owner configured.

use crate::call::{CallId, Fault};
use crate::gates::upstream::{Finding, Probed};
use crate::store::{Note, ResendBy, State};

use super::Pipeline;

impl Pipeline {
    /// Asks once. Found is believed at any time; not found only of a read that was begun after quiescence. Whatever
    /// else comes of it, the call stays unknown.
    pub(super) async fn probe(&self, id: CallId) {
        match self.try_probe(id).await {
            Ok(()) => {}
            Err(fault) => {
                tracing::warn!(fault = %fault.chain(), call.id = %id, "an unknown call could not be looked up")
            }
        }
    }

    async fn try_probe(&self, id: CallId) -> Result<(), Fault> {
        let s = self.snapshots.current();
        let Some(record) = self.store.get(id).await?.filter(|r| r.state == State::Unknown) else { return Ok(()) };
        if self.tool_is_stopped(&record.tool) {
            return Ok(());
        }
        let operation = s.operation(&record.operation);
        let rule = operation.and_then(|o| o.reconcile.read.as_ref());
        let Some((rule, endpoint)) = rule.zip(s.endpoints.get(&record.tool)) else { return Ok(()) };
        let restored = self.restored(&s, &record, None, None).await;
        // Another upstream, or another meaning of the arguments, proves nothing of what was sent then. A key that is
        // told today, but was not then, is not known to the upstream.
        let told = record.resend.is_some_and(|r| r.by == ResendBy::Header);
        let same_key = operation.is_some_and(|o| o.idempotency.upstream_header == told);
        let Some(call) = restored.ok().filter(|call| record.stands_for(call.digest()) && same_key) else {
            return Err(Fault::new("its operation is not the one that was sent"));
        };
        let base = s.config.tools.iter().find(|t| t.tool.name == record.tool).map_or("", |t| t.upstream.base());
        let asked = self.clock.now();
        let probed = self.upstreams.probe(endpoint, base, rule, &call).await;
        let probed = probed.map_err(|why| Fault::caused("the read said nothing", why))?;
        let label = match probed.finding {
            Finding::Found => "found",
            Finding::NotFound => "not_found",
            Finding::Unclear => "unclear",
        };
        self.metrics.reconcile_reads.with_label_values(&[record.operation.as_str(), label]).inc();
        tracing::info!(call.id = %id, target = probed.target, finding = label, "an unknown call was looked up");
        if probed.finding == Finding::Unclear || (probed.finding == Finding::NotFound && !record.is_quiet(asked)) {
            return Ok(());
        }
        let found = probed.finding == Finding::Found;
        if let Some(settled) = self.store.read_says(id, found, asked, note(&probed, &rule.found, found)).await? {
            tracing::warn!(call.id = %id, state = settled.state.as_str(), "an unknown call was settled by its read");
        }
        Ok(())
    }
}

/// The read and its answer, for the record: the agent may read it.
fn note(probed: &Probed, pointer: &str, found: bool) -> Note {
    let (status, digest) = probed.answer;
    let (code, said) = if found { ("found_by_read", "has it") } else { ("not_found_by_read", "does not have it") };
    let text = format!("the upstream {said}: GET {} answered {status}, `{pointer}` of {digest}", probed.target);
    Note { code: code.to_owned(), text, by: None }
}
