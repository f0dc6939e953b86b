//! The durable record of a call.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::{
    ArtifactId, CallContext, CallId, Certainty, Change, Digest, Facts, GrantId, Principal, QUIET, Target, Terms, Tier,
    Timestamp, Would, seen_digest,
};

use super::Handling;

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
    /// Every other name of that person, so that another account of the same person does not count again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The groups that the voter is in and that this vote fills.
    pub groups: Vec<String>,
    /// When.
    pub at: Timestamp,
    /// `page`, `cli`, `api` or `slack`.
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

/// Evidence that the proxy was to fetch by itself and that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfetched {
    /// Its kind.
    pub kind: String,
    /// The operation that was asked.
    pub call: String,
    /// Why it is not there, in words.
    pub why: String,
}

/// Who brings what the proxy fetched: of nobody else's evidence is said that it is verified.
pub const PROXY: &str = "proxy";

/// Whose the proxy's own artifacts are: no agent can name them with a call of its own.
#[must_use]
pub fn proxys_own() -> crate::call::PrincipalKey {
    crate::call::PrincipalKey("\0".to_owned(), PROXY.to_owned(), None)
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
    /// How long the window is: two budgets of one scope may renew at different times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Duration>,
}

/// How much of one ledger is used and set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balance {
    /// Settled.
    pub used: i64,
    /// Set aside for open calls.
    pub reserved: i64,
    /// What people have added to its limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub extra: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(amount: &i64) -> bool {
    *amount == 0
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
    pub principal: Arc<Principal>,
    /// In which work.
    pub context: Arc<CallContext>,
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
    pub arguments: Arc<Value>,
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
    /// What was known when policy was asked first; absent in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Arc<Facts>>,
    /// What policy would have said where it does not rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub would: Vec<Would>,
    /// What was found out of its target, where the operation says how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Box<Preview>>,
    /// The call that it takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<Box<UndoOf>>,
    /// The grant by which it passed without people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// How long it waits between the last vote and the send, so that it can still be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// Before this it may not be begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// What reviewers changed of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited: Option<Box<Edited>>,
    /// Terms of the hold; `None` for a call that ran by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Terms>,
    /// The proxy sends it after the last vote (`true`), or the client's return does.
    #[serde(default)]
    pub release_by_proxy: bool,
    /// A title for people, from the operation's template and checked arguments.
    pub title: String,
    /// What people did about it beside deciding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handling: Option<Box<Handling>>,
    /// Until then calls like it are refused: so said who rejected it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deny_alike: Option<Timestamp>,
    /// Counted votes on the current digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// Evidence attached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// Evidence that could not be fetched, or whose check failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfetched: Vec<Unfetched>,
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
    /// The kill switch has stopped it: its clocks stand still since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<Timestamp>,
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
    /// How long after a begin its request may still be on the wire.
    #[serde(default = "quiet_default")]
    pub quiet_for: Duration,
    /// Quiescence: before this nobody can know that the last attempt has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_after: Option<Timestamp>,
    /// Declared idempotent when it was begun: it may be sent again. Absent: never by machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resend: Option<Resend>,
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
    pub opinion: Option<Box<Opinion>>,
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
    /// Every other name of that person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// `succeeded` or `not_executed`.
    pub outcome: State,
    /// Why this person thinks so.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// What declares a call idempotent, and how often it may be sent in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resend {
    /// What says so.
    pub by: ResendBy,
    /// Attempts in all.
    pub attempts: u32,
}

/// What declares a call idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResendBy {
    /// The upstream honours `Idempotency-Key`, which is the same on each attempt.
    Header,
    /// The operation may be repeated without harm.
    Repeatable,
}

/// What was found out of the target of a call before people, or nobody, decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// How much is known of what the call will change.
    pub certainty: Certainty,
    /// What was read, below the upstream's base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// When it was read.
    pub read_at: Timestamp,
    /// What stands for the state that was read; at the release it must be the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<String>,
    /// Why nothing, or not all, is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// JSON Pointers into the states that no page may show.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<String>,
    /// The states before and after ([`crate::call::States`]), sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub states: Option<PayloadRef>,
}

