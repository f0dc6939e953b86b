//! Some of the calls that nobody looked at before they ran are put on a list, to be looked at afterwards.

use std::sync::Arc;

use crate::call::method::Role;
use crate::call::{SampleRate, Tier, redacted, title};
use crate::gates::authz::Permit;
use crate::store::Sample;

use super::{Asking, Pipeline};

impl Pipeline {
    /// A call of the low tier, or one that passes by a grant, is picked by its id. It is put on the list when it is sent; a
    /// list that cannot be written is no reason to stop what has begun.
    pub(super) fn sample(&self, a: &Asking<'_>, permit: &Permit, recorded: bool) {
        let rate = match a.granted {
            Some(_) => a.s.policies.sampled(permit).max(SampleRate::GRANTS),
            None if permit.tier() == Tier::Low => a.s.policies.sampled(permit),
            None => return,
        };
        let operation = a.call.operation();
        // What takes another call back is a person's, and is looked at by people already.
        if operation.role != Role::Call || a.undoes.is_some() || !rate.picks(a.call.id()) {
            return;
        }
        let shown = redacted(a.call.arguments(), &operation.redact);
        let sample = Sample {
            id: a.call.id(),
            operation: operation.name.clone(),
            principal: Arc::new(a.principal.clone()),
            workflow: a.call.context().workflow.clone(),
            title: title(operation, &shown),
            arguments: shown.into(),
            policies: permit.policies().to_vec(),
            grant: a.granted.map(|granted| granted.id),
            recorded,
            at: self.clock.now(),
            judged: None,
        };
        if let Err(fault) = self.store.sample(sample) {
            tracing::error!(fault = %fault.chain(), call.id = %a.call.id(), "a sampled call could not be put on the list");
            return;
        }
        self.metrics.samples.with_label_values(&[operation.name.as_str(), "picked"]).inc();
    }
}
