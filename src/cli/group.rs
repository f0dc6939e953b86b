//! Alike holds from a terminal: listed, or decided together once the odd ones were read.

use std::io::Write;

use anyhow::bail;
use http::Method;
use serde_json::{Value, json};

use crate::call::{encode_part, visible};
use crate::clock::{Clock, SystemClock};

use super::Exit;
use super::client::Client;
use super::hold_text as text;
use super::holds::{Common, Console, hold, ok, printed};

/// What to do with a group.
#[derive(Debug, clap::Args)]
pub struct Group {
    /// Its id, as `alike.cluster` of a hold shows it.
    cluster: String,
    /// Approve all of them: shows each odd one in full, then asks how many you approve.
    #[arg(long, conflicts_with = "reject")]
    approve: bool,
    /// Reject all of them, for this reason.
    #[arg(long, value_name = "CODE")]
    reject: Option<String>,
    /// Why, in writing; kept in each record.
    #[arg(long, value_name = "TEXT")]
    justify: Option<String>,
    /// Words to the agent, with `--reject`.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    common: Common,
}

pub(super) async fn run(said: Group, console: &mut Console<'_>, out: &mut impl Write) -> anyhow::Result<Exit> {
    let client = Client::new(&said.common.at)?;
    let path = format!("/v1/clusters/{}", encode_part(&said.cluster));
    let group = match ok(client.send(Method::GET, &path, None).await?, &said.common, console, out)? {
        Ok(group) => group,
        Err(exit) => return Ok(exit),
    };
    let items: Vec<Value> = group.pointer("/items").and_then(Value::as_array).cloned().unwrap_or_default();
    let body = match (said.approve, &said.reject) {
        (true, _) => {
            read_odd(&client, &items, &said.common, console, out).await?;
            json!({"action": "approve", "justification": said.justify})
        }
        (false, Some(code)) => json!({"action": "reject", "reason_code": code, "message_to_agent": said.message}),
        (false, None) if said.common.json => return printed(&group, out),
        (false, None) => {
            text::table(&items, SystemClock.now(), false, out)?;
            return Ok(Exit::Ok);
        }
    };
    decide(&client, &said, body, &items, console, out).await
}

/// Each odd one in full, and a word that they were read.
async fn read_odd(
    client: &Client,
    items: &[Value],
    common: &Common,
    console: &mut Console<'_>,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if !console.is_terminal {
        bail!(
            "nobody can be asked here: open the odd ones with `holdpoint holds show`, then send the ids and digests to \
             POST /v1/holds/batch"
        );
    }
    let odd = |item: &&Value| item.pointer("/odd").and_then(Value::as_array).is_some_and(|odd| !odd.is_empty());
    for item in items.iter().filter(odd) {
        let id = item.pointer("/id").and_then(Value::as_str).unwrap_or_default();
        let Ok(whole) = ok(hold(client, id).await?, common, console, out)? else {
            bail!("{} cannot be read: nothing was approved", visible(id));
        };
        text::whole(&whole, console.err)?;
    }
    let typed = console.ask(&format!("Type how many you approve ({}):", items.len()))?;
    if typed != items.len().to_string() {
        bail!("this is not how many they are: nothing was approved");
    }
    Ok(())
}

async fn decide(
    client: &Client,
    said: &Group,
    mut body: Value,
    items: &[Value],
    console: &mut Console<'_>,
    out: &mut impl Write,
) -> anyhow::Result<Exit> {
    let named: Vec<Value> =
        items.iter().map(|i| json!({"id": i.pointer("/id"), "digest": i.pointer("/digest")})).collect();
    if let Some(members) = body.as_object_mut() {
        members.retain(|_, value| !value.is_null());
        members.insert("cluster".into(), said.cluster.as_str().into());
        members.insert("items".into(), named.into());
    }
    let done = match ok(client.send(Method::POST, "/v1/holds/batch", Some(&body)).await?, &said.common, console, out)? {
        Ok(done) => done,
        Err(exit) => return Ok(exit),
    };
    let results = done.pointer("/items").and_then(Value::as_array).cloned().unwrap_or_default();
    let all = results.iter().all(|item| item.pointer("/status") == Some(&200.into()));
    if said.common.json {
        printed(&done, out)?;
    } else {
        for item in &results {
            let (state, code) = (text::of(item, "/state"), text::of(item, "/code"));
            let what = if code.is_empty() { state } else { format!("{code}: {}", text::of(item, "/detail")) };
            writeln!(out, "{}: {what}", text::of(item, "/id"))?;
        }
    }
    Ok(if all { Exit::Ok } else { Exit::Rejected })
}
