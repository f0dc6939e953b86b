//! Whether a vote counts, for which groups, and whether the quorum is complete. Sans-io.

use std::collections::BTreeSet;

use crate::call::{Needs, Tier, Timestamp};

use super::{Approval, CallRecord, HoldError, State, Vote};

/// One group, or a choice of groups, that a vote may fill.
type Place = BTreeSet<String>;

/// The step is asked of a hold that others may have changed: state, version, digest.
///
/// # Errors
/// Says what is not as the asker believes.
pub(super) fn check_current(
    record: &CallRecord,
    now: Timestamp,
    version: Option<u64>,
    digest: Option<crate::call::Digest>,
    open: &[State],
) -> Result<(), HoldError> {
    let shown = || Box::new(record.clone());
    match record.state_at(now) {
        State::Expired => return Err(HoldError::Expired(shown())),
        state if !open.contains(&state) => return Err(HoldError::AlreadyDecided(shown())),
        _ => {}
    }
    if version.is_some_and(|v| v != record.version) {
        return Err(HoldError::VersionChanged(shown()));
    }
    if digest.is_some_and(|d| d != record.digest) {
        return Err(HoldError::DigestChanged(shown()));
    }
    Ok(())
}

/// Counts one vote: the approval to record, and whether it is the last one needed.
///
/// # Errors
/// Says why it does not count.
pub(super) fn count(record: &CallRecord, vote: &Vote, now: Timestamp) -> Result<(Approval, bool), HoldError> {
    check_current(record, now, vote.version, Some(vote.digest), &[State::Held])?;
    let terms = record.terms.as_ref().ok_or_else(|| HoldError::AlreadyDecided(Box::new(record.clone())))?;
    if is_own_call(record, vote) {
        return Err(HoldError::SelfReview);
    }
    if record.approvals.iter().any(|a| names(vote).any(|n| same(n, &a.person) || same(n, &a.subject))) {
        return Err(HoldError::AlreadyCounted);
    }
    let missing = missing_evidence(record, &terms.needs);
    if !missing.is_empty() {
        return Err(HoldError::EvidenceMissing(missing));
    }
    let justification = vote.justification.as_deref().map(str::trim).filter(|j| !j.is_empty());
    if terms.needs.justification && justification.is_none() {
        return Err(HoldError::JustificationRequired);
    }
    let groups = filled_by(record, terms.tier, &terms.needs, vote)?;
    let approval = Approval {
        person: vote.person.clone(),
        subject: vote.subject.clone(),
        groups,
        at: now,
        channel: vote.channel.clone(),
        digest: record.digest,
        justification: justification.map(str::to_owned),
    };
    let last = is_complete(record, terms.tier, &terms.needs, &approval);
    Ok((approval, last))
}

fn names(vote: &Vote) -> impl Iterator<Item = &str> {
    [vote.person.as_str(), vote.subject.as_str()].into_iter().chain(vote.aliases.iter().map(String::as_str))
}

/// To exclude, identities are compared without regard to case: e-mail addresses often differ in it.
fn same(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}

/// The voter asked for it, is acted for, or runs the agent.
fn is_own_call(record: &CallRecord, vote: &Vote) -> bool {
    let p = &record.principal;
    let barred = [p.operator.as_deref(), p.acting_for.as_deref(), p.acting_for_email.as_deref(), Some(&*p.subject)];
    barred.into_iter().flatten().filter(|b| !b.is_empty()).any(|b| names(vote).any(|n| same(n, b)))
}

fn missing_evidence(record: &CallRecord, needs: &Needs) -> Vec<String> {
    let has = |kind: &String| record.evidence.iter().any(|e| e.kind == *kind);
    needs.evidence.iter().filter(|kind| !has(kind)).cloned().collect()
}

/// The places of a quorum: one per group of an `a,b` demand, one per `a|b` demand; the same one
/// demanded twice is one.
fn places(needs: &Needs) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for requirement in &needs.requirements {
        let demanded: Vec<Place> = if requirement.all {
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

fn unfilled(needs: &Needs, approvals: &[Approval]) -> Vec<Place> {
    let filled = |place: &Place| approvals.iter().flat_map(|a| &a.groups).any(|g| place.contains(g));
    places(needs).into_iter().filter(|p| !filled(p)).collect()
}

/// The groups for which this vote counts: all it can fill for medium, one for high.
fn filled_by(record: &CallRecord, tier: Tier, needs: &Needs, vote: &Vote) -> Result<Vec<String>, HoldError> {
    let all = places(needs);
    let open = unfilled(needs, &record.approvals);
    let wanted = if open.is_empty() { &all } else { &open };
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let chosen = |group: &&String| vote.groups.contains(group) && vote.as_group.as_ref().is_none_or(|g| g == *group);
    let mut groups: Vec<String> = Vec::new();
    for group in wanted.iter().filter_map(|place| place.iter().find(chosen)) {
        if !groups.contains(group) {
            groups.push(group.clone());
        }
    }
    if tier == Tier::High {
        groups.truncate(1);
    }
    if groups.is_empty() { Err(HoldError::NotInGroup) } else { Ok(groups) }
}

fn is_complete(record: &CallRecord, tier: Tier, needs: &Needs, last: &Approval) -> bool {
    let mut approvals = record.approvals.clone();
    approvals.push(last.clone());
    let people = needs.people.max(if tier == Tier::High { 2 } else { 1 });
    approvals.len() >= people && unfilled(needs, &approvals).is_empty()
}
