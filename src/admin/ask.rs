//! What a person may do with a call, and why not: Cedar's admin plane, and four eyes, which are built in.

use std::collections::BTreeSet;

use http::StatusCode;

use crate::call::{Needs, Principal, Tier, Timestamp, visible};
use crate::gates::authz::{AdminAnswer, AdminQuestion, AdminResource, HoldFacts};
use crate::policy::schema::{CALL_ACTIONS, SYSTEM_ACTIONS};
use crate::snapshot::Snapshot;
use crate::store::{CallRecord, Grant, State};

use super::problem::Problem;
use super::who::{Who, acted_for};

/// Asks on behalf of one person, at one time, under one snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) who: &'a Who,
    pub(super) now: Timestamp,
}

impl<'a> Asker<'a> {
    fn resource(&self, record: &'a CallRecord) -> AdminResource<'a> {
        let Some(terms) = &record.terms else { return AdminResource::System };
        let teams: BTreeSet<&str> =
            terms.needs.requirements.iter().flat_map(|r| r.groups.iter()).map(String::as_str).collect();
        AdminResource::Hold(HoldFacts {
            id: record.id.hold().to_string(),
            tool: &record.tool,
            tier: record.tier,
            workflow: &record.context.workflow,
            requested_by: acted_for(&self.snapshot.config.identity, &record.principal),
            approvers: teams.into_iter().collect(),
            amount_minor: record.money.as_ref().map(|m| m.0),
        })
    }

    fn put(&self, action: &str, record: &'a CallRecord, mfa: bool, channel: &str) -> AdminAnswer {
        self.snapshot.policies.admin(&AdminQuestion {
            user: &self.who.person,
            groups: &self.who.groups,
            email: self.who.email.as_deref(),
            action,
            resource: self.resource(record),
            mfa,
            channel,
            now: self.now,
        })
    }

    /// Whether policy allows it. An evaluation error is a no.
    pub(super) fn may(&self, action: &str, record: &'a CallRecord) -> bool {
        self.put(action, record, self.who.mfa, self.who.channel).allowed
    }

    /// Whether policy allows it on Holdpoint itself.
    pub(super) fn may_system(&self, action: &str) -> bool {
        let question = AdminQuestion {
            user: &self.who.person,
            groups: &self.who.groups,
            email: self.who.email.as_deref(),
            action,
            resource: AdminResource::System,
            mfa: self.who.mfa,
            channel: self.who.channel,
            now: self.now,
        };
        self.snapshot.policies.admin(&question).allowed
    }

    /// One of these on Holdpoint itself.
    ///
    /// # Errors
    /// 403 that names them.
    pub(super) fn permit_system(&self, actions: &[&str]) -> Result<(), Problem> {
        if actions.iter().any(|action| self.may_system(action)) {
            return Ok(());
        }
        let text = format!("no policy lets you do this (`{}`)", actions.join("` or `"));
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", text))
    }

    /// What policy allows beside holds.
    pub(super) fn may_on_system(&self) -> Vec<&'static str> {
        let all = SYSTEM_ACTIONS.iter().chain(CALL_ACTIONS).copied();
        all.filter(|action| self.may_system(action)).collect()
    }

    /// Whether policy, and four eyes, allow it.
    ///
    /// # Errors
    /// 403 with the reason, as far as it can be told.
    pub(super) fn permit(&self, action: &'static str, record: &'a CallRecord) -> Result<(), Problem> {
        let forbidden = |code, text: String| Problem::new(StatusCode::FORBIDDEN, code, text);
        let verb = match action {
            "hold.approve" => "approve",
            "hold.edit" => "change",
            "grant.create" => "give a grant from",
            "call.reconcile" => "settle",
            _ => "",
        };
        if !verb.is_empty() && self.is_own(record) {
            return Err(forbidden("self_review", format!("you cannot {verb} a call that you requested")));
        }
        let answer = self.put(action, record, self.who.mfa, self.who.channel);
        if answer.allowed {
            return self.stepped_up(action, record);
        }
        let problem = if answer.because.is_empty() {
            let needs = record.terms.as_ref().map(|t| &t.needs);
            let in_one = needs.is_some_and(|n| places(n).iter().flatten().any(|g| self.who.groups.contains(g)));
            if needs.is_some() && !in_one {
                forbidden("not_in_group", "you are in none of the groups that this needs".into())
            } else {
                forbidden("forbidden", format!("no policy lets you do this (`{action}`)"))
            }
        } else if !self.who.mfa && self.put(action, record, true, self.who.channel).allowed {
            forbidden("step_up_required", "this needs a sign-in with a second factor".into())
        } else if self.put(action, record, self.who.mfa, "page").allowed {
            forbidden("channel_not_allowed", "this is decided on the page only".into())
        } else {
            forbidden("forbidden", "policy forbids you to do this".into())
        };
        Err(problem.with_policies(&answer.because))
    }

