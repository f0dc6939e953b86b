//! Rate limits: the most specific first, so that one caller cannot drain what all share.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::call::{Code, Principal, Refusal};
use crate::config::{RatePer, RateRule};

type Limiter = RateLimiter<String, DefaultKeyedStateStore<String>, DefaultClock, StateInformationMiddleware>;

/// The rate gate. Shared by all cores; kept over a reload as long as its rules stay the same.
#[derive(Debug)]
pub struct Rates {
    rules: Vec<(RateRule, Limiter)>,
    evidence: Limiter,
    clock: DefaultClock,
}

/// How the tightest limit stands, for the `RateLimit` fields (draft-ietf-httpapi-ratelimit-headers).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Value of `RateLimit-Policy`.
    pub policy: String,
    /// Value of `RateLimit`.
    pub limit: String,
    remaining: u32,
}

impl Rates {
    /// One limiter for each rule, most specific first.
    #[must_use]
    pub fn new(rules: &[RateRule]) -> Self {
        let mut rules = rules.to_vec();
        rules.sort_by_key(|r| r.per);
        let limiter = |r: &RateRule| RateLimiter::keyed(quota(r)).with_middleware::<StateInformationMiddleware>();
        Self {
            rules: rules.into_iter().map(|r| (limiter(&r), r)).map(|(l, r)| (r, l)).collect(),
            evidence: RateLimiter::keyed(quota(&EVIDENCE)).with_middleware::<StateInformationMiddleware>(),
            clock: DefaultClock::default(),
        }
    }

    /// Whether these are the rules it was made of.
    #[must_use]
    pub fn same_as(&self, rules: &[RateRule]) -> bool {
        let mut rules = rules.to_vec();
        rules.sort_by_key(|r| r.per);
        self.rules.iter().map(|(rule, _)| rule).eq(&rules)
    }

    /// Takes one call from every limit that applies, or none from the ones after the first that is spent.
    ///
    /// # Errors
    /// `rate_limited` with the limit and when it frees.
    pub fn check(&self, principal: &Principal, operation: &str) -> Result<Option<Standing>, Refusal> {
        let mut tightest: Option<Standing> = None;
        for (rule, limiter) in &self.rules {
            if !rule.operations.is_empty() && !rule.operations.iter().any(|o| o == operation) {
                continue;
            }
            match limiter.check_key(&key(rule.per, principal, operation)) {
                Ok(state) => {
                    let standing = standing(rule, state.remaining_burst_capacity());
                    if tightest.as_ref().is_none_or(|t| standing.remaining < t.remaining) {
                        tightest = Some(standing);
                    }
                }
                Err(not_until) => return Err(spent(rule, not_until.wait_time_from(self.clock.now()))),
            }
        }
        Ok(tightest)
    }

    /// Evidence is stored for good: one agent may bring so much of it.
    ///
    /// # Errors
    /// `rate_limited` with when it frees.
    pub fn check_evidence(&self, principal: &Principal) -> Result<(), Refusal> {
        let key = key(RatePer::Agent, principal, "");
        let spent = |wait| spent(&EVIDENCE, wait).with("limit", "evidence");
        self.evidence.check_key(&key).map(|_| ()).map_err(|not| spent(not.wait_time_from(self.clock.now())))
    }

    /// Forgets callers whose limits are whole again. To be called now and then.
    pub fn tidy(&self) {
        for (_, limiter) in &self.rules {
            limiter.retain_recent();
        }
        self.evidence.retain_recent();
    }
}

/// Evidence: 120 pieces at once, one more each second.
const EVIDENCE: RateRule =
    RateRule { per: RatePer::Agent, operations: Vec::new(), limit: 1, period: Duration::from_secs(1), burst: 120 };

fn quota(rule: &RateRule) -> Quota {
    let limit = NonZeroU32::new(rule.limit).unwrap_or(NonZeroU32::MIN);
    let burst = NonZeroU32::new(rule.burst).unwrap_or(NonZeroU32::MIN);
    let each = rule.period / limit.get();
    Quota::with_period(each).unwrap_or_else(|| Quota::per_second(limit)).allow_burst(burst)
}

fn key(per: RatePer, principal: &Principal, operation: &str) -> String {
    match per {
        RatePer::AgentOperation => format!("{}\n{}\n{operation}", principal.org, principal.agent),
        RatePer::Agent => format!("{}\n{}", principal.org, principal.agent),
        RatePer::Operation => operation.to_owned(),
        RatePer::Total => String::new(),
    }
}

const fn name(per: RatePer) -> &'static str {
    match per {
        RatePer::AgentOperation => "agent+operation",
        RatePer::Agent => "agent",
        RatePer::Operation => "operation",
        RatePer::Total => "total",
    }
}

/// Seconds in which a spent limit is whole again.
fn window(rule: &RateRule) -> u64 {
    let whole = rule.period.as_secs_f64() * f64::from(rule.burst) / f64::from(rule.limit.max(1));
    Duration::from_secs_f64(whole.ceil().max(1.0)).as_secs()
}

fn standing(rule: &RateRule, remaining: u32) -> Standing {
    let name = name(rule.per);
    Standing {
        policy: format!("\"{name}\";q={};w={}", rule.burst, window(rule)),
        limit: format!("\"{name}\";r={remaining}"),
        remaining,
    }
}

fn spent(rule: &RateRule, wait: Duration) -> Refusal {
    let name = name(rule.per);
    let text = format!(
        "the rate limit per {name} is spent: {} in {} s, {} at once",
        rule.limit,
        rule.period.as_secs(),
        rule.burst
    );
    Refusal::new(Code::RateLimited, text).with_retry_after(wait).with("limit", name)
}
