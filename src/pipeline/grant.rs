//! Grants: what a reviewer may give from a call that was approved, and calls that pass by one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::call::mrtr;
use crate::call::{
    Call, Code, GrantCaps, GrantId, GrantOver, Loose, Refusal, Terms, Violation, overlap, redacted, rest_of, spent_on,
    take_out,
};
use crate::gates::authz::Permit;
use crate::gates::hold::{Denied, GrantAsk};
use crate::store::{CallRecord, Charge, Grant, HoldError};

use super::{Asking, Pipeline};

/// The grant by which a call passes that people would else have to look at.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) id: GrantId,
    /// What it takes of the grant.
    pub(super) charges: Vec<Charge>,
    /// How it is held if the grant is over before it begins.
    pub(super) terms: Terms,
}

impl Pipeline {
    /// The leave that a live grant gives to a call that policy holds under these terms. Policy is asked once more, with
    /// that approval; whatever else a call needs, it still needs.
    pub(super) async fn granted(&self, a: &Asking<'_>, terms: &Terms) -> Result<Option<(Permit, Granted)>, Refusal> {
        let (operation, context) = (a.call.operation(), a.call.context());
        let grantable = a.undoes.is_none() && operation.delay.is_none() && !forwards(a.call);
        let Some(told) = a.judged.filter(|_| grantable) else { return Ok(None) };
        let brought = terms.needs.evidence.iter().all(|kind| told.facts.evidence.contains(kind));
        if !brought || a.s.policies.grantable(terms).is_err() {
            return Ok(None);
        }
        for found in self.store.live_grants(&a.principal.key(), &operation.name, &context.workflow)? {
            let grant = found.grant;
            if a.s.outlaws(&grant.operation, &grant.leans).is_some() {
                self.end_outlawed(a).await?;
                continue;
            }
            let lifts = terms.why.iter().all(|why| grant.leans.forbids.contains_key(&why.policy));
            let Some(charges) = grant.takes(a.call.arguments()).filter(|_| lifts) else { continue };
            if !self.has_room(&charges)? {
                continue;
            }
            let permit = a.s.policies.authorize_granted(a.principal, a.call, &told.facts)?;
            return Ok(permit.map(|permit| (permit, Granted { id: grant.id, charges, terms: terms.clone() })));
        }
        Ok(None)
    }

    /// Whether so much is left of a grant; the begin asks again.
    fn has_room(&self, charges: &[Charge]) -> Result<bool, Refusal> {
        let keys: Vec<_> = charges.iter().map(|c| c.ledger.clone()).collect();
        let balances = self.store.balances(&keys)?;
        let fits = |(charge, balance): (&Charge, &crate::store::Balance)| {
            let taken = balance.used.checked_add(balance.reserved).and_then(|t| t.checked_add(charge.amount));
            taken.is_some_and(|t| t <= charge.limit)
        };
        Ok(charges.iter().zip(&balances).all(fits))
    }

    async fn end_outlawed(&self, a: &Asking<'_>) -> Result<(), Refusal> {
        self.store.end_grants(None, |g| a.s.outlaws(&g.operation, &g.leans)).await?;
        Ok(())
    }

    /// A tool whose breaker is open is not as it was when people said yes.
    pub(super) async fn end_failing(&self, tool: &str) {
        if !self.breakers.is_failing(tool) {
            return;
        }
        let over = |g: &Grant| (g.tool == tool).then_some(GrantOver::BreakerOpen);
        if let Err(fault) = self.store.end_grants(None, over).await {
            tracing::error!(fault = %fault.chain(), tool.name = tool, "the grants of a failing tool could not be ended");
        }
    }

