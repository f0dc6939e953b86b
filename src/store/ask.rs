//! The requests and answers of the store's steps, and the records that are no calls.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::{ArtifactId, CallId, Digest, Principal, PrincipalKey, Terms, Tier, Timestamp};

use super::{CallRecord, Charge, Editing, Evidence, Note, Pause, Preview, State};

/// What the store knows of a call that came in.
#[derive(Debug)]
pub enum Known {
    /// Nothing: go on.
    New,
    /// It ran; its stored outcome answers this one too.
    Concluded(Box<CallRecord>),
    /// It is held or approved: attach.
    Held(Box<CallRecord>),
    /// It is being sent right now: wait for it with [`super::Store::watch`].
    InFlight(CallId),
    /// It was rejected, expired, withdrawn, revoked or went stale, and the agent has not been told for long.
    Over(Box<CallRecord>),
    /// It may have happened.
    Unknown(Box<CallRecord>),
    /// The key stands for other arguments.
    KeyReused(CallId),
}

/// What to look up.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// Whose keys.
    pub principal: &'a Principal,
    /// `crm.refund`.
    pub operation: &'a str,
    /// The key, given or derived.
    pub key: Option<&'a str>,
    /// The key was derived.
    pub key_derived: bool,
    /// The fingerprint.
    pub fingerprint: Digest,
}

/// A call to park.
#[derive(Debug)]
pub struct Park {
    /// The record in state `held`, or `approved` where policy allows it and it only waits for its time, with `request.body` and `request.arguments` empty: the store fills them.
    pub record: CallRecord,
    /// The exact request body.
    pub body: Bytes,
    /// The full argument object as JSON; empty when the record shows it whole.
    pub arguments: Bytes,
    /// The states of its preview as JSON; empty when there are none.
    pub states: Bytes,
    /// Artifacts put before the call that now belong to it.
    pub evidence: Vec<ArtifactId>,
    /// Holds that this agent may have waiting.
    pub max_per_agent: usize,
    /// Holds that may wait in all.
    pub max_total: usize,
}

/// A vote for a held call. Eligibility by admin-plane policy was asked just before.
#[derive(Debug, Clone)]
pub struct Vote {
    /// The hold's call.
    pub id: CallId,
    /// `If-Match`, where given.
    pub version: Option<u64>,
    /// The digest that the approver saw.
    pub digest: Digest,
    /// The person after linking accounts.
    pub person: String,
    /// Identities that are this person: subjects, user ids and verified e-mails, for exclusion.
    pub aliases: Vec<String>,
    /// Issuer and subject that signed in.
    pub subject: String,
    /// Groups of the voter.
    pub groups: Vec<String>,
    /// Fill this group only, where the approver said so.
    pub as_group: Option<String>,
    /// `page`, `cli`, `api` or `slack`.
    pub channel: String,
    /// Written justification.
    pub justification: Option<String>,
}

/// A rejection. A veto before the quorum; a revocation between quorum and send.
#[derive(Debug, Clone)]
pub struct Reject {
    /// The hold's call.
    pub id: CallId,
    /// `If-Match`, where given.
    pub version: Option<u64>,
    /// The digest that the reviewer saw.
    pub digest: Digest,
    /// Who.
    pub person: String,
    /// Closed list of `review.md`, or `x_…`.
    pub reason_code: String,
    /// Words to the agent.
    pub message: Option<String>,
    /// For so long calls like it are refused at once, too.
    pub deny_alike: Option<Duration>,
}

/// What a person wants to do about a hold beside deciding. Admin-plane policy was asked just before.
#[derive(Debug, Clone)]
pub struct Handle {
    /// The hold's call.
    pub id: CallId,
    /// `If-Match`, where given.
    pub version: Option<u64>,
    /// The person after linking accounts.
    pub person: String,
    /// Identities that are this person.
    pub aliases: Vec<String>,
    /// What is wanted.
    pub wish: Wish,
}

/// What a person may do about a hold beside deciding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Take it in hand.
    Claim {
        /// For so long.
        lasts: Duration,
        /// Even when another person has it in hand.
        take_over: bool,
    },
    /// Let it go.
    Release,
    /// Say something to the others.
    Comment(String),
    /// Ask for evidence.
    AskEvidence {
        /// Which kinds.
        kinds: Vec<String>,
        /// Words to the agent, scrubbed.
        message: Option<String>,
    },
    /// Bring it before others.
    Escalate {
        /// Before whom.
        to: String,
        /// Why.
        reason: String,
    },
}

/// Who takes a hold back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WithdrawnBy {
    /// The agent that asked for it; the scope must be the call's own.
    Agent(PrincipalKey),
    /// A person of the owning side.
    Person(String),
}

impl Wish {
    /// Bytes of what is written.
    pub(super) fn words(&self) -> usize {
        match self {
            Self::Claim { .. } | Self::Release => 0,
            Self::Comment(text) => text.len(),
            Self::AskEvidence { message, .. } => message.as_ref().map_or(0, String::len),
            Self::Escalate { to, reason } => to.len() + reason.len(),
        }
    }
}

