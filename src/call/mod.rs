//! The vocabulary of a call. Pure data: no I/O, no async, nothing else of the crate.
//!
//! Every other module speaks in these words; `docs` for each word is on its type.

pub mod confusable;
mod digest;
mod encode;
mod event;
mod facts;
mod fault;
mod grant;
mod id;
mod incoming;
pub mod json;
mod ladder;
pub mod listen;
pub mod method;
mod money;
pub mod mrtr;
mod operation;
mod outcome;
mod own_read;
mod pause;
mod preview;
mod principal;
mod reason;
mod redact;
mod refusal;
mod sample;
pub mod sentinel;
pub mod splice;
pub mod sse;
mod terms;
mod time;
mod title;
mod undo;

pub use digest::{Digest, canonical};
pub use encode::{encode_part, encode_path};
pub use event::EVENTS;
pub use facts::{Asked, Beside, Facts, History, Judgement, Meter, Meters, Trust, Would};
pub use fault::Fault;
pub use grant::{GrantCaps, GrantOver, Leans, Loose, TOP_GRANT, overlap, rest_of, spent_on, take_out};
pub use id::{ArtifactId, CallId, GrantId, HoldId, IdError, ReceiptId, short_code};
pub use incoming::{
    Call, CallContext, Checked, Credentials, Draft, Hints, Incoming, JsonRpcId, MAX_EVIDENCE, McpCall, Message,
    OutRequest, Preference, Protocol, RestCall, Target, call_digest, is_key,
};
pub use ladder::{After, Ladder, Rung};
pub use money::{decimals, money_text};
pub use operation::{
    Cost, Effects, HeldAs, IDLE, IdempotencyRule, Limits, Operation, Otherwise, Part, ProbeRule, QUIET, ReadRule,
    ReconcileRule, Release, Tool, ToolKind,
};
pub use outcome::{Broken, Ended, HoldTimes, Outcome, Reply, ReplyBody};
pub use own_read::{EvidenceRule, OwnRead, tool_result};
pub use pause::{NoScope, PauseScope, Stopped};
pub use preview::{
    Certainty, Change, ChangeOp, Changes, DiffRule, FenceRule, PreviewRead, PreviewRule, States, changes, seen_digest,
    strong_etag,
};
pub use principal::{AuthMethod, Principal, PrincipalKey};
pub use reason::REASONS;
pub use redact::{REDACTED, is_redacted, redacted, scrubbed};
pub use refusal::{Code, Executed, PolicyNote, Refusal, Violation};
pub use sample::{SampleRate, Verdict};
pub use terms::{Needs, Requirement, Terms, Tier, Why};
pub use time::{Timestamp, duration_text};
pub use title::{is_hidden, title, visible};
pub use undo::{UNDO_WITHIN, UndoHow, UndoRule, UndoValue, Undone, undo_arguments};
