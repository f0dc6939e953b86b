//! `holdpoint grants`: what lets calls pass without people, over the admin API.

use std::io::Write;

use anyhow::{Context, bail};
use http::Method;
use serde_json::{Value, json};

use crate::call::{encode_part, visible};

use super::Exit;
use super::client::Client;
use super::hold_text as text;
use super::holds::{Common, Console, hold, ok, plain, printed};

/// What to do with grants.
#[derive(Debug, clap::Subcommand)]
pub enum Grants {
    /// List live grants, newest first.
    #[command(alias = "list")]
    Ls {
        /// Those of the last 35 days that have ended, too.
        #[arg(long)]
        all: bool,
        /// Only this operation.
        #[arg(long)]
        op: Option<String>,
        /// Only this agent.
        #[arg(long)]
        agent: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Show one grant in full.
    Show {
        /// Its id.
        grant: String,
        #[command(flatten)]
        common: Common,
    },
    /// Let calls like this one pass by themselves: approves it where it is still held. Every argument stays as it is in this
    /// call unless you loosen it.
    Give(Give),
    /// Take one back: calls like those are held again.
    Revoke {
        /// Its id.
        grant: String,
        #[command(flatten)]
        common: Common,
    },
}

/// Which calls, for how long.
#[derive(Debug, clap::Args)]
pub struct Give {
    /// The hold: its id, a unique end of it, or its code.
    hold: String,
    /// This argument may be anything, such as `orderId` or `/address/city`.
    #[arg(long, value_name = "ARG")]
    any: Vec<String>,
    /// This argument may be an integer from 0 to that, such as `amountMinor=9000`.
    #[arg(long, value_name = "ARG=N")]
    max: Vec<String>,
    /// What this argument may add up to over all uses.
    #[arg(long, value_name = "ARG=N")]
    sum: Vec<String>,
    /// For so many minutes; else as long as policy allows.
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
    /// So often; else as often as policy allows.
    #[arg(long, value_name = "N")]
    uses: Option<u32>,
    /// Why, in writing; kept in the record.
    #[arg(long, value_name = "TEXT")]
    justify: Option<String>,
    /// The digest that you have read; needed without a terminal.
    #[arg(long)]
    digest: Option<String>,
    #[command(flatten)]
    common: Common,
}

fn pointer(name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("/{}", name.replace('~', "~0")) }
}

fn bound(pair: &str) -> anyhow::Result<(String, i64)> {
    let (name, number) = pair.split_once('=').with_context(|| format!("`{pair}` is not ARG=NUMBER"))?;
    Ok((pointer(name), number.parse().with_context(|| format!("`{number}` is no integer"))?))
}

impl Give {
    /// As the API takes it.
    fn wanted(&self) -> anyhow::Result<Value> {
        let mut pins: Vec<Value> = self.any.iter().map(|name| json!({"path": pointer(name), "any": true})).collect();
        for pair in &self.max {
            let (path, most) = bound(pair)?;
            pins.push(json!({"path": path, "max": most}));
        }
        let sums = self.sum.iter().map(|pair| bound(pair).map(|(path, value)| json!({"path": path, "value": value})));
        let sums: Vec<Value> = sums.collect::<anyhow::Result<_>>()?;
        let mut wanted = json!({"pins": pins, "max_sums": sums, "minutes": self.minutes, "max_uses": self.uses});
        if let Some(members) = wanted.as_object_mut() {
            members.retain(|_, value| !value.is_null());
        }
        Ok(wanted)
    }
}

pub(super) async fn run(verb: Grants, mut console: Console<'_>, out: &mut impl Write) -> anyhow::Result<Exit> {
    match verb {
        Grants::Ls { all, op, agent, common } => {
            let given = [("state", (!all).then(|| "live".to_owned())), ("op", op), ("agent", agent)];
            let given =
                given.iter().filter_map(|(name, value)| Some(format!("&{name}={}", encode_part(value.as_ref()?))));
            let path = format!("/v1/grants?limit=200{}", given.collect::<String>());
            let client = Client::new(&common.at)?;
            match ok(client.send(Method::GET, &path, None).await?, &common, &mut console, out)? {
                Err(exit) => Ok(exit),
                Ok(list) if common.json => printed(&list, out),
                Ok(list) => lines(&list, out),
            }
        }
        Grants::Show { grant, common } => one(Method::GET, &grant, &common, &mut console, out).await,
        Grants::Revoke { grant, common } => one(Method::DELETE, &grant, &common, &mut console, out).await,
        Grants::Give(said) => give(&said, &mut console, out).await,
    }
}

async fn one(
    method: Method,
    grant: &str,
    common: &Common,
    console: &mut Console<'_>,
    out: &mut impl Write,
) -> anyhow::Result<Exit> {
    let path = format!("/v1/grants/{}", encode_part(grant));
    match ok(Client::new(&common.at)?.send(method, &path, None).await?, common, console, out)? {
        Err(exit) => Ok(exit),
        Ok(grant) if common.json => printed(&grant, out),
        Ok(grant) => whole(&grant, out),
    }
}

