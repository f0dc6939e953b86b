//! Receivers of notifications from a terminal: what they were told, and telling them again.

use std::io::{self, Write};

use http::Method;
use serde_json::{Value, json};

use crate::call::encode_part;

use super::Exit;
use super::client::Client;
use super::hold_text::of;
use super::holds::{Common, Console, ok, printed};

/// What to do about them.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Webhooks {
    /// Each receiver: how far behind it is, what waits and why, what was given up.
    Ls {
        #[command(flatten)]
        common: Common,
    },
    /// Tell a receiver again: the events named, or all that were given up.
    Replay {
        /// Its name, as `ls` shows it.
        receiver: String,
        /// Events (`evt_…`), whether they were given up or arrived.
        events: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
}

pub(super) async fn run(said: Webhooks, out: &mut impl Write) -> anyhow::Result<Exit> {
    let (mut input, mut err) = (io::BufReader::new(io::stdin()), io::stderr());
    let mut console = Console::new(&mut input, &mut err);
    match said {
        Webhooks::Ls { common } => {
            let client = Client::new(&common.at)?;
            let answer = client.send(Method::GET, "/v1/webhooks", None).await?;
            match ok(answer, &common, &mut console, out)? {
                Ok(list) if common.json => printed(&list, out),
                Ok(list) => table(&list, out),
                Err(exit) => Ok(exit),
            }
        }
        Webhooks::Replay { receiver, events, common } => {
            let client = Client::new(&common.at)?;
            let path = format!("/v1/webhooks/{}/replay", encode_part(&receiver));
            let body = if events.is_empty() { json!({}) } else { json!({"ids": events}) };
            match ok(client.send(Method::POST, &path, Some(&body)).await?, &common, &mut console, out)? {
                Ok(done) if common.json => printed(&done, out),
                Ok(done) => {
                    writeln!(out, "{} told again", done.pointer("/replayed").unwrap_or(&Value::Null))?;
                    Ok(Exit::Ok)
                }
                Err(exit) => Ok(exit),
            }
        }
    }
}

fn table(list: &Value, out: &mut impl Write) -> anyhow::Result<Exit> {
    let items = |value: &Value, at: &str| value.pointer(at).and_then(Value::as_array).cloned().unwrap_or_default();
    let receivers = items(list, "/items");
    if receivers.is_empty() {
        writeln!(out, "no receivers: give `notify` in the configuration")?;
    }
    for receiver in receivers {
        let behind = receiver.pointer("/records_behind").cloned().unwrap_or_default();
        writeln!(out, "{}  {}  {behind} records behind", of(&receiver, "/name"), of(&receiver, "/to"))?;
        for (state, at) in [("waiting", "due"), ("dead", "since")] {
            for event in items(&receiver, &format!("/{state}")) {
                let (id, kind) = (of(&event, "/id"), of(&event, "/type"));
                let (when, why) = (of(&event, &format!("/{at}")), of(&event, "/why"));
                let tries = event.pointer("/attempts").cloned().unwrap_or_default();
                writeln!(out, "  {state:8} {id}  {kind}  {tries} attempts, {at} {when}  {why}")?;
            }
        }
    }
    Ok(Exit::Ok)
}