/// Which call another one takes back, and who wants that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoOf {
    /// The call that was executed.
    pub call: CallId,
    /// The person (after linking accounts); never one of its approvers.
    pub person: String,
    /// Identities that are this person.
    pub aliases: Vec<String>,
    /// Why, in writing.
    pub reason: String,
}

/// What reviewers made of a held call, and what its agent had asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edited {
    /// The request as its agent sent it.
    pub request: StoredRequest,
    /// Its argument object with redacted members replaced.
    pub arguments: Arc<Value>,
    /// Its digest.
    pub digest: Digest,
    /// What differs now from what the agent asked for.
    pub changes: Vec<Change>,
    /// Each edit, oldest first.
    pub edits: Vec<Edit>,
}

/// One edit of a held call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// The person (after linking accounts).
    pub person: String,
    /// Identities that are this person: their vote is never the second one of two.
    pub aliases: Vec<String>,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub note: String,
    /// What it changed of the arguments as they were then.
    pub changes: Vec<Change>,
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
        let clock = self.clock(now);
        let over = |end: Option<Timestamp>| end.is_some_and(|end| clock >= end);
        match self.state {
            State::Held if over(self.expires) => State::Expired,
            State::Approved if over(self.window_closes) => State::Expired,
            state => state,
        }
    }

    /// What its own clocks show at `now`: they stand still while the kill switch stops it.
    #[must_use]
    pub fn clock(&self, now: Timestamp) -> Timestamp {
        self.halted.map_or(now, |at| at.min(now))
    }

    /// When its state ends by itself, as it looks at `now`: of what stands still that moves on with the time.
    #[must_use]
    pub fn ends(&self, now: Timestamp) -> Option<Timestamp> {
        let end = match self.state_at(now) {
            State::Held => self.expires,
            State::Approved => self.window_closes,
            _ => None,
        };
        end.map(|end| end.plus(now.since(self.clock(now))))
    }

    /// Whether an approved call may be begun: nothing stops it, and its time has come.
    #[must_use]
    pub fn may_begin(&self, now: Timestamp) -> bool {
        self.halted.is_none() && self.not_before.is_none_or(|at| now >= at)
    }

    /// Whether evidence of this kind is there that counts: where the proxy looked for it itself and did not find it as it
    /// must be, the agent's own word is not enough; a reviewer's is.
    #[must_use]
    pub fn has_evidence(&self, kind: &str) -> bool {
        let sought = self.unfetched.iter().any(|u| u.kind == kind);
        self.evidence.iter().any(|e| e.kind == kind && !(sought && e.by.starts_with("agent ")))
    }

    /// Whether this is the digest of the call that people vote on, with the state of its target that they were shown.
    #[must_use]
    pub fn stands_for(&self, call: Digest) -> bool {
        self.digest == seen_digest(call, self.preview.as_ref().and_then(|p| p.fence.as_deref()))
    }

    /// Payloads that it points at, in whatever frame they are.
    pub fn payloads_mut(&mut self) -> impl Iterator<Item = &mut PayloadRef> {
        let answer = self.answer.as_mut().and_then(|a| a.body.as_mut());
        let states = self.preview.as_mut().and_then(|p| p.states.as_mut());
        let request = [self.request.body.as_mut(), self.request.arguments.as_mut(), answer, states];
        request.into_iter().flatten()
    }

    /// When the last attempt is certain to be off the wire. Records of older versions have only its begin.
    #[must_use]
    pub fn quiet_at(&self) -> Option<Timestamp> {
        self.quiet_after.or_else(|| self.begun.map(|begun| begun.plus(self.quiet_for)))
    }

    /// Whether the last attempt is certain to be off the wire at `now`.
    #[must_use]
    pub fn is_quiet(&self, now: Timestamp) -> bool {
        self.quiet_at().is_some_and(|at| now >= at)
    }
}

fn quiet_default() -> Duration {
    QUIET
}