/// The whole call is shown, and its code asked for, unless its digest was given.
async fn give(said: &Give, console: &mut Console<'_>, out: &mut impl Write) -> anyhow::Result<Exit> {
    let wanted = said.wanted()?;
    if said.digest.is_none() && !console.is_terminal {
        let id = visible(&said.hold);
        bail!("nobody can be asked here: read it with\n  holdpoint holds show {id}\nthen add --digest sha256:…");
    }
    let client = Client::new(&said.common.at)?;
    let hold = match ok(hold(&client, &said.hold).await?, &said.common, console, out)? {
        Ok(hold) => hold,
        Err(exit) => return Ok(exit),
    };
    if said.digest.is_none() {
        text::whole(&hold, console.err)?;
        let code = text::of(&hold, "/code");
        let typed = console.ask(&format!("Type its code ({code}) to let calls like it pass:"))?;
        if plain(&typed) != plain(&code) || code.is_empty() {
            bail!("this is not its code: nothing was granted");
        }
    }
    let digest = said.digest.clone().unwrap_or_else(|| text::of(&hold, "/digest"));
    let id = hold.get("id").and_then(Value::as_str).context("the server names no hold")?;
    let mut body = json!({"digest": digest});
    let held = text::of(&hold, "/state") == "held";
    let members = body.as_object_mut().context("a body")?;
    members.extend(said.justify.iter().map(|why| ("justification".to_owned(), why.as_str().into())));
    let path = if held {
        members.insert("grant".into(), wanted);
        format!("/v1/holds/{}/approve", encode_part(id))
    } else {
        members.insert("hold".into(), id.into());
        members.extend(wanted.as_object().cloned().unwrap_or_default());
        "/v1/grants".to_owned()
    };
    match ok(client.send(Method::POST, &path, Some(&body)).await?, &said.common, console, out)? {
        Err(exit) => Ok(exit),
        Ok(done) if said.common.json => printed(&done, out),
        Ok(done) => whole(done.get("grant").unwrap_or(&done), out),
    }
}

fn uses(grant: &Value) -> String {
    let most = text::of(grant, "/max_uses");
    let used = text::of(grant, "/used");
    if most.is_empty() { used } else { format!("{used} of {most}") }
}

/// `live until …`, or how it ended.
fn state(grant: &Value) -> String {
    match text::of(grant, "/ended/why").replace('_', " ") {
        live if live.is_empty() => format!("live until {}", text::of(grant, "/expires")),
        why => match text::of(grant, "/ended/by") {
            nobody if nobody.is_empty() => format!("ended: {why}"),
            by => format!("ended: {why} by {by}"),
        },
    }
}

fn lines(list: &Value, out: &mut impl Write) -> anyhow::Result<Exit> {
    let all: Vec<&Value> = list.pointer("/items").and_then(Value::as_array).into_iter().flatten().collect();
    if all.is_empty() {
        writeln!(out, "no such grant that you may see")?;
    }
    for grant in all {
        let part = |pointer: &str| text::of(grant, pointer);
        writeln!(out, "{}  {}  {}", part("/id"), part("/op"), part("/agent"))?;
        writeln!(out, "    {}; used {}; given by {}", state(grant), uses(grant), part("/by"))?;
    }
    Ok(Exit::Ok)
}

fn whole(grant: &Value, out: &mut impl Write) -> anyhow::Result<Exit> {
    let part = |pointer: &str| text::of(grant, pointer);
    writeln!(out, "{}  {}", part("/id"), state(grant))?;
    let whom = part("/on_behalf_of");
    let whom = if whom.is_empty() { String::new() } else { format!(" for {whom}") };
    writeln!(out, "  calls      {} by {}{whom} in {}", part("/op"), part("/agent"), part("/workflow"))?;
    for pin in grant.pointer("/pins").and_then(Value::as_array).into_iter().flatten() {
        let rule = match (pin.get("max"), pin.get("any")) {
            (Some(most), _) => format!("from 0 to {most}"),
            (None, Some(_)) => "anything".to_owned(),
            (None, None) => format!("only {}", visible(&pin.get("equals").map(Value::to_string).unwrap_or_default())),
        };
        writeln!(out, "             {}  {rule}", text::of(pin, "/path"))?;
    }
    writeln!(out, "  used       {}", uses(grant))?;
    for sum in grant.pointer("/max_sums").and_then(Value::as_array).into_iter().flatten() {
        let (path, taken, most) = (text::of(sum, "/path"), text::of(sum, "/sum"), text::of(sum, "/value"));
        writeln!(out, "  adds up    {path}  {taken} of {most}")?;
    }
    writeln!(out, "  given by   {} at {} from {}", part("/by"), part("/created"), part("/from_hold"))?;
    if !part("/justification").is_empty() {
        writeln!(out, "  because    {}", part("/justification"))?;
    }
    Ok(Exit::Ok)
}
