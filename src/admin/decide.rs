//! Decisions of people: policy and four eyes first, then one step of the store, then those who must know.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::call::{Digest, Tier, money_text, short_code};
use crate::snapshot::Snapshot;
use crate::store::{AuditNote, CallRecord, Reconcile, Reject, State, Vote, WithdrawnBy};

use super::Admin;
use super::ask::{Asker, places};
use super::exact::Exact;
use super::grants::Wanted;
use super::openapi::ReasonCode;
use super::problem::Problem;
use super::who::Who;

/// Why a reviewer says no; `x_…` adds local ones.
pub(super) const REASONS: [&str; 10] = [
    "wrong_target",
    "wrong_amount",
    "duplicate",
    "not_needed",
    "missing_evidence",
    "policy_gap",
    "unsafe",
    "suspected_injection",
    "wrong_time",
    "other",
];
/// Longest time for which one rejection stands for calls like it.
const DENY_ALIKE: Duration = Duration::from_secs(4 * 3600);
/// Longest text that a person may write, in characters.
pub(super) const WORDS: usize = 4000;

/// One decision about one record.
#[derive(Debug)]
pub(super) struct Decision<'a> {
    pub(super) admin: &'a Admin,
    pub(super) snapshot: &'a Snapshot,
    pub(super) who: &'a Who,
    pub(super) record: &'a CallRecord,
    /// `If-Match`, where given.
    pub(super) version: Option<u64>,
}

/// What an approver says.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Approve {
    pub(super) digest: Digest,
    #[serde(default)]
    pub(super) group: Option<String>,
    #[serde(default)]
    #[schemars(length(max = WORDS))]
    pub(super) justification: Option<String>,
    /// High tier: the code or the amount, typed.
    #[serde(default)]
    pub(super) confirm: Option<String>,
    /// Calls like it are to pass by themselves from now on, within these bounds.
    #[serde(default)]
    pub(super) grant: Option<Wanted>,
}

/// What a reviewer says who refuses.
#[derive(Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Reject")]
pub(super) struct Refuse {
    pub(super) digest: Digest,
    #[schemars(with = "ReasonCode")]
    pub(super) reason_code: String,
    #[serde(default)]
    #[schemars(length(max = WORDS))]
    pub(super) message_to_agent: Option<String>,
    /// For so many minutes calls like it are refused at once, too.
    #[serde(default)]
    #[schemars(range(min = 1, max = 240))]
    pub(super) deny_alike_minutes: Option<u64>,
}

pub(super) fn words(what: &str, text: Option<&String>) -> Result<(), Problem> {
    let long = text.is_some_and(|t| t.chars().count() > WORDS);
    if long { Err(Problem::invalid(format!("`{what}` is over {WORDS} characters"))) } else { Ok(()) }
}

