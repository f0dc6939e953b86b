//! What a person does about a held call beside deciding, from a terminal.

use std::io::Write;

use anyhow::{Context, bail};
use http::Method;
use serde_json::{Value, json};

use crate::call::{encode_part, visible};

use super::Exit;
use super::client::Client;
use super::hold_text as text;
use super::holds::{Common, Console, hold, ok, printed};

/// What to do about a hold beside deciding.
#[derive(Debug, clap::Subcommand)]
pub enum Handle {
    /// Take one in hand: for a while others leave it to you.
    Claim {
        /// Its id, a unique end of it, or its code.
        id: String,
        /// For so long, 60 at most.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Even when another person has it in hand.
        #[arg(long)]
        take_over: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Let one go that you have claimed.
    Release {
        /// Its id, a unique end of it, or its code.
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Say something to the other reviewers; the agent does not read it.
    Comment {
        /// Its id, a unique end of it, or its code.
        id: String,
        /// What you say.
        text: String,
        #[command(flatten)]
        common: Common,
    },
    /// Ask the agent for evidence.
    Ask {
        /// Its id, a unique end of it, or its code.
        id: String,
        /// A kind of evidence, such as `ticket`; may stand more than once.
        #[arg(long, required = true)]
        kind: Vec<String>,
        /// Words to the agent.
        #[arg(long, value_name = "TEXT")]
        message: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Attach evidence yourself.
    Evidence {
        /// Its id, a unique end of it, or its code.
        id: String,
        /// Its kind, such as `ticket`.
        #[arg(long)]
        kind: String,
        /// Its title; the kind by default.
        #[arg(long)]
        title: Option<String>,
        /// The text, or `@FILE`, or where it is.
        #[arg(long, value_name = "TEXT")]
        text: String,
        #[command(flatten)]
        common: Common,
    },
    /// Bring one before others.
    Escalate {
        /// Its id, a unique end of it, or its code.
        id: String,
        /// Before whom; the next of `reviews.escalate` by default.
        #[arg(long)]
        to: Option<String>,
        /// Why.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        common: Common,
    },
}

/// One request about one hold.
struct Request {
    id: String,
    method: Method,
    path: &'static str,
    body: Option<Value>,
    common: Common,
}

impl Handle {
    fn request(self) -> anyhow::Result<Request> {
        let post = |id, path, body, common| Request { id, method: Method::POST, path, body: Some(body), common };
        Ok(match self {
            Self::Claim { id, minutes, take_over, common } => {
                post(id, "claim", json!({"minutes": minutes, "take_over": take_over}), common)
            }
            Self::Release { id, common } => Request { id, method: Method::DELETE, path: "claim", body: None, common },
            Self::Comment { id, text, common } => post(id, "comments", json!({"text": text}), common),
            Self::Ask { id, kind, message, common } => {
                let body = json!({"kinds": kind, "message_to_agent": message});
                post(id, "evidence-requests", body, common)
            }
            Self::Evidence { id, kind, title, text, common } => {
                let body = json!({"kind": kind, "title": title, "text": content(&text)?});
                post(id, "evidence", body, common)
            }
            Self::Escalate { id, to, reason, common } => {
                post(id, "escalate", json!({"to": to, "reason": reason}), common)
            }
        })
    }
}

fn content(text: &str) -> anyhow::Result<String> {
    let Some(path) = text.strip_prefix('@') else { return Ok(text.to_owned()) };
    let read = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    if read.is_empty() { bail!("{path} is empty") } else { Ok(read) }
}

pub(super) async fn run(said: Handle, console: &mut Console<'_>, out: &mut impl Write) -> anyhow::Result<Exit> {
    let Request { id, method, path, body, common } = said.request()?;
    let client = Client::new(&common.at)?;
    let hold = match ok(hold(&client, &id).await?, &common, console, out)? {
        Ok(hold) => hold,
        Err(exit) => return Ok(exit),
    };
    let id = hold.get("id").and_then(Value::as_str).context("the server names no hold")?;
    let path = format!("/v1/holds/{}/{path}", encode_part(id));
    let done = match ok(client.send(method, &path, body.as_ref()).await?, &common, console, out)? {
        Ok(done) => done,
        Err(exit) => return Ok(exit),
    };
    if common.json {
        return printed(&done, out);
    }
    writeln!(out, "{}: {}", visible(id), text::of(&done, "/state"))?;
    text::talk(&done, out)?;
    Ok(Exit::Ok)
}
