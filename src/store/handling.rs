//! What people do about a held call beside deciding: who has it in hand, what they say, what they ask for, whom it was
//! brought before. Sans-io. None of it changes what is voted on; only a claim keeps others from voting, and a claim ends
//! by itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::call::{Ladder, Timestamp};

use super::state::Event;
use super::votes::{check_current, is_own_call, same};
use super::{CallRecord, Handle, HoldError, State, Wish};

/// Longest time that one claim lasts.
pub const MAX_CLAIM: Duration = Duration::from_secs(60 * 60);
/// So many comments, requests and escalations one hold has at most.
const MOST: usize = 200;
/// And so many bytes of words: each step writes all of them.
const WORDS: usize = 64 << 10;

/// Whether this may be a kind of evidence: a word such as `ticket`.
#[must_use]
pub fn is_kind(kind: &str) -> bool {
    (1..=64).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// One person has it in hand, for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The person (after linking accounts).
    pub person: String,
    /// Identities that are this person.
    pub aliases: Vec<String>,
    /// Since when.
    pub at: Timestamp,
    /// Until when others leave it to this person.
    pub until: Timestamp,
}

/// What one person said to the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comment {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Plain text. The agent never reads it.
    pub text: String,
}

/// What a reviewer wants to see before deciding. The agent is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceRequest {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Kinds of evidence, such as `ticket`.
    pub kinds: Vec<String>,
    /// Words to the agent, scrubbed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// It was brought before others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    /// Before whom, as configuration or a person names them.
    pub to: String,
    /// When.
    pub at: Timestamp,
    /// Who did; the clock where nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The rung of `reviews.escalate`, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Why, where a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// All that was done about one call.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    /// Who has it in hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// What was said, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comments: Vec<Comment>,
    /// What was asked for, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<EvidenceRequest>,
    /// Before whom it was brought, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub escalations: Vec<Escalation>,
    /// How often its clock had begun anew when it was last told that its time is nearly over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warned: Option<u32>,
}

/// One thing that was done about a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handled {
    /// Taken in hand.
    Claimed(Claim),
    /// Let go.
    Released,
    /// Said.
    Commented(Comment),
    /// Asked for.
    EvidenceAsked(EvidenceRequest),
    /// Brought before others.
    Escalated(Escalation),
}

impl Handling {
    /// Bytes of all that people wrote.
    fn words(&self) -> usize {
        let said = self.comments.iter().map(|c| c.text.len());
        let asked = self.requests.iter().map(|r| r.message.as_ref().map_or(0, String::len));
        let raised = self.escalations.iter().map(|e| e.to.len() + e.reason.as_ref().map_or(0, String::len));
        said.chain(asked).chain(raised).sum()
    }

    pub(super) fn take(&mut self, handled: Handled) {
        match handled {
            Handled::Claimed(claim) => self.claim = Some(claim),
            Handled::Released => self.claim = None,
            Handled::Commented(comment) => self.comments.push(comment),
            Handled::EvidenceAsked(request) => self.requests.push(request),
            Handled::Escalated(escalation) => self.escalations.push(escalation),
        }
    }
}

impl CallRecord {
    /// Who has it in hand at `now`, while it is held.
    #[must_use]
    pub fn claim_at(&self, now: Timestamp) -> Option<&Claim> {
        let claim = self.handling.as_ref()?.claim.as_ref()?;
        (self.state_at(now) == State::Held && now < claim.until).then_some(claim)
    }

    /// When its clocks began: when it was parked, or held anew.
    #[must_use]
    pub fn clocks_began(&self) -> Option<Timestamp> {
        Some(self.expires?.minus(self.terms.as_ref()?.expires))
    }

    /// The same hold once it is told that its time is nearly over; nothing before the last fifth of its clock, and once for
    /// each time that its clock begins. People need not read it anew for that: it stays the same version.
    pub(super) fn warned(&self, now: Timestamp) -> Option<Self> {
        let (began, expires) = (self.clocks_began()?, self.terms.as_ref()?.expires);
        let told = self.handling.as_ref().and_then(|h| h.warned) == Some(self.renewals);
        let waits = self.state_at(now) == State::Held && self.halted.is_none();
        if told || !waits || now < began.plus(expires.saturating_mul(4) / 5) {
            return None;
        }
        let mut next = self.clone();
        next.handling.get_or_insert_default().warned = Some(self.renewals);
        Some(next)
    }

