//! Whether a vote counts, for which groups, and whether the quorum is complete. Sans-io.

use std::collections::BTreeSet;

use crate::call::{Needs, Principal, Tier, Timestamp};

use super::handling::check_unclaimed;
use super::state::Event;
use super::{Approval, CallRecord, HoldError, Note, Opinion, Reconcile, State, Vote};

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
    if is_own_call(record, || names(vote)) {
        return Err(HoldError::SelfReview);
    }
    let counted = record.approvals.iter().flat_map(|a| a.aliases.iter().chain([&a.person, &a.subject]));
    if counted.into_iter().any(|c| names(vote).any(|n| same(n, c))) {
        return Err(HoldError::AlreadyCounted);
    }
    check_unclaimed(record, || names(vote), now)?;
    // Who has changed it looked already: the last word of two is another person's.
    let editors = record.edited.iter().flat_map(|e| &e.edits).flat_map(|e| e.aliases.iter().chain([&e.person]));
    if terms.tier == Tier::High
        && !record.approvals.is_empty()
        && editors.into_iter().any(|e| names(vote).any(|n| same(n, e)))
    {
        return Err(HoldError::OwnEdit);
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
        aliases: vote.aliases.clone(),
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
pub(super) fn same(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}

/// One of these names asked for it, is acted for, or runs the agent.
pub(super) fn is_own_call<'n, I: Iterator<Item = &'n str>>(record: &CallRecord, names: impl Fn() -> I) -> bool {
    let mut undoing = record.undoes.iter().flat_map(|u| u.aliases.iter().chain([&u.person]));
    is_own(&record.principal, &names) || undoing.any(|b| !b.is_empty() && names().any(|n| same(n, b)))
}

/// The same of a caller alone.
pub(super) fn is_own<'n, I: Iterator<Item = &'n str>>(p: &Principal, names: impl Fn() -> I) -> bool {
    let barred = [p.operator.as_deref(), p.acting_for.as_deref(), p.acting_for_email.as_deref(), Some(&*p.subject)];
    barred.into_iter().flatten().filter(|b| !b.is_empty()).any(|b| names().any(|n| same(n, b)))
}

/// What a person says became of an unknown call: a first opinion, or the second one that settles it.
///
/// # Errors
/// Says why it does not count.
pub(super) fn opinion(record: &CallRecord, said: &Reconcile, now: Timestamp) -> Result<Event, HoldError> {
    let shown = || Box::new(record.clone());
    if record.state != State::Unknown || !matches!(said.outcome, State::Succeeded | State::NotExecuted) {
        return Err(HoldError::AlreadyDecided(shown()));
    }
    if said.version.is_some_and(|v| v != record.version) {
        return Err(HoldError::VersionChanged(shown()));
    }
    let names =
        || [said.person.as_str(), said.subject.as_str()].into_iter().chain(said.aliases.iter().map(String::as_str));
    if is_own_call(record, names) {
        return Err(HoldError::SelfReview);
    }
    if said.reason.trim().is_empty() {
        return Err(HoldError::JustificationRequired);
    }
    if said.outcome == State::NotExecuted && !record.is_quiet(now) {
        return Err(HoldError::TooEarly(shown()));
    }
    let (person, outcome, reason) = (said.person.clone(), said.outcome, said.reason.clone());
    let aliases = said.aliases.iter().chain([&said.subject]).cloned().collect();
    match record.opinion.as_ref().filter(|o| o.outcome == outcome) {
        Some(first) if first.aliases.iter().chain([&first.person]).any(|f| names().any(|n| same(n, f))) => {
            Err(HoldError::AlreadyCounted)
        }
        Some(_) => {
            let note = Note { code: "reconciled".into(), text: reason, by: Some(person) };
            Ok(Event::Reconcile { outcome, note })
        }
        None => Ok(Event::Opine(Opinion { person, aliases, outcome, reason, at: now })),
    }
}

fn missing_evidence(record: &CallRecord, needs: &Needs) -> Vec<String> {
    needs.evidence.iter().filter(|kind| !record.has_evidence(kind)).cloned().collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixtures::{MINUTE, START, record, terms, vote};

    type Demands<'a> = &'a [(&'a [&'a str], bool)];

    fn hold(tier: Tier, demands: Demands<'_>, people: usize) -> CallRecord {
        let mut r = record(State::Held, "f", None);
        r.terms = Some(terms(tier, demands, people));
        r
    }

    /// Counts votes one after the other; says after which the quorum was complete.
    fn run(record: &mut CallRecord, votes: &[(&str, &[&str])]) -> Result<bool, HoldError> {
        let mut complete = false;
        for (person, groups) in votes {
            let (approval, last) = count(record, &vote(record, person, groups), START)?;
            record.approvals.push(approval);
            complete = last;
        }
        Ok(complete)
    }

    #[test]
    fn quorums() {
        use HoldError::{AlreadyCounted, NotInGroup};
        let all: Demands<'_> = &[(&["ops", "lead"], true)];
        let any: Demands<'_> = &[(&["ops", "lead"], false)];
        let two: Demands<'_> = &[(&["ops"], true), (&["ops"], true)];
        let (medium, high) = (Tier::Medium, Tier::High);
        type Case<'a> = (Tier, Demands<'a>, usize, &'a [(&'a str, &'a [&'a str])], Result<bool, HoldError>);
        let cases: &[Case<'_>] = &[
            (medium, any, 1, &[("eve", &["lead"])], Ok(true)),
            (medium, any, 1, &[("eve", &["sales"])], Err(NotInGroup)),
            (medium, all, 1, &[("eve", &["ops"])], Ok(false)),
            (medium, all, 1, &[("eve", &["ops", "lead"])], Ok(true)),
            (medium, all, 1, &[("eve", &["ops"]), ("max", &["lead"])], Ok(true)),
            (medium, all, 1, &[("eve", &["ops"]), ("max", &["ops"])], Err(NotInGroup)),
            (medium, all, 1, &[("eve", &["ops"]), ("eve", &["lead"])], Err(AlreadyCounted)),
            (high, all, 2, &[("eve", &["ops", "lead"])], Ok(false)),
            (high, all, 2, &[("eve", &["ops", "lead"]), ("max", &["lead"])], Ok(true)),
            (high, all, 2, &[("eve", &["ops", "lead"]), ("max", &["ops"])], Err(NotInGroup)),
            (high, any, 2, &[("eve", &["ops"]), ("max", &["sales"])], Err(NotInGroup)),
            (high, any, 2, &[("eve", &["ops"]), ("max", &["ops"])], Ok(true)),
            (high, two, 2, &[("eve", &["ops"]), ("max", &["ops"])], Ok(true)),
            (high, any, 1, &[("eve", &["ops"])], Ok(false)),
        ];
        for (i, (tier, demands, people, votes, wanted)) in cases.iter().enumerate() {
            assert_eq!(run(&mut hold(*tier, demands, *people), votes), *wanted, "case {i}");
        }
    }

    #[test]
    fn a_high_vote_fills_the_place_it_names() {
        let mut r = hold(Tier::High, &[(&["ops", "lead"], true)], 2);
        let mut v = vote(&r, "eve", &["ops", "lead"]);
        v.as_group = Some("ops".into());
        let (approval, _) = count(&r, &v, START).unwrap();
        assert_eq!(approval.groups, ["ops"]);
        r.approvals.push(approval);
        assert_eq!(count(&r, &vote(&r, "max", &["ops"]), START).unwrap_err(), HoldError::NotInGroup);
    }

    #[test]
    fn nobody_approves_what_is_asked_for_or_run_by_themselves() {
        let r = hold(Tier::Medium, &[], 1);
        for who in ["olga", "anna", "ANNA"] {
            assert_eq!(count(&r, &vote(&r, who, &[]), START).unwrap_err(), HoldError::SelfReview, "{who}");
        }
        let mut v = vote(&r, "eve", &[]);
        v.aliases.push("anna@ACME.example".into());
        assert_eq!(count(&r, &v, START).unwrap_err(), HoldError::SelfReview);
        v = vote(&r, "eve", &[]);
        v.subject = "key|bot".into();
        assert_eq!(count(&r, &v, START).unwrap_err(), HoldError::SelfReview);
    }

    #[test]
    fn who_changed_a_high_call_never_has_the_last_word() {
        let mut r = hold(Tier::High, &[], 2);
        let edit = crate::store::Edit {
            person: "eve".into(),
            aliases: vec!["idp|eve".into()],
            at: START,
            note: "less".into(),
            changes: vec![],
        };
        let (request, arguments, digest) = (r.request.clone(), r.arguments.clone(), r.digest);
        r.edited = Some(crate::store::Edited { request, arguments, digest, changes: vec![], edits: vec![edit] }.into());
        let mut other = r.clone();
        assert_eq!(run(&mut r, &[("eve", &[]), ("max", &[])]), Ok(true));
        assert_eq!(run(&mut other, &[("max", &[]), ("eve", &[])]), Err(HoldError::OwnEdit));
        let mut linked = vote(&other, "evelyn", &[]);
        linked.aliases.push("IDP|eve".into());
        assert_eq!(count(&other, &linked, START).unwrap_err(), HoldError::OwnEdit);
        let mut medium = hold(Tier::Medium, &[], 1);
        medium.edited = other.edited;
        assert_eq!(run(&mut medium, &[("eve", &[])]), Ok(true));
    }

    #[test]
    fn a_linked_account_is_the_same_person() {
        let mut r = hold(Tier::High, &[], 2);
        run(&mut r, &[("eve", &[])]).unwrap();
        let mut again = vote(&r, "evelyn", &[]);
        again.aliases.push("idp|eve".into());
        assert_eq!(count(&r, &again, START).unwrap_err(), HoldError::AlreadyCounted);
    }

    #[test]
    fn what_else_stops_a_vote() {
        let mut r = hold(Tier::High, &[], 2);
        let mut v = vote(&r, "eve", &[]);
        v.justification = Some("  ".into());
        assert_eq!(count(&r, &v, START).unwrap_err(), HoldError::JustificationRequired);
        let over = START.plus(MINUTE * 60);
        assert!(matches!(count(&r, &vote(&r, "eve", &[]), over), Err(HoldError::Expired(_))));
        let mut other = vote(&r, "eve", &[]);
        other.version = Some(9);
        assert!(matches!(count(&r, &other, START), Err(HoldError::VersionChanged(_))));
        other = vote(&r, "eve", &[]);
        other.digest = crate::call::Digest::of(b"older");
        assert!(matches!(count(&r, &other, START), Err(HoldError::DigestChanged(_))));
        if let Some(terms) = r.terms.as_mut() {
            terms.needs.evidence = vec!["ticket".into()];
        }
        let missing = HoldError::EvidenceMissing(vec!["ticket".into()]);
        assert_eq!(count(&r, &vote(&r, "eve", &[]), START).unwrap_err(), missing);
        r.evidence = vec![evidence("note")];
        assert_eq!(count(&r, &vote(&r, "eve", &[]), START).unwrap_err(), missing);
        r.evidence.push(evidence("ticket"));
        assert!(count(&r, &vote(&r, "eve", &[]), START).is_ok());
        // The proxy looked for itself, and the ticket was not as it must be: the agent's word does not stand in for it.
        for (by, counts) in [("agent bot", false), ("reviewer max", true), ("proxy", true)] {
            let why = "its status is not open".into();
            r.unfetched = vec![crate::store::Unfetched { kind: "ticket".into(), call: "tickets.get".into(), why }];
            r.evidence = vec![crate::store::Evidence { by: by.into(), ..evidence("ticket") }];
            assert_eq!(count(&r, &vote(&r, "eve", &[]), START).is_ok(), counts, "{by}");
        }
        r.state = State::Approved;
        assert!(matches!(count(&r, &vote(&r, "eve", &[]), START), Err(HoldError::AlreadyDecided(_))));
    }

    fn evidence(kind: &str) -> crate::store::Evidence {
        let (id, digest) = (crate::call::ArtifactId::new(), crate::call::Digest::of(b"e"));
        let content = crate::store::PayloadRef { seq: 1, index: 0, len: 1, digest };
        crate::store::Evidence { id, kind: kind.into(), title: "T".into(), by: "bot".into(), content, at: START }
    }

    /// A call that was begun at `START`, is unknown, and quiet a minute later.
    fn unknown() -> CallRecord {
        CallRecord { quiet_after: Some(START.plus(MINUTE)), begun: Some(START), ..record(State::Unknown, "f", None) }
    }

    fn said(record: &CallRecord, who: &str, outcome: State) -> Reconcile {
        let (person, subject) = (who.to_owned(), format!("idp|{who}"));
        Reconcile { id: record.id, version: None, person, aliases: vec![], subject, outcome, reason: "log".into() }
    }

    #[test]
    fn two_people_who_say_the_same_settle_an_unknown_call() {
        let (mut r, later) = (unknown(), START.plus(MINUTE));
        for outcome in [State::Succeeded, State::NotExecuted] {
            let first = opinion(&r, &said(&r, "eve", outcome), later).unwrap();
            let Event::Opine(first) = first else { panic!("{first:?}") };
            assert_eq!((first.person.as_str(), first.outcome, first.at), ("eve", outcome, later));
            r.opinion = Some(Box::new(first));
            assert_eq!(opinion(&r, &said(&r, "EVE", outcome), later).unwrap_err(), HoldError::AlreadyCounted);
            let mut linked = said(&r, "evelyn", outcome);
            linked.aliases.push("eve".into());
            assert_eq!(opinion(&r, &linked, later).unwrap_err(), HoldError::AlreadyCounted);
            let second = opinion(&r, &said(&r, "max", outcome), later).unwrap();
            let Event::Reconcile { outcome: settled, note } = second else { panic!("{second:?}") };
            assert_eq!((settled, note.by.as_deref(), note.text.as_str()), (outcome, Some("max"), "log"));
        }
        // Another word than the first one's begins anew.
        let other = opinion(&r, &said(&r, "max", State::Succeeded), later);
        assert!(matches!(other, Ok(Event::Opine(o)) if o.person == "max"));
    }

    #[test]
    fn what_stops_an_opinion() {
        let r = unknown();
        let refused = |said: &Reconcile, now| opinion(&r, said, now).unwrap_err();
        for who in ["olga", "anna"] {
            assert_eq!(refused(&said(&r, who, State::Succeeded), START), HoldError::SelfReview, "{who}");
        }
        for outcome in State::ALL.into_iter().filter(|s| !matches!(s, State::Succeeded | State::NotExecuted)) {
            let error = refused(&said(&r, "eve", outcome), START.plus(MINUTE));
            assert!(matches!(error, HoldError::AlreadyDecided(_)), "{outcome:?}");
        }
        for state in State::ALL.into_iter().filter(|s| *s != State::Unknown) {
            let r = CallRecord { state, ..unknown() };
            let error = opinion(&r, &said(&r, "eve", State::Succeeded), START.plus(MINUTE)).unwrap_err();
            assert!(matches!(error, HoldError::AlreadyDecided(_)), "{state:?}");
        }
        let early = START.plus(MINUTE / 2);
        assert!(matches!(refused(&said(&r, "eve", State::NotExecuted), early), HoldError::TooEarly(_)));
        assert!(opinion(&r, &said(&r, "eve", State::Succeeded), early).is_ok(), "that it happened may be known early");
        let mut silent = said(&r, "eve", State::Succeeded);
        silent.reason = " ".into();
        assert_eq!(refused(&silent, START), HoldError::JustificationRequired);
        for (version, passes) in [(r.version, true), (r.version + 1, false)] {
            let said = Reconcile { version: Some(version), ..said(&r, "eve", State::Succeeded) };
            match opinion(&r, &said, START) {
                Ok(_) => assert!(passes),
                Err(error) => assert!(!passes && matches!(error, HoldError::VersionChanged(_))),
            }
        }
    }
}