/// New terms for a hold: something moved, and people must look again.
#[derive(Debug, Clone)]
pub struct Renew {
    /// The hold's call.
    pub id: CallId,
    /// The version that was looked at; another one refuses.
    pub version: Option<u64>,
    /// Today's terms.
    pub terms: Terms,
    /// What approvers vote on from now on.
    pub digest: Digest,
    /// What was found out of its target anew, and its states as JSON; `None`: as it was.
    pub preview: Option<(Box<Preview>, Bytes)>,
    /// Digest of the configuration that decided.
    pub config_digest: Digest,
    /// Digest of the policy set that decided.
    pub policy_digest: Digest,
    /// What moved, in words for approvers and agent.
    pub what_changed: Note,
}

/// A held call as a reviewer wants it. Everything was decided anew just before.
#[derive(Debug)]
pub struct EditHold {
    /// The hold's call.
    pub id: CallId,
    /// `If-Match`, where given.
    pub version: Option<u64>,
    /// The digest that the reviewer saw.
    pub digest: Digest,
    /// Issuer and subject that signed in, and the other identities of this person: for exclusion.
    pub names: Vec<String>,
    /// What it becomes; payloads of its request and preview are empty: the store fills them.
    pub editing: Editing,
    /// The exact request body.
    pub body: Bytes,
    /// The full argument object as JSON; empty when the record shows it whole.
    pub arguments: Bytes,
    /// The states of its preview as JSON; empty when there are none.
    pub states: Bytes,
}

/// What an attempt to `park` met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParkError {
    /// This agent has as many holds as it may have.
    #[error("this agent has too many calls waiting")]
    TooManyAgent,
    /// As many holds wait as may wait in all.
    #[error("too many calls are waiting")]
    TooManyTotal,
    /// The key, or the same call, came meanwhile: look up again.
    #[error("the key is taken")]
    KeyTaken(CallId),
    /// The kill switch stops it.
    #[error("it is stopped")]
    Paused(Box<Pause>),
    /// A reviewer rejected this call, and calls like it for a while.
    #[error("calls like it are refused for a while")]
    DeniedAlike(CallId),
    /// The store cannot write.
    #[error("the store cannot record")]
    Unavailable,
}

/// What a person says became of an `unknown` call.
#[derive(Debug, Clone)]
pub struct Reconcile {
    /// The call.
    pub id: CallId,
    /// `If-Match`, where given.
    pub version: Option<u64>,
    /// Who, after linking accounts.
    pub person: String,
    /// Identities that are this person: subjects, user ids and verified e-mails, for exclusion.
    pub aliases: Vec<String>,
    /// Issuer and subject that signed in.
    pub subject: String,
    /// `succeeded` or `not_executed`.
    pub outcome: State,
    /// Why.
    pub reason: String,
}

/// An artifact to keep, such as a piece of evidence.
#[derive(Debug)]
pub struct NewArtifact {
    /// Its id.
    pub id: ArtifactId,
    /// Its kind, such as `ticket`.
    pub kind: String,
    /// Its title.
    pub title: String,
    /// Who brings it.
    pub by: String,
    /// Whose it is.
    pub principal_key: PrincipalKey,
    /// Its content.
    pub content: Bytes,
}

/// A stored artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Whose it is.
    pub principal_key: PrincipalKey,
    /// What it is, and where its content is.
    pub evidence: Evidence,
}

/// Why a step on a hold was refused (`review.md`, admin API).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HoldError {
    /// No such hold.
    #[error("no such hold")]
    NotFound,
    /// `If-Match` names another version.
    #[error("the hold changed since you read it")]
    VersionChanged(Box<CallRecord>),
    /// The digest is not the current one.
    #[error("the call changed since you read it")]
    DigestChanged(Box<CallRecord>),
    /// It was decided already.
    #[error("already decided")]
    AlreadyDecided(Box<CallRecord>),
    /// After `expires`.
    #[error("the hold has expired")]
    Expired(Box<CallRecord>),
    /// The voter asked for it, is acted for, or runs the agent.
    #[error("you cannot approve a call that you requested")]
    SelfReview,
    /// The voter changed the call: on the high tier the second vote is another person's.
    #[error("you changed this call; another person has the last word")]
    OwnEdit,
    /// Another person has it in hand.
    #[error("another person has it in hand")]
    ClaimedByOther(Box<CallRecord>),
    /// As much was said and asked as one hold keeps.
    #[error("as much was said and asked as one hold keeps")]
    Full,
    /// This person was counted.
    #[error("this person was counted already")]
    AlreadyCounted,
    /// None of the needed groups.
    #[error("you are in none of the groups that are still needed")]
    NotInGroup,
    /// A written justification is demanded.
    #[error("a written justification is required")]
    JustificationRequired,
    /// No grant comes from a call that people have not approved.
    #[error("people have not approved it")]
    NotApproved,
    /// There is a live grant from this call; it is taken back first.
    #[error("there is a grant from this call already")]
    AlreadyGranted(crate::call::GrantId),
    /// Evidence is missing.
    #[error("evidence is missing")]
    EvidenceMissing(Vec<String>),
    /// Before quiescence nobody can know that a call had no effect.
    #[error("it may still be on the wire; nobody can know yet that it was not executed")]
    TooEarly(Box<CallRecord>),
    /// The store cannot write.
    #[error("the decision could not be recorded")]
    Unavailable,
}

