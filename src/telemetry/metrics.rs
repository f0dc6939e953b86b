//! Every metric, declared once. Names and labels are those of the operations page; labels come from closed sets
//! (tools, operations, policies, groups, codes), never from what a caller wrote.

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::call::Fault;

macro_rules! metrics {
    ($($(#[$doc:meta])* $field:ident: $kind:ident = $name:literal, $help:literal, [$($label:literal),*];)*) => {
        /// The metrics of this process.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[$doc])* pub $field: $kind,)*
        }

        impl Metrics {
            /// All of them, at zero.
            ///
            /// # Errors
            /// A fault when two have one name: a bug.
            pub fn new() -> Result<Self, Fault> {
                let registry = Registry::new();
                let wrong = |e| Fault::caused("declaring a metric", e);
                $(let $field = make::$kind(&registry, $name, $help, &[$($label),*]).map_err(wrong)?;)*
                Ok(Self { registry, $($field,)* })
            }

            /// Names and labels, for the documentation and its test.
            pub const DECLARED: &'static [(&'static str, &'static [&'static str])] = &[$(($name, &[$($label),*]),)*];
        }
    };
}

metrics! {
    /// Calls by what became of them.
    calls: IntCounterVec = "holdpoint_calls_total", "Calls by outcome", ["op", "tier", "outcome"];
    /// Refusals by code.
    refusals: IntCounterVec = "holdpoint_refusals_total", "Refusals by code", ["op", "code"];
    /// Time that calls spent in the proxy itself.
    overhead: HistogramVec = "holdpoint_overhead_seconds", "Time spent in the proxy, by phase", ["phase"];
    /// Denied by policy though the agent tried.
    near_misses: IntCounterVec = "holdpoint_near_misses_total", "Calls that policy denied", ["op", "policy"];
    /// What policy would have said where it does not rule.
    shadow_decisions: IntCounterVec = "holdpoint_shadow_decisions_total", "Calls that policies in shadow, or a set that observes, judge otherwise", ["policy", "change"];
    /// Which policies decide how often.
    policy_hits: IntCounterVec = "holdpoint_policy_hits_total", "Calls that a policy decided", ["policy"];
    /// Policies that could not be evaluated.
    policy_errors: IntCounterVec = "holdpoint_policy_errors_total", "Policies that failed to evaluate; the call was refused", ["policy"];
    /// Time to decide.
    policy_seconds: HistogramVec = "holdpoint_policy_seconds", "Time to ask policy", [];
    /// Arguments outside their schema.
    schema_violations: IntCounterVec = "holdpoint_schema_violations_total", "Calls outside their schema", ["op", "direction"];
    /// Repeats recognized.
    idempotency: IntCounterVec = "holdpoint_idempotency_total", "Repeats recognized, by what they met", ["op", "result"];
    /// Answers of upstreams.
    upstream_requests: IntCounterVec = "holdpoint_upstream_requests_total", "Upstream requests by class of answer", ["tool", "op", "class"];
    /// Deadlines passed.
    upstream_timeouts: IntCounterVec = "holdpoint_upstream_timeouts_total", "Upstream deadlines passed", ["tool"];
    /// Reads that asked what became of an unknown call.
    undo: IntCounterVec = "holdpoint_undo_total", "Calls that people took back, by what came of it and why", ["op", "result", "reason"];
    previews: IntCounterVec = "holdpoint_previews_total", "Effects foreseen before people decided, by certainty", ["op", "certainty"];
    evidence: IntCounterVec = "holdpoint_evidence_fetched_total", "Evidence that the proxy was to fetch, by what came of it", ["op", "kind", "result"];
    reconcile_reads: IntCounterVec = "holdpoint_reconcile_reads_total", "Reads of unknown calls by what they found", ["op", "result"];
    /// Time that upstreams took.
    upstream_seconds: HistogramVec = "holdpoint_upstream_seconds", "Upstream time to the head of the answer", ["tool", "op"];
    /// 0 closed, 1 half-open, 2 open.
    breaker_state: IntGaugeVec = "holdpoint_breaker_state", "0 closed, 1 half-open, 2 open", ["tool"];
    /// The lowest trust.
    trust: IntGaugeVec = "holdpoint_trust_score", "The lowest trust, 0 to 100, of agents of the group in the workflow", ["agent_group", "workflow"];
    /// What spent trust.
    surprises: IntCounterVec = "holdpoint_surprises_total", "What spent trust", ["workflow", "kind"];
    /// What is stopped.
    pauses: IntGaugeVec = "holdpoint_pauses", "What the kill switch has stopped, by kind of scope", ["scope"];
    /// Tools whose definition nobody has accepted.
    paused_tools: IntGaugeVec = "holdpoint_paused_tools", "Tools whose definition nobody has accepted", ["tool"];
    /// Decisions on holds.
    hold_decisions: IntCounterVec = "holdpoint_hold_decisions_total", "Decisions on holds", ["op", "tier", "group", "decision", "channel"];
    /// Rejections with their reason.
    rejects: IntCounterVec = "holdpoint_rejects_total", "Rejections by reason code", ["op", "reason"];
    /// From parking to a decision.
    hold_decision_seconds: HistogramVec = "holdpoint_hold_decision_seconds", "From parking to the decision", ["tier", "group"];
    /// Holds now.
    holds: IntGaugeVec = "holdpoint_holds", "Open calls by state", ["state", "tier"];
    /// Holds to which nobody could give the next vote; absent where the reviewers cannot be listed.
    holds_without_approver: IntGaugeVec = "holdpoint_holds_without_approver", "Holds that no configured reviewer could approve", [];
    /// Live grants.
    grants: IntGaugeVec = "holdpoint_grants", "Live grants", ["op"];
    /// Calls that passed by a grant.
    grant_uses: IntCounterVec = "holdpoint_grant_uses_total", "Calls that passed by a grant", ["op"];
    /// Calls looked at after the fact.
    samples: IntCounterVec = "holdpoint_samples_total", "Calls picked to be looked at after they ran, and what people said", ["op", "verdict"];
    /// Store failures.
    store_errors: IntCounterVec = "holdpoint_store_errors_total", "Steps that the store could not record", ["op"];
    /// Attempts to notify.
    notifications: IntCounterVec = "holdpoint_notifications_total", "Attempts to notify, by channel and result", ["channel", "result"];
    /// Reloads.
    config_reloads: IntCounterVec = "holdpoint_config_reloads_total", "Reloads by result", ["result"];
    /// Requests refused before anybody was identified.
    unidentified: IntCounterVec = "holdpoint_unidentified_refusals_total", "Requests refused before their sender was known", ["code"];
    /// Which versions rule.
    info: IntGaugeVec = "holdpoint_info", "Version, configuration and policies in force", ["version", "config_digest", "policy_digest", "mode"];
    /// 1 when new calls with effects can be recorded.
    ready: IntGauge = "holdpoint_ready", "1 when calls with effects can be recorded", [];
}