impl<'a> Decision<'a> {
    pub(super) fn asker(&self) -> Asker<'a> {
        Asker { snapshot: self.snapshot, who: self.who, now: self.admin.clock.now() }
    }

    /// Counts a vote. The last one needed is told to whoever sends.
    pub(super) async fn approve(&self, said: Approve) -> Result<CallRecord, Problem> {
        let done = self.try_approve(said).await;
        let record = self.noted("hold.approve", done).await?;
        let filled = record.approvals.last().and_then(|a| a.groups.first());
        let approved = record.state == State::Approved;
        self.count("approved", filled.map_or("-", String::as_str), approved);
        if approved && record.release_by_proxy && self.admin.resume.send(record.id).is_err() {
            tracing::error!(call.id = %record.id, "nobody sends approved calls; it waits until its window closes");
        }
        Ok(record)
    }

    async fn try_approve(&self, said: Approve) -> Result<CallRecord, Problem> {
        words("justification", said.justification.as_ref())?;
        let asker = self.asker();
        asker.permit("hold.approve", self.record)?;
        self.confirmed(said.confirm.as_deref())?;
        let granted = match &said.grant {
            Some(wanted) => Some(self.drafted(wanted, said.digest, said.justification.clone()).await?),
            None => None,
        };
        let vote = Vote {
            id: self.record.id,
            version: self.version,
            digest: said.digest,
            person: self.who.person.clone(),
            aliases: self.who.aliases.clone(),
            subject: self.who.subject.clone(),
            groups: self.who.groups.clone(),
            as_group: said.group,
            channel: self.who.channel.to_owned(),
            justification: said.justification,
        };
        let voted = match granted {
            Some(grant) => self.admin.store.vote_and_grant(vote, grant).await.map(|(record, _)| record),
            None => self.admin.store.vote(vote).await,
        };
        voted.map_err(|e| Problem::of_hold(e, self.admin.clock.now()))
    }

    /// High tier: the page demands the code or the amount in the approver's own hand; elsewhere it is checked when given.
    fn confirmed(&self, typed: Option<&str>) -> Result<(), Problem> {
        if self.record.tier != Tier::High {
            return Ok(());
        }
        let mismatch = |text| Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "confirm_mismatch", text));
        let plain = |t: &str| t.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_uppercase();
        match typed.map(str::trim).filter(|t| !t.is_empty()) {
            None if self.who.channel == "page" => mismatch("type the code, or the amount, to approve a high-tier call"),
            None => Ok(()),
            Some(typed) => {
                let code = plain(typed) == plain(&short_code(&self.record.digest));
                let amount = self.record.money.as_ref().map(|(minor, currency)| money_text(*minor, currency));
                let number = amount.as_deref().and_then(|a| a.split(' ').next());
                let amount = amount.as_deref() == Some(typed) || number == Some(typed);
                if code || amount { Ok(()) } else { mismatch("what you typed is neither the code nor the amount") }
            }
        }
    }

    /// A no: a veto before the quorum, a revocation after it.
    pub(super) async fn reject(&self, said: Refuse, exact: &Exact) -> Result<CallRecord, Problem> {
        let reason = said.reason_code.clone();
        let done = self.try_reject(said, exact).await;
        let record = self.noted("hold.reject", done).await?;
        let own = self.record.terms.as_ref().map(|t| places(&t.needs)).unwrap_or_default();
        let group = own.iter().flatten().find(|g| self.who.groups.contains(g)).map_or("-", String::as_str);
        self.count("rejected", group, true);
        // Local reasons are counted as one: labels come from closed sets.
        let label = if REASONS.contains(&reason.as_str()) { reason.as_str() } else { "x_local" };
        self.admin.metrics.rejects.with_label_values(&[record.operation.as_str(), label]).inc();
        Ok(record)
    }

    async fn try_reject(&self, said: Refuse, exact: &Exact) -> Result<CallRecord, Problem> {
        words("message_to_agent", said.message_to_agent.as_ref())?;
        let local = said.reason_code.strip_prefix("x_").is_some_and(|rest| {
            (1..=40).contains(&rest.len())
                && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        });
        if !local && !REASONS.contains(&said.reason_code.as_str()) {
            let text = format!("`reason_code` is one of {}, or begins with `x_`", REASONS.join(", "));
            return Err(Problem::invalid(text));
        }
        let deny_alike = said.deny_alike_minutes.map(|m| Duration::from_secs(m.saturating_mul(60)));
        if deny_alike.is_some_and(|lasts| lasts.is_zero() || lasts > DENY_ALIKE) {
            return Err(Problem::invalid(format!("`deny_alike_minutes` is 1 to {}", DENY_ALIKE.as_secs() / 60)));
        }
        self.asker().permit("hold.reject", self.record)?;
        let reject = Reject {
            id: self.record.id,
            version: self.version,
            digest: said.digest,
            person: self.who.person.clone(),
            reason_code: said.reason_code,
            message: said.message_to_agent.map(|m| exact.scrub(&m)),
            deny_alike,
        };
        self.admin.store.reject(reject).await.map_err(|e| Problem::of_hold(e, self.admin.clock.now()))
    }

    /// The owning side takes it back.
    pub(super) async fn withdraw(&self, reason: String, exact: &Exact) -> Result<CallRecord, Problem> {
        let done = self.try_withdraw(&reason, exact).await;
        let record = self.noted("hold.withdraw", done).await?;
        self.count("withdrawn", "-", false);
        Ok(record)
    }

    async fn try_withdraw(&self, reason: &String, exact: &Exact) -> Result<CallRecord, Problem> {
        words("reason", Some(reason))?;
        if reason.trim().is_empty() {
            return Err(Problem::invalid("`reason` is empty"));
        }
        self.asker().permit("hold.withdraw", self.record)?;
        self.is_version()?;
        let by = WithdrawnBy::Person(self.who.person.clone());
        let done = self.admin.store.withdraw(self.record.id, by, &exact.scrub(reason)).await;
        done.map_err(|e| Problem::of_hold(e, self.admin.clock.now()))
    }

    /// What became of an unknown call; two people must say the same.
    pub(super) async fn reconcile(&self, outcome: State, reason: String, exact: &Exact) -> Result<CallRecord, Problem> {
        let done = self.try_reconcile(outcome, &reason, exact).await;
        self.noted("call.reconcile", done).await
    }

    async fn try_reconcile(&self, outcome: State, reason: &String, exact: &Exact) -> Result<CallRecord, Problem> {
        words("reason", Some(reason))?;
        self.asker().permit("call.reconcile", self.record)?;
        let said = Reconcile {
            id: self.record.id,
            version: self.version,
            person: self.who.person.clone(),
            aliases: self.who.aliases.clone(),
            subject: self.who.subject.clone(),
            outcome,
            reason: exact.scrub(reason),
        };
        self.admin.store.reconcile(said).await.map_err(|e| Problem::of_hold(e, self.admin.clock.now()))
    }

    /// For steps that take no version themselves.
    pub(super) fn is_version(&self) -> Result<(), Problem> {
        if self.version.is_none_or(|v| v == self.record.version) {
            return Ok(());
        }
        let changed = crate::store::HoldError::VersionChanged(Box::new(self.record.clone()));
        Err(Problem::of_hold(changed, self.admin.clock.now()))
    }

    pub(super) fn count(&self, decision: &str, group: &str, ends: bool) {
        let (metrics, record) = (&self.admin.metrics, self.record);
        let tier = record.tier.as_str();
        let labels = [record.operation.as_str(), tier, group, decision, self.who.channel];
        metrics.hold_decisions.with_label_values(&labels).inc();
        if ends {
            let took = self.admin.clock.now().since(record.created).as_secs_f64();
            metrics.hold_decision_seconds.with_label_values(&[tier, group]).observe(took);
        }
    }

    /// A decision that was refused leaves a record, too.
    pub(super) async fn noted(&self, action: &str, done: Result<CallRecord, Problem>) -> Result<CallRecord, Problem> {
        let Err(problem) = done else { return done };
        if problem.status() != StatusCode::SERVICE_UNAVAILABLE {
            let more = [("action", json!(action)), ("channel", json!(self.who.channel))];
            let note = AuditNote {
                kind: "admin.refused".to_owned(),
                call: Some(self.record.id),
                principal: Some(self.who.person.clone()),
                agent: None,
                run: None,
                operation: Some(self.record.operation.clone()),
                code: Some(problem.code().to_owned()),
                more: more.map(|(n, v): (&str, Value)| (n.to_owned(), v)).into_iter().collect::<BTreeMap<_, _>>(),
            };
            if let Err(fault) = self.admin.store.append(note, false).await {
                tracing::error!(fault = %fault.chain(), "a refused decision could not be recorded");
            }
        }
        Err(problem)
    }
}
