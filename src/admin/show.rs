//! What the pages show: every string that an agent or a tool wrote in visible characters, escaped by the templates.

use askama::Template;

use crate::call::{Beside, Timestamp, duration_text, encode_part, money_text, short_code, visible};
use crate::store::{CallRecord, State};

use super::alike::Like;
use super::amend::editable;
use super::ask::{Asker, filled_by, missing_evidence, places};
use super::decide::REASONS;
use super::exact::{Body, Exact, Field, fields, visible_bytes};
use super::foreseen::{Foreseen, Row, Shown, rows};
use super::grant_page::Granting;
use super::kill;
use super::problem::Problem;
use super::talk::Talk;
use super::undo::{ShownUndo, Undo};
use super::view;
use super::weigh::{Before, Weighed};

/// Who is signed in, for the head of a page and for its forms.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) user: String,
    pub(super) csrf: String,
    /// Which policies rule, since when.
    pub(super) rules: String,
    /// Policy is asked, and not obeyed.
    pub(super) observes: bool,
    /// What the kill switch has stopped.
    pub(super) stopped: Vec<kill::Row>,
}

/// One line of a list.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) href: String,
    pub(super) tier: &'static str,
    pub(super) state: &'static str,
    pub(super) title: String,
    agent: String,
    pub(super) code: String,
    pub(super) created: String,
    pub(super) expires: String,
    /// The same for scripts.
    until: String,
    needs: String,
    /// It should have been looked at by now.
    late: bool,
    /// Who has it in hand.
    claimed: String,
}

impl Line {
    pub(super) fn new(asker: &Asker<'_>, record: &CallRecord, hold: bool) -> Self {
        let href = if hold { format!("/holds/{}", record.id.hold()) } else { format!("/calls/{}", record.id) };
        let needs = record.terms.as_ref().filter(|_| record.state_at(asker.now) == State::Held);
        Self {
            href,
            tier: record.tier.as_str(),
            state: record.state_at(asker.now).as_str(),
            title: visible(&record.title),
            agent: visible(&record.principal.agent),
            code: short_code(&record.digest),
            created: to_the_second(record.created),
            expires: match record.halted {
                Some(_) => "stopped".to_owned(),
                None => record.expires.map(to_the_second).unwrap_or_default(),
            },
            until: record.expires.filter(|_| record.halted.is_none()).map(|t| t.to_string()).unwrap_or_default(),
            needs: needs.map(|t| format!("{} of {}", record.people(), t.needs.people)).unwrap_or_default(),
            late: needs.is_some() && view::sla(record).is_some_and(|sla| sla <= record.clock(asker.now)),
            claimed: record.claim_at(asker.now).map(|c| visible(&c.person)).unwrap_or_default(),
        }
    }
}