/// Makes and registers one metric of each kind.
#[expect(non_snake_case, reason = "named after the types that they make")]
mod make {
    use super::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
    use prometheus::Result;

    const BUCKETS: [f64; 16] = [
        0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0,
        3600.0,
    ];

    pub(super) fn IntCounterVec(r: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        r.register(Box::new(metric.clone())).map(|()| metric)
    }
    pub(super) fn IntGaugeVec(r: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
        r.register(Box::new(metric.clone())).map(|()| metric)
    }
    pub(super) fn IntGauge(r: &Registry, name: &str, help: &str, _labels: &[&str]) -> Result<IntGauge> {
        let metric = IntGauge::new(name, help)?;
        r.register(Box::new(metric.clone())).map(|()| metric)
    }
    pub(super) fn HistogramVec(r: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec> {
        let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()), labels)?;
        r.register(Box::new(metric.clone())).map(|()| metric)
    }
}

impl Metrics {
    /// A hold that ended without a reviewer's decision: `expired`, `withdrawn`, `revoked`, `stale`.
    pub fn hold_ended(&self, op: &str, tier: &str, decision: &str) {
        self.hold_decisions.with_label_values(&[op, tier, "none", decision, "none"]).inc();
    }

    /// The text format of Prometheus.
    ///
    /// # Errors
    /// A fault when a metric cannot be written: a bug.
    pub fn text(&self) -> Result<String, Fault> {
        let mut out = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut out)
            .map_err(|e| Fault::caused("writing metrics", e))?;
        String::from_utf8(out).map_err(|e| Fault::caused("writing metrics", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_own_name_and_base_units() {
        let metrics = Metrics::new().unwrap();
        assert!(metrics.text().unwrap().contains("holdpoint_ready"));
        for (name, labels) in Metrics::DECLARED {
            assert!(name.starts_with("holdpoint_"), "{name}");
            assert!(!labels.iter().any(|l| ["agent", "user", "path", "call", "run"].contains(l)), "{name}");
        }
    }
}
