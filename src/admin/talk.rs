//! What a record's page says of those who look at it: who has it in hand, what was said, asked for and escalated.

use crate::call::{Timestamp, visible};
use crate::store::{CallRecord, State};

use super::ask::Asker;

/// The section below the decision.
#[derive(Debug)]
pub(super) struct Talk {
    /// Who has it in hand, until when, and whether that is the person who looks.
    pub(super) claim: Option<(String, String, bool)>,
    /// When, who, what; oldest first.
    pub(super) lines: Vec<(String, String, String)>,
    /// When it is brought before whom next, if nobody decides.
    pub(super) next: Option<(String, String)>,
    pub(super) can_claim: bool,
    pub(super) can_comment: bool,
    pub(super) can_escalate: bool,
}

impl Talk {
    pub(super) fn of(asker: &Asker<'_>, record: &CallRecord, can: &[&str]) -> Self {
        let claim = record.claim_at(asker.now).map(|claim| {
            let names = claim.aliases.iter().chain([&claim.person]).map(String::as_str);
            (visible(&claim.person), claim.until.to_string(), asker.who.is_any_of(names))
        });
        Self {
            claim,
            lines: lines(record),
            next: next(asker, record),
            can_claim: can.contains(&"claim"),
            can_comment: can.contains(&"comment"),
            can_escalate: can.contains(&"escalate"),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && !self.can_claim && !self.can_comment && !self.can_escalate
    }
}

/// The rung that the clock reaches next.
fn next(asker: &Asker<'_>, record: &CallRecord) -> Option<(String, String)> {
    let held = record.state_at(asker.now) == State::Held;
    let (began, sla) = (record.clocks_began().filter(|_| held)?, record.terms.as_ref()?.sla);
    let rungs = asker.snapshot.config.reviews.escalate.rungs.iter();
    let coming = rungs.map(|r| (began.plus(r.after.from(sla)), &r.to)).filter(|(at, _)| *at > asker.now);
    coming.min().map(|(at, to)| (at.to_string(), visible(to)))
}

fn lines(record: &CallRecord) -> Vec<(String, String, String)> {
    let Some(handling) = record.handling.as_deref() else { return Vec::new() };
    let said = handling.comments.iter().map(|c| (c.at, visible(&c.by), visible(&c.text)));
    let asked = handling.requests.iter().map(|r| {
        let words = r.message.as_deref().map(|m| format!(": “{}”", visible(m))).unwrap_or_default();
        (r.at, visible(&r.by), format!("asks the agent for evidence: {}{words}", visible(&r.kinds.join(", "))))
    });
    let raised = handling.escalations.iter().map(|e| {
        let (by, why) = match (&e.by, &e.reason, &e.after) {
            (Some(by), Some(reason), _) => (visible(by), format!(": “{}”", visible(reason))),
            (Some(by), None, _) => (visible(by), String::new()),
            (None, _, after) => ("the clock".to_owned(), format!(" ({})", after.as_deref().unwrap_or_default())),
        };
        (e.at, by, format!("brings it before {}{why}", visible(&e.to)))
    });
    let mut all: Vec<(Timestamp, String, String)> = said.chain(asked).chain(raised).collect();
    all.sort_by_key(|(at, _, _)| *at);
    all.into_iter().map(|(at, by, what)| (at.to_string(), by, what)).collect()
}