    /// `reviews.high.step_up`: who votes on a high hold has signed in just now.
    fn stepped_up(&self, action: &str, record: &CallRecord) -> Result<(), Problem> {
        let needed = self.snapshot.config.reviews.step_up && action == "hold.approve" && record.tier == Tier::High;
        if !needed || self.who.fresh {
            return Ok(());
        }
        Err(Problem::new(StatusCode::FORBIDDEN, "step_up_required", "this needs a fresh sign-in at the provider"))
    }

    /// The store decides this again, inside the step.
    fn is_own(&self, record: &CallRecord) -> bool {
        let undoing = record.undoes.iter().flat_map(|u| u.aliases.iter().chain([&u.person])).map(String::as_str);
        self.is_callers(&record.principal) || self.who.is_any_of(undoing)
    }

    /// Whether this person runs the agent, or is the one that it acts for.
    pub(super) fn is_callers(&self, p: &Principal) -> bool {
        let barred = [p.operator.as_deref(), p.acting_for.as_deref(), p.acting_for_email.as_deref(), Some(&*p.subject)];
        self.who.is_any_of(barred.into_iter().flatten())
            || acted_for(&self.snapshot.config.identity, p).is_some_and(|person| self.who.is_any_of([person]))
    }

    /// Whether this person's vote would count now, as far as it can be seen from here.
    pub(super) fn can_approve(&self, record: &'a CallRecord) -> bool {
        record.terms.is_some()
            && self.decidable("approve", record).is_ok()
            && self.permit("hold.approve", record).is_ok()
    }