/// `2026-11-23 20:33:28`, for lists.
fn to_the_second(time: Timestamp) -> String {
    time.to_string().chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// What a search form says, to stand in it again.
#[derive(Debug, Default)]
pub(super) struct Sought {
    pub(super) q: String,
    tier: String,
    state: String,
    overdue: bool,
    /// As a query, without where it goes on.
    query: String,
}

impl Sought {
    pub(super) fn new(query: Option<&str>) -> Self {
        let mut sought = Self::default();
        for (name, value) in crate::wire::path::query(query).unwrap_or_default() {
            match name.as_str() {
                "q" => sought.q.clone_from(&value),
                "tier" => sought.tier.clone_from(&value),
                "state" => sought.state.clone_from(&value),
                "overdue" => sought.overdue = value == "1",
                "cursor" => continue,
                _ => {}
            }
            if !value.is_empty() {
                sought.query.push_str(&format!("&{}={}", encode_part(&name), encode_part(&value)));
            }
        }
        sought.q = visible(&sought.q);
        sought
    }

    /// The query of the next page.
    pub(super) fn next(&self, cursor: &str) -> String {
        format!("cursor={cursor}{}", self.query)
    }

    /// All states.
    fn states(&self) -> [&'static str; 12] {
        State::ALL.map(State::as_str)
    }

    fn is_some(&self) -> bool {
        !self.query.is_empty()
    }
}

#[derive(Debug, Template)]
#[template(path = "inbox.html")]
pub(super) struct Inbox {
    pub(super) head: Head,
    pub(super) sought: Sought,
    pub(super) paused: Vec<super::tools::Paused>,
    pub(super) unknown: Vec<Line>,
    /// Alike holds: id, name, how many, how much.
    pub(super) groups: Vec<(String, String, usize, String)>,
    pub(super) mine: Vec<Line>,
    pub(super) others: Vec<Line>,
    pub(super) more: bool,
}

#[derive(Debug, Template)]
#[template(path = "policies.html")]
pub(super) struct Policies {
    pub(super) head: Head,
    pub(super) digest: String,
    pub(super) since: String,
    pub(super) rows: Vec<super::policies::Row>,
}

#[derive(Debug, Template)]
#[template(path = "calls.html")]
pub(super) struct Calls {
    pub(super) head: Head,
    pub(super) sought: Sought,
    pub(super) lines: Vec<Line>,
    pub(super) next: String,
}

#[derive(Debug, Template)]
#[template(path = "sign_in.html")]
pub(super) struct SignIn {
    pub(super) next: String,
    /// What went wrong.
    pub(super) problem: Option<String>,
    /// Some reviewers have tokens.
    pub(super) by_token: bool,
    /// The provider's host.
    pub(super) provider: Option<String>,
}

#[derive(Debug, Template)]
#[template(path = "message.html")]
pub(super) struct Message {
    pub(super) title: String,
    pub(super) text: String,
}

#[derive(Debug)]
struct WhyLine {
    policy: String,
    reason: String,
    at: String,
    lifted_by: &'static str,
}

#[derive(Debug)]
struct Place {
    groups: String,
    filled_by: Option<String>,
}

#[derive(Debug)]
struct Vote {
    by: String,
    groups: String,
    at: String,
    channel: String,
    justification: Option<String>,
}

/// One piece of evidence.
#[derive(Debug)]
pub(super) struct Piece {
    kind: String,
    title: String,
    by: String,
    verified: bool,
    bytes: u64,
    sha256: String,
    at: String,
    /// Its content, where this person may see it and it is text.
    content: Option<String>,
    /// Where it is taken away, where this person may see it.
    file: Option<String>,
}

impl Piece {
    pub(super) fn new(record: &CallRecord, evidence: &crate::store::Evidence, content: Option<&[u8]>) -> Self {
        Self {
            kind: visible(&evidence.kind),
            title: visible(&evidence.title),
            by: visible(&evidence.by),
            verified: evidence.by == crate::store::PROXY,
            bytes: evidence.content.len,
            sha256: evidence.content.digest.to_string(),
            at: evidence.at.to_string(),
            content: content.filter(|c| std::str::from_utf8(c).is_ok()).map(visible_bytes),
            file: content.map(|_| format!("/holds/{}/evidence/{}", record.id.hold(), evidence.id)),
        }
    }
}

/// The hold, the screen that matters; and a call, which is the same without a decision.
#[derive(Debug, Template)]
#[template(path = "record.html")]
pub(super) struct Record {
    head: Head,
    problem: Option<(String, Vec<String>)>,
    /// It is the second look at a high one, with the justification that was given at the first.
    again: bool,
    said: String,
    is_hold: bool,
    id: String,
    title: String,
    tier: &'static str,
    is_high: bool,
    state: &'static str,
    code: String,
    digest: String,
    times: Vec<(&'static str, String)>,
    who: Vec<(&'static str, String)>,
    amount: Option<String>,
    effects: String,
    note: Option<(String, String, String)>,
    opinion: Option<(String, &'static str, String)>,
    renewals: u32,
    change: Option<Shown>,
    edits: Vec<(String, String, String)>,
    undo: ShownUndo,
    weighed: Weighed,
    can_undo: bool,
    can_withdraw: bool,
    edited: Vec<Row>,
    can_edit: bool,
    grant: Granting,
    talk: Talk,
    editable: String,
    why: Vec<WhyLine>,
    policies: String,
    policy_digest: String,
    fields: Vec<Field>,
    redacted: Vec<String>,
    method: String,
    url: String,
    content_type: String,
    headers: Vec<(String, String)>,
    key: String,
    bytes: u64,
    sha256: String,
    body: Option<String>,
    withheld: &'static str,
    evidence: Vec<Piece>,
    missing: String,
    /// What the proxy could not fetch, and why.
    unfetched: Vec<(String, String, String)>,
    people: usize,
    people_have: usize,
    justify: bool,
    places: Vec<Place>,
    approvals: Vec<Vote>,
    answer: Option<String>,
    can_approve: bool,
    can_reject: bool,
    is_unknown: bool,
    can_settle: bool,
    version: u64,
    /// The page where it is settled, and from when on people may say that it was not executed.
    settle_at: String,
    quiet_at: Option<String>,
    cannot: Vec<(&'static str, String)>,
    /// Where a fresh sign-in begins, when that is what approving needs.
    sign_in_again: Option<String>,
    groups: Vec<String>,
    reasons: &'static [&'static str],
    intent: Option<String>,
    confidence: Option<String>,
    run: String,
    run_href: String,
    step: Option<String>,
}

/// Kind, operation and reason of what the proxy could not fetch.
fn unfetched(record: &CallRecord) -> Vec<(String, String, String)> {
    record.unfetched.iter().map(|u| (visible(&u.kind), visible(&u.call), visible(&u.why))).collect()
}

/// What a record's page is made of.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) asker: Asker<'a>,
    pub(super) record: &'a CallRecord,
    pub(super) exact: &'a Exact,
    pub(super) foreseen: Option<&'a Foreseen>,
    pub(super) undo: &'a Undo,
    pub(super) like: &'a Like,
    pub(super) path: Vec<Before>,
    pub(super) evidence: Vec<Piece>,
    pub(super) is_hold: bool,
    pub(super) problem: Option<&'a Problem>,
    /// The justification that was given already, where a second look is asked for.
    pub(super) again: Option<String>,
}

impl Record {
    pub(super) fn new(head: Head, parts: Parts<'_>) -> Self {
        let Parts { asker, record, exact, foreseen, undo, like, path, evidence, is_hold, problem, again } = parts;
        let (can, mut cannot) = asker.can(record);
        cannot.retain(|(name, _)| {
            let of_calls = matches!(*name, "reconcile" | "undo");
            if is_hold { !of_calls && *name != "withdraw" } else { of_calls }
        });
        let needs = record.terms.as_ref().map(|t| &t.needs);
        let (body, withheld) = body(&exact.body);
        Self {
            problem: problem.map(|p| (p.detail().to_owned(), p.reasons())),
            again: again.is_some(),
            said: again.unwrap_or_default(),
            is_hold,
            id: if is_hold { record.id.hold().to_string() } else { record.id.to_string() },
            title: visible(&record.title),
            tier: record.tier.as_str(),
            is_high: record.tier == crate::call::Tier::High,
            state: record.state_at(asker.now).as_str(),
            code: short_code(&record.digest),
            digest: record.digest.to_string(),
            times: times(record),
            who: who(record),
            amount: record.money.as_ref().map(|(minor, currency)| visible(&money_text(*minor, currency))),
            effects: record.effects.join(", "),
            note: note(record),
            opinion: record.opinion.as_ref().map(|o| (visible(&o.person), o.outcome.as_str(), visible(&o.reason))),
            renewals: record.renewals,
            change: foreseen.map(Shown::new),
            edits: edits(record),
            undo: undo.shown(),
            weighed: Weighed::of(record, foreseen, like, path),
            can_undo: !is_hold && can.contains(&"undo"),
            can_withdraw: is_hold && can.contains(&"withdraw"),
            edited: record.edited.as_deref().map(|e| rows(&e.changes)).unwrap_or_default(),
            can_edit: is_hold && can.contains(&"edit"),
            grant: Granting::of(&asker, record, is_hold && can.contains(&"grant")),
            talk: Talk::of(&asker, record, &can),
            editable: editable(&record.arguments),
            why: why(record),
            policies: record.policies.join(", "),
            policy_digest: record.policy_digest.to_string(),
            fields: fields(&record.arguments, &risky(&asker, record), &exact.redacted),
            redacted: exact.redacted.iter().map(|p| visible(p)).collect(),
            method: visible(&exact.method),
            url: visible(&exact.url),
            content_type: exact.content_type.as_deref().map(visible).unwrap_or_default(),
            headers: exact.headers.iter().map(|(n, v)| (visible(n), visible(v))).collect(),
            key: record.key.as_deref().map(visible).unwrap_or_default(),
            bytes: exact.bytes,
            sha256: exact.sha256.map(|d| d.to_string()).unwrap_or_default(),
            body,
            withheld,
            evidence,
            missing: missing_evidence(record).join(", "),
            unfetched: unfetched(record),
            people: needs.map_or(0, |n| n.people),
            people_have: record.people(),
            justify: needs.is_some_and(|n| n.justification),
            places: places_of(record),
            approvals: approvals(record),
            answer: record.answer.as_ref().map(|a| format!("status {}, {} bytes, {}", a.status, a.len, a.digest)),
            can_approve: is_hold && can.contains(&"approve"),
            can_reject: is_hold && can.contains(&"reject"),
            is_unknown: record.state_at(asker.now) == State::Unknown,
            can_settle: can.contains(&"reconcile"),
            version: record.version,
            settle_at: format!("/calls/{}", record.id),
            quiet_at: record.quiet_at().filter(|at| *at > asker.now).map(to_the_second),
            sign_in_again: sign_in_again(&asker, record, &cannot),
            cannot: cannot.into_iter().map(|(name, why)| (verb(name), why)).collect(),
            groups: asker.fillable(record),
            reasons: &REASONS,
            intent: record.context.intent.as_deref().map(visible),
            confidence: record.context.confidence.map(|c| c.to_string()),
            run: visible(&record.context.run),
            run_href: super::run::href(record),
            step: record.context.step.as_deref().map(visible),
            head,
        }
    }
}

/// The body as it is shown, or why it is not.
fn body(body: &Body) -> (Option<String>, &'static str) {
    match body {
        Body::Bytes(bytes) => (Some(visible_bytes(bytes)), ""),
        Body::Withheld => (None, "The body is not shown: it carries the redacted arguments."),
        Body::Gone => (None, "The body is not kept any more."),
    }
}

/// Why it ended as it did, or what it waits for: code, words, and who said it.
fn note(record: &CallRecord) -> Option<(String, String, String)> {
    let note = record.note.as_ref()?;
    Some((visible(&note.code), visible(&note.text), note.by.as_deref().map(visible).unwrap_or_default()))
}

/// Arguments that name money or the target.
fn risky(asker: &Asker<'_>, record: &CallRecord) -> Vec<String> {
    let Some(operation) = asker.snapshot.operation(&record.operation) else { return Vec::new() };
    let money = operation.cost.amount.iter().flat_map(|(amount, currency)| [amount.clone(), currency.clone()]);
    money.chain(operation.target.clone()).collect()
}

fn times(record: &CallRecord) -> Vec<(&'static str, String)> {
    let mut all = vec![("asked", record.created.to_string())];
    all.extend(view::sla(record).map(|t| ("to be looked at by", t.to_string())));
    let runs = record.halted.is_none();
    all.extend(record.halted.map(|t| ("stopped: its clocks stand still since", t.to_string())));
    all.extend(record.expires.map(|t| (if runs { "expires" } else { "would expire" }, t.to_string())));
    all.extend(record.terms.as_ref().map(|t| ("window after the last vote", duration_text(t.window))));
    all.extend(record.not_before.map(|t| ("sent at", t.to_string())));
    all.extend(record.window_closes.map(|t| ("window closes", t.to_string())));
    all
}

fn who(record: &CallRecord) -> Vec<(&'static str, String)> {
    let p = &record.principal;
    let mut all = vec![
        ("operation", record.operation.clone()),
        ("agent", p.agent.clone()),
        ("its groups", p.groups.join(", ")),
        ("organisation", p.org.clone()),
        ("workflow", format!("{} ({})", record.context.workflow, record.context.stage)),
    ];
    all.extend(record.would.iter().map(|w| {
        let by = if w.by == Beside::Shadow { "with policies in shadow" } else { "if policies were enforced" };
        (by, format!("{} ({})", w.judgement.as_str(), w.policies.join(", ")))
    }));
    all.extend(p.operator.clone().map(|o| ("run by", o)));
    all.extend(p.owner.clone().map(|o| ("owned by", o)));
    all.extend(p.acting_for.clone().map(|o| ("on behalf of", o)));
    all.extend(record.context.source_ip.map(|ip| ("from address", ip.to_string())));
    all.into_iter().map(|(name, text)| (name, visible(&text))).collect()
}

fn why(record: &CallRecord) -> Vec<WhyLine> {
    let all = record.terms.iter().flat_map(|t| &t.why);
    all.map(|w| WhyLine {
        policy: visible(&w.policy),
        reason: visible(&w.reason),
        at: visible(&w.at),
        lifted_by: if w.rung >= 2 { "two people" } else { "one person" },
    })
    .collect()
}

/// Where a fresh sign-in begins, when approving lacks nothing else.
fn sign_in_again(asker: &Asker<'_>, record: &CallRecord, cannot: &[(&'static str, String)]) -> Option<String> {
    let lacks = cannot.iter().any(|(name, why)| *name == "approve" && why.starts_with("step_up_required"));
    let can_sign_in = asker.snapshot.config.identity.oidc.is_some();
    (lacks && can_sign_in).then(|| format!("/sign-in/oidc?fresh=1&next=/holds/{}", record.id.hold()))
}

/// As it stands after "You cannot".
fn verb(name: &'static str) -> &'static str {
    match name {
        "reconcile" => "settle it",
        "undo" => "take it back",
        "edit" => "change it",
        "grant" => "let calls like it pass by themselves",
        name => name,
    }
}

/// Who changed it, when, and why.
fn edits(record: &CallRecord) -> Vec<(String, String, String)> {
    let all = record.edited.iter().flat_map(|e| &e.edits);
    all.map(|e| (visible(&e.person), e.at.to_string(), visible(&e.note))).collect()
}

fn places_of(record: &CallRecord) -> Vec<Place> {
    let all = record.terms.as_ref().map(|t| places(&t.needs)).unwrap_or_default();
    all.iter()
        .map(|place| Place {
            groups: place.iter().map(|g| visible(g)).collect::<Vec<_>>().join(" or "),
            filled_by: filled_by(record, place).map(visible),
        })
        .collect()
}

fn approvals(record: &CallRecord) -> Vec<Vote> {
    let one = |a: &crate::store::Approval| Vote {
        by: visible(&a.person),
        groups: a.groups.join(", "),
        at: a.at.to_string(),
        channel: a.channel.clone(),
        justification: a.justification.as_deref().map(visible),
    };
    record.approvals.iter().map(one).collect()
}
