//! I3, I17, I18: what was sent had been approved, by distinct people who may, in time.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fold::{Call, Version};
use super::{Findings, list, number, text};

pub fn check(call: &Call, linked: &[(String, String)], found: &mut Findings) {
    for version in &call.versions {
        votes(call, version, linked, found);
    }
    for pair in call.versions.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        if matches!(after.step.as_str(), "voted" | "approved") {
            in_time(call, before, after, found);
        }
        if after.step == "approved" {
            quorum(call, after, found);
        }
        if after.step == "begun" && before.record.get("terms").is_some() {
            // What policy allows by itself only waits for its time.
            if number(&before.record, "/terms/needs/people") > 0 {
                quorum(call, before, found);
            }
            found.check(*text(&before.record, "/not_before") <= *text(&after.record, "/begun"), "I3", || {
                format!("{} began before its time", call.id)
            });
            let same = before.record["digest"] == after.record["digest"];
            found.check(same, "I3", || format!("{}: the digest changed when it began", call.id));
            let closes = text(&before.record, "/window_closes");
            found.check(*text(&after.record, "/begun") < *closes, "I3", || {
                format!("{} began after its window had closed", call.id)
            });
        }
    }
}

fn in_time(call: &Call, before: &Version, after: &Version, found: &mut Findings) {
    let votes = list(&after.record, "/approvals");
    let one = votes.len() == list(&before.record, "/approvals").len() + 1;
    found.check(one, "I17", || format!("{}: not one vote was added in record {}", call.id, after.seq));
    let Some(vote) = votes.last() else { return };
    let (expires, halted) = (text(&before.record, "/expires"), text(&before.record, "/halted"));
    // What is stopped has another clock.
    let at = if halted.is_empty() { text(vote, "/at") } else { halted };
    found.check(*at < *expires, "I3", || format!("{}: a vote came too late", call.id));
}

/// Everybody counts once, and only others than those who asked.
fn votes(call: &Call, version: &Version, linked: &[(String, String)], found: &mut Findings) {
    let record = &version.record;
    let barred: BTreeSet<&str> =
        ["/principal/operator", "/principal/acting_for", "/principal/acting_for_email", "/principal/subject"]
            .iter()
            .map(|p| text(record, p))
            .filter(|t| !t.is_empty())
            .collect();
    let one = |subject: &str| {
        let link = linked.iter().find(|(alias, _)| alias == subject);
        link.map_or_else(|| subject.to_owned(), |(_, person)| person.clone())
    };
    let (mut people, mut subjects) = (BTreeSet::new(), BTreeSet::new());
    for vote in list(record, "/approvals") {
        let (person, subject) = (text(vote, "/person"), text(vote, "/subject"));
        let twice = !people.insert(person.to_owned()) | !subjects.insert(one(subject));
        found.check(!twice, "I17", || format!("{}: {person} was counted twice", call.id));
        let own = barred.contains(person) || barred.contains(subject);
        found.check(!own, "I17", || format!("{}: {person} approved a call of their own", call.id));
        let same = vote["digest"] == record["digest"];
        found.check(same, "I3", || format!("{}: {person} approved another digest", call.id));
    }
}

fn quorum(call: &Call, version: &Version, found: &mut Findings) {
    let record = &version.record;
    let votes = list(record, "/approvals");
    let high = text(record, "/terms/tier") == "high";
    let needed = number(record, "/terms/needs/people").max(if high { 2 } else { 1 });
    found.check(votes.len() as u64 >= needed, "I3", || {
        format!("{}: {} approvals where {needed} are needed", call.id, votes.len())
    });
    let filled: BTreeSet<&str> = votes.iter().flat_map(|v| list(v, "/groups")).filter_map(Value::as_str).collect();
    for requirement in list(record, "/terms/needs/requirements") {
        let groups: Vec<&str> = list(requirement, "/groups").iter().filter_map(Value::as_str).collect();
        let all = requirement["all"] == Value::Bool(true);
        let met =
            if all { groups.iter().all(|g| filled.contains(g)) } else { groups.iter().any(|g| filled.contains(g)) };
        found.check(met || groups.is_empty(), "I3", || format!("{}: nobody of {groups:?} approved", call.id));
    }
    let kinds: BTreeSet<&str> = list(record, "/evidence").iter().map(|e| text(e, "/kind")).collect();
    for kind in list(record, "/terms/needs/evidence").iter().filter_map(Value::as_str) {
        found.check(kinds.contains(kind), "I3", || format!("{}: approved without evidence `{kind}`", call.id));
    }
    if record.pointer("/terms/needs/justification") == Some(&Value::Bool(true)) {
        let said = votes.iter().all(|v| !text(v, "/justification").is_empty());
        found.check(said, "I3", || format!("{}: approved without a justification", call.id));
    }
}