    /// What this person can do with it now, and why not the rest.
    pub(super) fn can(&self, record: &'a CallRecord) -> (Vec<&'static str>, Vec<(&'static str, String)>) {
        let (mut can, mut cannot) = (Vec::new(), Vec::new());
        for (name, action) in [
            ("approve", "hold.approve"),
            ("reject", "hold.reject"),
            ("edit", "hold.edit"),
            ("withdraw", "hold.withdraw"),
        ] {
            if record.terms.is_none() {
                continue;
            }
            match self.decidable(name, record).and_then(|()| self.permit(action, record).map_err(why)) {
                Ok(()) => can.push(name),
                Err(text) => cannot.push((name, text)),
            }
        }
        let state = record.state_at(self.now);
        if record.terms.is_some() && matches!(state, State::Held | State::Unknown) {
            let beside = [("claim", "hold.claim"), ("comment", "hold.comment"), ("escalate", "hold.escalate")];
            let open = |name: &str| state == State::Held || name == "comment";
            let may = beside.into_iter().filter(|(name, action)| open(name) && self.may(action, record));
            can.extend(may.map(|(name, _)| name));
        }
        // A grant comes with an approval, or after it.
        let late = state != State::Held || can.contains(&"approve");
        if late && self.is_grantable(record) {
            match self.permit("grant.create", record) {
                Ok(()) => can.push("grant"),
                Err(problem) => cannot.push(("grant", why(problem))),
            }
        }
        if self.is_undoable(record) {
            match self.permit("undo.run", record) {
                Ok(()) => can.push("undo"),
                Err(problem) => cannot.push(("undo", why(problem))),
            }
        }
        if record.state_at(self.now) == State::Unknown {
            match self.permit("call.reconcile", record) {
                Ok(()) => can.push("reconcile"),
                Err(problem) => cannot.push(("reconcile", why(problem))),
            }
        }
        (can, cannot)
    }

    /// Whether calls like it may be granted, as far as it can be seen from here.
    fn is_grantable(&self, record: &CallRecord) -> bool {
        let open =
            matches!(record.state_at(self.now), State::Held | State::Approved | State::Dispatching | State::Succeeded);
        let terms = record.terms.as_ref().filter(|_| open && record.undoes.is_none() && record.delay.is_none());
        terms.is_some_and(|terms| self.snapshot.policies.grantable(terms).is_ok())
    }

    /// Whether this person gave it.
    pub(super) fn gave(&self, grant: &Grant) -> bool {
        self.who.is_any_of(grant.aliases.iter().map(String::as_str).chain([grant.by.as_str()]))
    }

    /// Whether some call takes it back, and there is time for that.
    fn is_undoable(&self, record: &CallRecord) -> bool {
        let rule = self.snapshot.operation(&record.operation).and_then(|o| o.undo.as_ref());
        record.state == State::Succeeded && rule.is_some_and(|rule| self.now < record.updated.plus(rule.within))
    }

    /// What the store would say to this person's vote, as far as it can be seen from here.
    fn decidable(&self, name: &str, record: &CallRecord) -> Result<(), String> {
        let state = record.state_at(self.now);
        let open = state == State::Held || (!matches!(name, "approve" | "edit") && state == State::Approved);
        if !open {
            return Err(format!("already_decided: it is {}", state.as_str()));
        }
        if matches!(name, "approve" | "edit")
            && let Some(claim) = record.claim_at(self.now)
            && !self.who.is_any_of(claim.aliases.iter().chain([&claim.person]).map(String::as_str))
        {
            return Err(format!("claimed_by_other: {} has it in hand until {}", visible(&claim.person), claim.until));
        }
        if name != "approve" {
            return Ok(());
        }
        let counted = record.approvals.iter().flat_map(|a| a.aliases.iter().chain([&a.person, &a.subject]));
        if self.who.is_any_of(counted.map(String::as_str)) {
            return Err("already_counted: your word was counted already".into());
        }
        let missing = missing_evidence(record);
        if !missing.is_empty() {
            return Err(format!("evidence_missing: {}", missing.join(", ")));
        }
        let open = open_places(record);
        if !open.is_empty() && !open.iter().flatten().any(|g| self.who.groups.contains(g)) {
            return Err("not_in_group: you are in none of the groups that are still needed".into());
        }
        Ok(())
    }

    /// The groups that this person's vote could fill.
    pub(super) fn fillable(&self, record: &CallRecord) -> Vec<String> {
        let open: BTreeSet<String> = open_places(record).into_iter().flatten().collect();
        open.into_iter().filter(|g| self.who.groups.contains(g)).collect()
    }
}

fn why(problem: Problem) -> String {
    let reasons = problem.reasons();
    if reasons.is_empty() {
        format!("{}: {}", problem.code(), problem.detail())
    } else {
        format!("{}: {}", problem.code(), reasons.join(" "))
    }
}

/// Kinds of evidence that are demanded and not there.
pub(super) fn missing_evidence(record: &CallRecord) -> Vec<String> {
    let demanded = record.terms.iter().flat_map(|t| &t.needs.evidence);
    demanded.filter(|kind| !record.has_evidence(kind)).cloned().collect()
}

/// The places of a quorum as the store counts them: one per group of an `a,b` demand, one per `a|b` demand.
pub(super) fn places(needs: &Needs) -> Vec<BTreeSet<String>> {
    let mut places = Vec::new();
    for requirement in &needs.requirements {
        let demanded: Vec<BTreeSet<String>> = if requirement.all {
            requirement.groups.iter().map(|g| BTreeSet::from([g.clone()])).collect()
        } else {
            vec![requirement.groups.iter().cloned().collect()]
        };
        for place in demanded {
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    places
}

/// Who filled a place.
pub(super) fn filled_by<'r>(record: &'r CallRecord, place: &BTreeSet<String>) -> Option<&'r str> {
    let fills = |a: &&crate::store::Approval| a.groups.iter().any(|g| place.contains(g));
    record.approvals.iter().find(fills).map(|a| a.person.as_str())
}

/// Places without a vote; all of them again when only the number of people is missing.
fn open_places(record: &CallRecord) -> Vec<BTreeSet<String>> {
    let all = record.terms.as_ref().map(|t| places(&t.needs)).unwrap_or_default();
    let open: Vec<_> = all.iter().filter(|p| filled_by(record, p).is_none()).cloned().collect();
    if open.is_empty() { all } else { open }
}
