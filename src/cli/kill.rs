//! `holdpoint kill` and `holdpoint resume`: the kill switch, over the admin API.

use std::io::{self, Write};

use anyhow::bail;
use http::Method;
use serde_json::{Value, json};

use crate::call::PauseScope;

use super::Exit;
use super::client::Client;
use super::hold_text::of;
use super::holds::{Common, Console, ok, printed};

/// What to stop.
#[derive(Debug, clap::Args)]
pub(super) struct Kill {
    /// `all`, `agent:NAME`, `workflow:NAME` or `tool:NAME`; without it: what is stopped now.
    #[arg(requires = "reason")]
    scope: Option<PauseScope>,
    /// Why, in writing: for those who meet it at night.
    #[arg(long, value_name = "TEXT", requires = "scope")]
    reason: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// What goes on.
#[derive(Debug, clap::Args)]
pub(super) struct Resume {
    /// As `holdpoint kill` shows it.
    scope: PauseScope,
    /// Why, in writing.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

/// A count, in words.
fn calls(n: Option<&Value>) -> String {
    match n.and_then(Value::as_u64) {
        Some(1) => "1 call".to_owned(),
        n => format!("{} calls", n.unwrap_or_default()),
    }
}

fn line(pause: &Value) -> String {
    let [scope, since, by, reason] = ["/scope", "/since", "/by", "/reason"].map(|at| of(pause, at));
    format!("{scope}  since {since}  by {by}: {reason}")
}

async fn send(
    (method, path): (Method, &str),
    body: Option<Value>,
    common: &Common,
    out: &mut impl Write,
) -> anyhow::Result<Result<Value, Exit>> {
    let (mut input, mut err) = (io::BufReader::new(io::stdin()), io::stderr());
    let mut console = Console::new(&mut input, &mut err);
    let answer = Client::new(&common.at)?.send(method, path, body.as_ref()).await?;
    ok(answer, common, &mut console, out)
}

pub(super) async fn kill(said: Kill, out: &mut impl Write) -> anyhow::Result<Exit> {
    let Some(scope) = said.scope else { return list(&said.common, out).await };
    let Some(reason) = said.reason else { bail!("--reason is needed") };
    let body = json!({"scope": scope, "reason": reason});
    match send((Method::POST, "/v1/kill"), Some(body), &said.common, out).await? {
        Ok(done) if said.common.json => printed(&done, out),
        Ok(done) => {
            let word = if done.pointer("/changed") == Some(&json!(true)) { "stopped" } else { "was stopped before" };
            writeln!(out, "{word}: {}", line(&done))?;
            writeln!(out, "{} wait and stand still", calls(done.pointer("/waiting")))?;
            if done.pointer("/in_flight").and_then(Value::as_u64) != Some(0) {
                writeln!(out, "{} were sent before and cannot be stopped", calls(done.pointer("/in_flight")))?;
            }
            if done.pointer("/known") == Some(&json!(false)) {
                writeln!(out, "warning: nobody here has heard of this agent; check its name")?;
            }
            writeln!(out, "go on with: holdpoint resume {scope} --reason …")?;
            Ok(Exit::Ok)
        }
        Err(exit) => Ok(exit),
    }
}

async fn list(common: &Common, out: &mut impl Write) -> anyhow::Result<Exit> {
    match send((Method::GET, "/v1/kill"), None, common, out).await? {
        Ok(list) if common.json => printed(&list, out),
        Ok(list) => {
            let items = list.pointer("/items").and_then(Value::as_array).cloned().unwrap_or_default();
            if items.is_empty() {
                writeln!(out, "nothing is stopped")?;
            }
            items.iter().try_for_each(|pause| writeln!(out, "{}", line(pause)))?;
            Ok(Exit::Ok)
        }
        Err(exit) => Ok(exit),
    }
}

pub(super) async fn resume(said: Resume, out: &mut impl Write) -> anyhow::Result<Exit> {
    let body = json!({"scope": said.scope, "reason": said.reason});
    match send((Method::POST, "/v1/resume"), Some(body), &said.common, out).await? {
        Ok(done) if said.common.json => printed(&done, out),
        Ok(done) => {
            writeln!(
                out,
                "{} goes on; {} that waited have their clocks back",
                said.scope,
                calls(done.pointer("/waiting"))
            )?;
            Ok(Exit::Ok)
        }
        Err(exit) => Ok(exit),
    }
}
