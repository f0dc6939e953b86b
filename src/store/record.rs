//! The durable record of a call, and the requests and answers of the store's steps.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::{ArtifactId, CallContext, CallId, Digest, Principal, PrincipalKey, Target, Terms, Tier, Timestamp};

/// The state of a call with effects (`lifecycle.md`, section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Parked, waiting for votes.
    Held,
    /// The quorum is complete; the send has not begun.
    Approved,
    /// A request may be on the wire.
    Dispatching,
    /// One effect; final.
    Succeeded,
    /// The upstream answered with an error; final.
    Failed,
    /// Provably no effect; final.
    NotExecuted,
    /// It may have happened.
    Unknown,
    /// A reviewer said no; final.
    Rejected,
    /// Nobody decided, or nothing was sent, in time; final.
    Expired,
    /// Taken back by the agent or the owner; final.
    Withdrawn,
    /// Approved, then taken back by policy or with its principal; final.
    Revoked,
    /// What the approvers saw moved too often; final.
    Stale,
}

impl State {
    /// All states, for closed label sets.
    pub const ALL: [Self; 12] = [
        Self::Held,
        Self::Approved,
        Self::Dispatching,
        Self::Succeeded,
        Self::Failed,
        Self::NotExecuted,
        Self::Unknown,
        Self::Rejected,
        Self::Expired,
        Self::Withdrawn,
        Self::Revoked,
        Self::Stale,
    ];

    /// The word that API, page, records and metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Approved => "approved",
            Self::Dispatching => "dispatching",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::NotExecuted => "not_executed",
            Self::Unknown => "unknown",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Revoked => "revoked",
            Self::Stale => "stale",
        }
    }

    /// Whether no event can change it any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Held | Self::Approved | Self::Dispatching | Self::Unknown)
    }
}

/// Where sealed payload bytes stand in the journal, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadRef {
    /// Frame that carries it.
    pub seq: u64,
    /// Which payload of that frame.
    pub index: u32,
    /// Length in bytes before sealing.
    pub len: u64,
    /// SHA-256 of the bytes before sealing.
    pub digest: Digest,
}

/// The request as it will be, or was, sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredRequest {
    /// Method, path and query.
    pub target: Target,
    /// Content type of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Allow-listed end-to-end headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// MCP: the JSON-RPC id as it stood in the body, and whether the message is of the modern era.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc: Option<(String, bool)>,
    /// The exact body and the full arguments, sealed: `{"arguments": …}` is payload `arguments`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<PayloadRef>,
    /// The full argument object, sealed; absent when nothing is redacted and the record shows it whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<PayloadRef>,
}

/// The stored answer of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredAnswer {
    /// The upstream's status.
    pub status: u16,
    /// End-to-end headers.
    pub headers: Vec<(String, String)>,
    /// Length of the whole body in bytes.
    pub len: u64,
    /// SHA-256 of the whole body.
    pub digest: Digest,
    /// The body, sealed; absent when it was longer than what is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<PayloadRef>,
}

/// One counted vote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The person (after linking accounts).
    pub person: String,
    /// Issuer and subject that signed in.
    pub subject: String,
    /// The groups that the voter is in and that this vote fills.
    pub groups: Vec<String>,
    /// When.
    pub at: Timestamp,
    /// `page`, `cli`, `api`.
    pub channel: String,
    /// The digest that was approved.
    pub digest: Digest,
    /// The written justification, where given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub justification: Option<String>,
}

/// A piece of evidence attached to a hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The artifact.
    pub id: ArtifactId,
    /// Its kind, such as `ticket`.
    pub kind: String,
    /// Its title.
    pub title: String,
    /// Who brought it: an agent (not verified) or `proxy`.
    pub by: String,
    /// Its content, sealed.
    pub content: PayloadRef,
    /// When.
    pub at: Timestamp,
}

/// One amount set aside, or used, in one scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Which ledger: scope, owner of the scope, unit, window. See [`LedgerKey`].
    pub ledger: LedgerKey,
    /// Whole units (calls, minor units).
    pub amount: i64,
    /// The limit that is in force now.
    pub limit: i64,
}

/// Names one ledger: `run`/`user`/`org`/`step`, whose, in what, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LedgerKey {
    /// `step`, `run`, `user` or `org`.
    pub scope: String,
    /// Whose: a run within a principal, a person, an organisation.
    pub owner: String,
    /// `calls` or a currency code.
    pub unit: String,
    /// Start of the window for renewing budgets; `None` for those that live as long as their owner.
    pub window: Option<Timestamp>,
}

/// How much of one ledger is used and set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balance {
    /// Settled.
    pub used: i64,
    /// Set aside for open calls.
    pub reserved: i64,
}