    /// The grant that a reviewer wants to give, if policy as it is now has no bounds that it breaks. Nothing is written.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn grant(&self, ask: GrantAsk) -> Result<Grant, Denied> {
        let s = self.snapshots.current();
        let record = self.store.get(ask.id).await?.ok_or(HoldError::NotFound)?;
        if record.digest != ask.digest {
            return Err(HoldError::DigestChanged(Box::new(record)).into());
        }
        if !s.identity.still_active(&record.principal) {
            return Err(Refusal::new(Code::Forbidden, "the agent is not one that may act any more").into());
        }
        let call = self.restored(&s, &record, None, None).await?;
        self.grantable(&record, &call)?;
        let principal = record.principal.clone();
        let a = Asking::alone(&s, &principal, &call);
        let facts = self.facts(&a, Some(&record)).await?;
        let terms = s.policies.demands(&principal, &call, &facts)?;
        let terms = terms.ok_or_else(|| not_allowed("policy lets it run by itself now: there is nothing to grant"))?;
        // What ruled when it was held, and what rules now: both must allow it.
        let mut caps = s.policies.grantable(&terms).map_err(not_allowed)?;
        if let Some(held) = &record.terms {
            caps = caps.and(&s.policies.grantable(held).map_err(not_allowed)?);
        }
        let permit = s.policies.authorize_granted(&principal, &call, &facts)?;
        let permit = permit.ok_or_else(|| not_allowed("policy would not let it pass with one approval"))?;
        let why = terms.why.iter().chain(record.terms.iter().flat_map(|t| &t.why)).map(|w| w.policy.as_str());
        let leans = s.leans(call.operation(), why, permit.policies().iter().map(String::as_str));
        let leans = leans.ok_or_else(|| not_allowed("a policy that held it is not there any more"))?;
        let justify = terms.needs.justification || record.terms.as_ref().is_some_and(|t| t.needs.justification);
        if justify && ask.reason.as_ref().is_none_or(|r| r.trim().is_empty()) {
            return Err(HoldError::JustificationRequired.into());
        }
        let bounds = Bounds::new(&ask, &caps)?;
        check_loose(&ask.loose, &bounds.sums, call.arguments())?;
        let (id, now) = (GrantId::new(), self.clock.now());
        Ok(Grant {
            id,
            operation: record.operation,
            tool: record.tool,
            principal: principal.key(),
            workflow: record.context.workflow.clone(),
            from: record.id,
            title: record.title,
            arguments: redacted(call.arguments(), &call.operation().redact).into(),
            rest: rest_of(id, call.arguments(), &ask.loose),
            loose: ask.loose,
            max_uses: bounds.uses,
            sums: bounds.sums,
            leans,
            by: ask.by.name,
            aliases: ask.by.aliases,
            channel: ask.channel.to_owned(),
            reason: ask.reason,
            created: now,
            expires: now.plus(bounds.lasts),
            ended: None,
        })
    }

    /// Calls of which every single one is decided by people, and tools that nobody can rely on now.
    fn grantable(&self, record: &CallRecord, call: &Call) -> Result<(), Denied> {
        let operation = call.operation();
        self.pins.check(operation)?;
        if self.breakers.is_failing(&operation.tool.name) {
            return Err(not_allowed("the tool keeps failing; wait until it works again"));
        }
        if record.undoes.is_some() {
            return Err(not_allowed("a call that takes another one back is decided by itself"));
        }
        if operation.delay.is_some() {
            return Err(not_allowed("its operation waits before it is sent, so that it can be taken back"));
        }
        if forwards(call) {
            return Err(not_allowed(
                "it carries headers of `forward_headers` or `_meta` of its own, and a grant binds arguments alone",
            ));
        }
        Ok(())
    }
}

/// Whether more goes upstream with it than its arguments: headers that its tool lists, or `_meta` of a message. Approvers
/// see that, and the upstream may heed it.
fn forwards(call: &Call) -> bool {
    let listed = &call.operation().tool.forward_headers;
    let request = call.request();
    let headers = request.headers.iter().any(|(name, _)| listed.contains(name));
    headers || (request.rpc.is_some() && mrtr::carries_more(&request.body))
}

/// What a grant is bounded by.
struct Bounds {
    lasts: Duration,
    uses: Option<u32>,
    sums: BTreeMap<String, i64>,
}

impl Bounds {
    /// What was asked for, where policy allows so much; what policy allows, where nothing was asked for.
    fn new(ask: &GrantAsk, caps: &GrantCaps) -> Result<Self, Denied> {
        let lasts = ask.lasts.unwrap_or(caps.max);
        if lasts > caps.max {
            let most = crate::call::duration_text(caps.max);
            return Err(wider(format!("policy lets a grant live for {most} at most")));
        }
        let uses = ask.max_uses.or(caps.uses);
        if let Some(most) = caps.uses.filter(|most| uses.is_none_or(|uses| uses > *most)) {
            return Err(wider(format!("policy lets a grant be used {most} times at most")));
        }
        if lasts.is_zero() || uses == Some(0) {
            return Err(invalid("", "it would let nothing pass").into());
        }
        let mut sums = caps.sums.clone();
        for (path, wanted) in &ask.sums {
            if let Some(most) = caps.sums.get(path).filter(|most| wanted > *most) {
                return Err(wider(format!("policy lets `{path}` add up to {most} at most")));
            }
            sums.insert(path.clone(), *wanted);
        }
        Ok(Self { lasts, uses, sums })
    }
}

/// Each loosened argument is one of the call that was approved, which itself would pass.
fn check_loose(loose: &BTreeMap<String, Loose>, sums: &BTreeMap<String, i64>, arguments: &Value) -> Result<(), Denied> {
    let paths: Vec<&String> = loose.keys().collect();
    for (i, path) in paths.iter().enumerate() {
        if take_out(&mut arguments.clone(), path).is_none() {
            let text = "is no argument of the approved call; one in a list is pinned with its list";
            return Err(invalid(path, text).into());
        }
        if paths.iter().take(i).any(|other| overlap(path, other)) {
            return Err(invalid(path, "is loosened twice").into());
        }
    }
    for path in loose.iter().filter(|(_, rule)| matches!(rule, Loose::Max(_))).map(|(path, _)| path).chain(sums.keys())
    {
        let one = loose.get(path).map(|rule| (path.clone(), *rule)).into_iter().collect();
        if spent_on(arguments, &one, &sums.get(path).map(|most| (path.clone(), *most)).into_iter().collect()).is_none()
        {
            return Err(wider(format!(
                "the approved call itself would not pass: `{path}` is no integer from 0 to that"
            )));
        }
    }
    Ok(())
}

fn not_allowed(why: impl Into<String>) -> Denied {
    Denied::Cannot("grant_not_allowed", why.into())
}

fn wider(why: String) -> Denied {
    Denied::Cannot("grant_wider_than_hold", why)
}

fn invalid(pointer: &str, message: &str) -> Refusal {
    let violation = Violation { pointer: pointer.into(), keyword: "grant".into(), message: message.into() };
    Refusal::new(Code::InvalidArguments, format!("no such grant can be given: `{pointer}` {message}"))
        .with_errors(vec![violation])
}