    /// The first rung of `ladder` that it has reached and that nobody has heard of.
    pub(super) fn rung_due(&self, ladder: &Ladder, now: Timestamp) -> Option<Escalation> {
        // Who could do nothing about it is not disturbed.
        if self.state_at(now) != State::Held || self.halted.is_some() {
            return None;
        }
        let (began, sla) = (self.clocks_began()?, self.terms.as_ref()?.sla);
        let told = |to: &str, after: &str| {
            let all = self.handling.iter().flat_map(|h| &h.escalations);
            all.into_iter().any(|e| e.to == to && e.after.as_deref() == Some(after) && e.at >= began)
        };
        let due = ladder.rungs.iter().find(|r| now >= began.plus(r.after.from(sla)) && !told(&r.to, &r.text))?;
        Some(Escalation { to: due.to.clone(), at: now, by: None, after: Some(due.text.clone()), reason: None })
    }
}

/// Nobody else has it in hand.
///
/// # Errors
/// `ClaimedByOther` where somebody has.
pub(super) fn check_unclaimed<'n, I: Iterator<Item = &'n str>>(
    record: &CallRecord,
    names: impl Fn() -> I,
    now: Timestamp,
) -> Result<(), HoldError> {
    match record.claim_at(now) {
        Some(claim) if !is_claimers(claim, names) => Err(HoldError::ClaimedByOther(Box::new(record.clone()))),
        _ => Ok(()),
    }
}

fn is_claimers<'n, I: Iterator<Item = &'n str>>(claim: &Claim, names: impl Fn() -> I) -> bool {
    claim.aliases.iter().chain([&claim.person]).any(|c| names().any(|n| same(n, c)))
}