/// The one durable record of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    /// Its id; the hold has the same bits.
    pub id: CallId,
    /// Grows by one with every transition or vote.
    pub version: u64,
    /// Its state.
    pub state: State,
    /// `crm.refund`.
    pub operation: String,
    /// `crm`.
    pub tool: String,
    /// Effects by name.
    pub effects: Vec<String>,
    /// Who called.
    pub principal: Principal,
    /// In which work.
    pub context: CallContext,
    /// Idempotency key, given or derived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The key was derived.
    #[serde(default)]
    pub key_derived: bool,
    /// When the key stops standing for this call, counted from the conclusion (derived keys: from the begin).
    pub keep: Duration,
    /// What makes two calls the same call.
    pub fingerprint: Digest,
    /// What approvers vote on.
    pub digest: Digest,
    /// The request.
    pub request: StoredRequest,
    /// The argument object with redacted members replaced; what records and pages show.
    pub arguments: Value,
    /// Digest of the argument schema.
    pub schema_digest: Digest,
    /// Digest of the configuration and of the policies that decided.
    pub config_digest: Digest,
    /// Digest of the policy set.
    pub policy_digest: Digest,
    /// At which rung policy allowed it.
    pub tier: Tier,
    /// Policies that allowed or held it.
    pub policies: Vec<String>,
    /// Terms of the hold; `None` for a call that ran by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    /// The proxy sends it after the last vote (`true`), or the client's return does.
    #[serde(default)]
    pub release_by_proxy: bool,
    /// A title for people, from the operation's template and checked arguments.
    pub title: String,
    /// Counted votes on the current digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// Evidence attached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// When it was parked or begun.
    pub created: Timestamp,
    /// Last change.
    pub updated: Timestamp,
    /// After this no vote counts (held calls).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// After this it may not be begun (approved calls).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_closes: Option<Timestamp>,
    /// How often it returned to `held` because something moved.
    #[serde(default)]
    pub renewals: u32,
    /// Attempts begun.
    #[serde(default)]
    pub attempt: u32,
    /// Epoch of the process that began the last attempt.
    #[serde(default)]
    pub epoch: u64,
    /// When its last attempt was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Timestamp>,
    /// What was set aside, or used, for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub charges: Vec<Charge>,
    /// The answer, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<StoredAnswer>,
    /// Why it ended as it did, or why it still waits: reason code and words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Note>,
    /// What a first person says became of an `unknown` call; a second one must say the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opinion: Option<Opinion>,
    /// When its outcome was first handed to the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collected: Option<Timestamp>,
    /// Value of the operation's `target:` for `history.firstTimeTarget`, as a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Digest>,
    /// Money that it moves: minor units and currency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money: Option<(i64, String)>,
    /// Frame of its last transition: what must be durable before anyone hears of this state.
    #[serde(default)]
    pub seq: u64,
    /// Frames that it is read back from: the last one that has it whole, and the changes since.
    #[serde(skip)]
    pub frames: Vec<u64>,
}

/// What one person says became of an `unknown` call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opinion {
    /// Who.
    pub person: String,
    /// `succeeded` or `not_executed`.
    pub outcome: State,
    /// Why this person thinks so.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// Why a call ended as it did, or what it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// A stable code: a reject reason, a refusal code, `process_died` …
    pub code: String,
    /// Words, scrubbed; the agent may read them.
    pub text: String,
    /// Who said it, where a person did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl CallRecord {
    /// The state that holds at `now`: expiry is a predicate of the clock, not the work of a sweeper.
    #[must_use]
    pub fn state_at(&self, now: Timestamp) -> State {
        let over = |end: Option<Timestamp>| end.is_some_and(|end| now >= end);
        match self.state {
            State::Held if over(self.expires) => State::Expired,
            State::Approved if over(self.window_closes) => State::Expired,
            state => state,
        }
    }
}

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
    /// The record in state `held`, with `request.body` and `request.arguments` empty: the store fills them.
    pub record: CallRecord,
    /// The exact request body.
    pub body: Bytes,
    /// The full argument object as JSON; empty when the record shows it whole.
    pub arguments: Bytes,
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
    /// `page`, `cli` or `api`.
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
}

/// Who takes a hold back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WithdrawnBy {
    /// The agent that asked for it; the scope must be the call's own.
    Agent(PrincipalKey),
    /// A person of the owning side.
    Person(String),
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
    /// Digest of the configuration that decided.
    pub config_digest: Digest,
    /// Digest of the policy set that decided.
    pub policy_digest: Digest,
    /// What moved, in words for approvers and agent.
    pub what_changed: Note,
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
    /// The store cannot write.
    #[error("the store cannot record")]
    Unavailable,
}

/// What a person says became of an `unknown` call.
#[derive(Debug, Clone)]
pub struct Reconcile {
    /// The call.
    pub id: CallId,
    /// Who, after linking accounts.
    pub person: String,
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
    /// This person was counted.
    #[error("this person was counted already")]
    AlreadyCounted,
    /// None of the needed groups.
    #[error("you are in none of the groups that are still needed")]
    NotInGroup,
    /// A written justification is demanded.
    #[error("a written justification is required")]
    JustificationRequired,
    /// Evidence is missing.
    #[error("evidence is missing")]
    EvidenceMissing(Vec<String>),
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
    /// Only ids below this one (newest first), for paging.
    pub before: Option<CallId>,
    /// At most this many.
    pub limit: usize,
}