/// What begins: a fresh call that policy allowed, or an approved hold.
#[derive(Debug)]
pub struct Begin {
    /// For a fresh call the record in state `dispatching`; for a hold the stored record (its version must be current),
    /// with the policies and versions that let it go now.
    pub record: CallRecord,
    /// A fresh call's request body.
    pub body: Bytes,
    /// A fresh call's full arguments as JSON.
    pub arguments: Bytes,
    /// The states of a fresh call's preview as JSON; empty when there are none.
    pub states: Bytes,
    /// What to set aside, all or none.
    pub charges: Vec<Charge>,
    /// An approved hold, not a fresh call.
    pub release: bool,
}

/// Why a begin was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum BeginError {
    /// The key appeared meanwhile: look up again.
    #[error("the key is taken")]
    KeyTaken,
    /// This ledger has no room.
    #[error("the {} budget is exhausted", .0.ledger.scope)]
    Budget(Box<Charge>),
    /// The kill switch stops it.
    #[error("it is stopped")]
    Paused(Box<Pause>),
    /// The grant by which it would pass is over, or has not so much left.
    #[error("the grant is over")]
    GrantOver,
    /// A hold that is not `approved` any more, or of another version.
    #[error("the hold is not approved any more")]
    NotApproved,
    /// The window closed.
    #[error("the window has closed")]
    WindowClosed,
    /// The store cannot write.
    #[error("the store cannot record")]
    Unavailable,
}

/// The right to conclude one begun attempt. Must be consumed by `conclude`.
#[must_use = "a begun call must be concluded"]
#[derive(Debug)]
pub struct Begun {
    /// The call.
    pub id: CallId,
    /// The attempt; a stale attempt never overwrites.
    pub attempt: u32,
    /// The epoch that began it.
    pub epoch: u64,
}

/// How an attempt ended.
#[derive(Debug)]
pub struct Conclusion {
    /// `succeeded`, `failed`, `not_executed` or `unknown`.
    pub state: State,
    /// The answer's status and headers, when there was one.
    pub answer: Option<(u16, Vec<(String, String)>)>,
    /// The whole body when it is kept, else its length and digest.
    pub body: AnswerBody,
    /// Why, for `not_executed` and `unknown`.
    pub note: Option<Note>,
}

/// What is kept of an answer's body.
#[derive(Debug)]
pub enum AnswerBody {
    /// No answer.
    None,
    /// All of it.
    Kept(Bytes),
    /// Too long to keep.
    Digest(u64, Digest),
}

/// What ages and totals the facts need, computed from the records.
#[derive(Debug, Clone)]
pub struct HistoryQuestion<'a> {
    /// Whose.
    pub principal: &'a Principal,
    /// Which run.
    pub run: &'a str,
    /// Which operation.
    pub operation: &'a str,
    /// Its target, where configured.
    pub target: Option<Digest>,
    /// Currency for `sum_minor_today`.
    pub currency: Option<&'a str>,
}

/// One audit record that is no transition of a call with effects: a refusal, a read, a reload, a sign-in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditNote {
    /// `call.refused`, `call.read`, `config.reloaded`, `admin.signed_in` …
    pub kind: String,
    /// The call it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<CallId>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Whose history it counts in: org and agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<(String, String)>,
    /// The run it counts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// `crm.refund`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The refusal code, for refused calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Anything else worth keeping. Never secrets, never redacted members.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub more: BTreeMap<String, Value>,
}

impl AuditNote {
    /// A note that is about no call and no caller.
    #[must_use]
    pub fn plain(kind: &str, more: BTreeMap<String, Value>) -> Self {
        Self {
            kind: kind.into(),
            call: None,
            principal: None,
            agent: None,
            run: None,
            operation: None,
            code: None,
            more,
        }
    }
}

/// Which calls to list; every given field must match.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only these states (as of now); empty means all.
    pub states: Vec<State>,
    /// Only calls that were held at some time.
    pub holds_only: bool,
    /// By tool.
    pub tool: Option<String>,
    /// By operation.
    pub operation: Option<String>,
    /// By agent.
    pub agent: Option<String>,
    /// By workflow.
    pub workflow: Option<String>,
    /// By run.
    pub run: Option<String>,
    /// By tier.
    pub tier: Option<Tier>,
    /// Asked for at this time or later.
    pub since: Option<Timestamp>,
    /// Asked for before this time.
    pub until: Option<Timestamp>,
    /// Concluded calls to look at, at most; 100,000 by default. For what a page must not wait for.
    pub looks: Option<usize>,
    /// Only ids below this one (newest first), for paging.
    pub before: Option<CallId>,
    /// At most this many.
    pub limit: usize,
}
