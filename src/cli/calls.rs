//! `holdpoint calls`: look at calls, take one back, settle one whose outcome is unknown.

use std::io::Write;

use http::Method;
use serde_json::json;

use crate::call::{encode_part, visible};

use super::Exit;
use super::client::Client;
use super::hold_text as text;
use super::holds::{Common, Console, add, list, ok, printed};

/// What to do with calls, held or not.
#[derive(Debug, clap::Subcommand)]
pub enum Calls {
    /// List calls, newest first.
    #[command(alias = "list")]
    Ls {
        /// Only these states, such as `unknown`; `all` for every one.
        #[arg(long, default_value = "all")]
        state: String,
        /// Only this tool.
        #[arg(long)]
        tool: Option<String>,
        /// Only this operation.
        #[arg(long)]
        op: Option<String>,
        /// Only this agent.
        #[arg(long)]
        agent: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Show one call in full.
    Show {
        /// Its id.
        call: String,
        #[command(flatten)]
        common: Common,
    },
    /// Take an executed call back: by a call of its own, which policy may hold.
    Undo {
        /// Its id.
        call: String,
        /// Why; kept in the record.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// `wrong_target`, `wrong_amount`, `duplicate`, `not_needed`, `unsafe`, `suspected_injection`, `wrong_time` …
        #[arg(long, value_name = "CODE")]
        code: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Say what became of a call whose outcome is unknown; a second person must say the same.
    Reconcile {
        /// Its id.
        call: String,
        /// What became of it.
        #[arg(long, value_enum)]
        outcome: Settled,
        /// How you know; kept in the record.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        common: Common,
    },
}

/// What became of an unknown call.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Settled {
    /// It was executed.
    Succeeded,
    /// It was not.
    NotExecuted,
}

pub(super) async fn run(verb: Calls, mut console: Console<'_>, out: &mut impl Write) -> anyhow::Result<Exit> {
    match verb {
        Calls::Ls { state, tool, op, agent, common } => {
            let state = Some(state).filter(|s| s != "all");
            let filters = [("state", state), ("tool", tool), ("op", op), ("agent", agent)];
            list("/v1/calls", &filters, &common, &mut console, out).await
        }
        Calls::Show { call, common } => {
            let client = Client::new(&common.at)?;
            let path = format!("/v1/calls/{}", encode_part(&call));
            match ok(client.send(Method::GET, &path, None).await?, &common, &mut console, out)? {
                Err(exit) => Ok(exit),
                Ok(call) if common.json => printed(&call, out),
                Ok(call) => {
                    text::whole(&call, out)?;
                    Ok(Exit::Ok)
                }
            }
        }
        Calls::Undo { call, reason, code, common } => {
            let client = Client::new(&common.at)?;
            let path = format!("/v1/calls/{}/undo", encode_part(&call));
            let mut body = json!({"justification": reason});
            add(&mut body, "reason_code", code);
            let done = match ok(client.send(Method::POST, &path, Some(&body)).await?, &common, &mut console, out)? {
                Ok(done) => done,
                Err(exit) => return Ok(exit),
            };
            if common.json {
                return printed(&done, out);
            }
            let (made, state) = (text::of(&done, "/call"), text::of(&done, "/state"));
            let wait = if state == "held" { "; people must approve it" } else { "" };
            writeln!(out, "{}: taken back by {made}, which is {state}{wait}", visible(&call))?;
            Ok(Exit::Ok)
        }
        Calls::Reconcile { call, outcome, reason, common } => {
            let client = Client::new(&common.at)?;
            let outcome = match outcome {
                Settled::Succeeded => "succeeded",
                Settled::NotExecuted => "not_executed",
            };
            let path = format!("/v1/calls/{}/reconcile", encode_part(&call));
            let body = json!({"outcome": outcome, "reason": reason});
            let done = match ok(client.send(Method::POST, &path, Some(&body)).await?, &common, &mut console, out)? {
                Ok(done) => done,
                Err(exit) => return Ok(exit),
            };
            if common.json {
                return printed(&done, out);
            }
            let state = text::of(&done, "/state");
            let more = if state == "unknown" { "; a second person must say the same" } else { "" };
            writeln!(out, "{}: {state}{more}", visible(&call))?;
            Ok(Exit::Ok)
        }
    }
}