/// What a person wants to do about a hold; nothing when it is so already.
///
/// # Errors
/// Says why it cannot be.
pub(super) fn handle(record: &CallRecord, asked: &Handle, now: Timestamp) -> Result<Option<Event>, HoldError> {
    // People who settle an unknown call talk about it, too.
    let open: &[State] = match asked.wish {
        Wish::Comment(_) => &[State::Held, State::Unknown],
        _ => &[State::Held],
    };
    check_current(record, now, asked.version, None, open)?;
    let names = || asked.aliases.iter().chain([&asked.person]).map(String::as_str);
    let by = asked.person.clone();
    let done = record.handling.as_deref().cloned().unwrap_or_default();
    let words = done.words() + asked.wish.words();
    let full = |len: usize| if len < MOST && words <= WORDS { Ok(()) } else { Err(HoldError::Full) };
    let handled = match &asked.wish {
        Wish::Claim { .. } if is_own_call(record, names) => return Err(HoldError::SelfReview),
        Wish::Claim { lasts, take_over } => {
            if !take_over {
                check_unclaimed(record, names, now)?;
            }
            let until = now.plus((*lasts).min(MAX_CLAIM));
            Handled::Claimed(Claim { person: by, aliases: asked.aliases.clone(), at: now, until })
        }
        Wish::Release if record.claim_at(now).is_none() => return Ok(None),
        Wish::Release => {
            check_unclaimed(record, names, now)?;
            Handled::Released
        }
        Wish::Comment(text) => {
            full(done.comments.len())?;
            Handled::Commented(Comment { by, at: now, text: text.clone() })
        }
        Wish::AskEvidence { kinds, message } => {
            full(done.requests.len())?;
            let (kinds, message) = (kinds.clone(), message.clone());
            Handled::EvidenceAsked(EvidenceRequest { by, at: now, kinds, message })
        }
        Wish::Escalate { to, reason } => {
            full(done.escalations.len())?;
            let (to, reason) = (to.clone(), Some(reason.clone()));
            Handled::Escalated(Escalation { to, at: now, by: Some(by), after: None, reason })
        }
    };
    Ok(Some(Event::Handle(handled)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{After, Rung};
    use crate::store::fixtures::{MINUTE, START, record, vote};
    use crate::store::state::apply;
    use crate::store::votes::count;

    fn asked(record: &CallRecord, person: &str, wish: Wish) -> Handle {
        let aliases = vec![format!("idp|{person}")];
        Handle { id: record.id, version: None, person: person.into(), aliases, wish }
    }

    fn done(record: &CallRecord, person: &str, wish: Wish, now: Timestamp) -> Result<CallRecord, HoldError> {
        let event = handle(record, &asked(record, person, wish), now)?;
        Ok(event.map_or_else(|| record.clone(), |event| apply(record, event, now).unwrap()))
    }

    fn claim(minutes: u32, take_over: bool) -> Wish {
        Wish::Claim { lasts: MINUTE * minutes, take_over }
    }

    #[test]
    fn a_claim_keeps_others_from_voting_until_it_ends() {
        let held = record(State::Held, "f", None);
        let taken = done(&held, "eve", claim(10, false), START).unwrap();
        assert_eq!(taken.claim_at(START).unwrap().until, START.plus(MINUTE * 10));
        assert_eq!((taken.state, taken.digest, taken.approvals.len()), (State::Held, held.digest, 0));
        let other = vote(&taken, "max", &["ops"]);
        assert!(matches!(count(&taken, &other, START), Err(HoldError::ClaimedByOther(_))));
        assert!(matches!(done(&taken, "max", claim(10, false), START), Err(HoldError::ClaimedByOther(_))));
        assert!(matches!(done(&taken, "max", Wish::Release, START), Err(HoldError::ClaimedByOther(_))));
        assert!(count(&taken, &vote(&taken, "eve", &["ops"]), START).is_ok());
        let later = START.plus(MINUTE * 10);
        assert!(taken.claim_at(later).is_none());
        assert!(count(&taken, &other, later).is_ok());
        let over = done(&taken, "max", claim(5, true), START).unwrap();
        assert_eq!(over.claim_at(START).unwrap().person, "max");
        let free = done(&over, "max", Wish::Release, START).unwrap();
        assert!(free.claim_at(START).is_none());
        assert_eq!(done(&free, "max", Wish::Release, START).unwrap().version, free.version, "nothing to let go");
    }

    #[test]
    fn a_claim_lasts_an_hour_at_most_and_is_nothing_for_who_asked_for_the_call() {
        let held = record(State::Held, "f", None);
        let taken = done(&held, "eve", claim(600, false), START).unwrap();
        assert_eq!(taken.claim_at(START).unwrap().until, START.plus(MAX_CLAIM));
        assert_eq!(done(&held, "anna", claim(5, true), START), Err(HoldError::SelfReview));
    }

    #[test]
    fn a_vote_ends_the_claim_so_that_the_second_person_can_vote() {
        let held = record(State::Held, "f", None);
        let taken = done(&held, "eve", claim(10, false), START).unwrap();
        let (approval, _) = count(&taken, &vote(&taken, "eve", &["ops"]), START).unwrap();
        let voted = apply(&taken, Event::Vote { approval, last: false }, START).unwrap();
        assert!(voted.claim_at(START).is_none());
    }

    #[test]
    fn what_is_said_is_kept_in_order_and_bounded() {
        let mut held = record(State::Held, "f", None);
        for i in 0..MOST {
            held = done(&held, "eve", Wish::Comment(i.to_string()), START).unwrap();
        }
        let comments = &held.handling.as_ref().unwrap().comments;
        assert_eq!((comments.len(), comments[7].text.as_str()), (MOST, "7"));
        assert_eq!(done(&held, "eve", Wish::Comment("more".into()), START), Err(HoldError::Full));
        let mut long = record(State::Held, "f", None);
        for _ in 0..WORDS / 4000 {
            long = done(&long, "eve", Wish::Comment("x".repeat(4000)), START).unwrap();
        }
        let more = Wish::Comment("x".repeat(4000));
        assert_eq!(done(&long, "eve", more, START), Err(HoldError::Full));
        assert!(done(&long, "eve", Wish::Comment("short".into()), START).is_ok());
        let over = record(State::Rejected, "f", None);
        assert!(matches!(done(&over, "eve", Wish::Comment("x".into()), START), Err(HoldError::AlreadyDecided(_))));
        let unknown = record(State::Unknown, "f", None);
        assert!(done(&unknown, "eve", Wish::Comment("x".into()), START).is_ok());
    }

    #[test]
    fn each_rung_is_told_once_and_anew_when_the_clocks_begin_anew() {
        let rung = |after, text: &str, to: &str| Rung { after, text: text.into(), to: to.into() };
        let ladder = Ladder {
            rungs: vec![
                rung(After::Sla(1000), "1x", "leads"),
                rung(After::Sla(2000), "2x", "pager"),
                rung(After::Time(MINUTE * 40), "40m", "pager"),
            ],
        };
        let (mut held, mut told) = (record(State::Held, "f", None), Vec::new());
        for minute in 0..61 {
            let now = START.plus(MINUTE * minute);
            while let Some(escalation) = held.rung_due(&ladder, now) {
                told.push((minute, escalation.to.clone()));
                held = apply(&held, Event::Handle(Handled::Escalated(escalation)), now).unwrap();
            }
        }
        let wanted = [(15, "leads".to_owned()), (30, "pager".into()), (40, "pager".into())];
        assert_eq!(told, wanted);
        held.expires = Some(START.plus(MINUTE * 120));
        assert_eq!(held.rung_due(&ladder, START.plus(MINUTE * 74)), None);
        assert_eq!(held.rung_due(&ladder, START.plus(MINUTE * 75)).unwrap().to, "leads");
    }
}
