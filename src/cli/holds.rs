//! `holdpoint holds`: look at held calls and decide them, over the admin API.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, bail};
use http::Method;
use serde_json::{Value, json};

use crate::call::{encode_part, visible};
use crate::clock::{Clock, SystemClock};

use super::Exit;
use super::client::{Answer, At, Client};
use super::{calls, edit, grants, group, handling, hold_text as text, watch};

/// Lines that one request asks for, and how many requests one list makes.
const PAGE: usize = 200;
const PAGES: usize = 10;

/// What to do with held calls.
#[derive(Debug, clap::Subcommand)]
pub enum Holds {
    /// List held calls, newest first.
    Ls {
        /// Only these states, such as `held,unknown`; `all` for every one.
        #[arg(long, default_value = "held,approved")]
        state: String,
        /// Only this tier: medium or high.
        #[arg(long)]
        tier: Option<String>,
        /// Only this tool.
        #[arg(long)]
        tool: Option<String>,
        /// Only this operation.
        #[arg(long)]
        op: Option<String>,
        /// Only this agent.
        #[arg(long)]
        agent: Option<String>,
        /// Only this workflow.
        #[arg(long)]
        workflow: Option<String>,
        /// Only this run.
        #[arg(long)]
        run: Option<String>,
        /// Only what you can approve now.
        #[arg(long)]
        mine: bool,
        /// Only what should have been looked at by now.
        #[arg(long)]
        overdue: bool,
        /// Only what has these words in its title, ids, code, operation, agent, workflow, run or person.
        #[arg(long, value_name = "WORDS")]
        find: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Show one hold in full.
    Show {
        /// Its id, a unique end of it, or its code.
        id: String,
        #[command(flatten)]
        common: Common,
    },
    /// Approve one: shows it in full, then asks for its code.
    Approve {
        /// Its id, a unique end of it, or its code.
        id: String,
        /// The digest that you have read; needed without a terminal.
        #[arg(long)]
        digest: Option<String>,
        /// Why, in writing; kept in the record.
        #[arg(long, value_name = "TEXT")]
        justify: Option<String>,
        /// On behalf of this group.
        #[arg(long)]
        group: Option<String>,
        /// Never ask.
        #[arg(long)]
        no_input: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Reject one.
    Reject {
        /// Its id, a unique end of it, or its code.
        id: String,
        /// `wrong_target`, `wrong_amount`, `duplicate`, `not_needed`, `missing_evidence`, `policy_gap`, `unsafe`,
        /// `suspected_injection`, `wrong_time`, `other`, or your own that begins with `x_`.
        #[arg(long, value_name = "CODE")]
        reason: String,
        /// Words to the agent.
        #[arg(long, value_name = "TEXT")]
        message: Option<String>,
        /// For so long calls like it, of its agent and workflow, are refused at once, too.
        #[arg(long, value_name = "MINUTES")]
        deny_alike: Option<u64>,
        /// The digest that you have read; else whatever it is now.
        #[arg(long)]
        digest: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Follow them as they are asked for, decided, and end: a line for each step, until interrupted.
    Watch(watch::Watch),
    /// List alike holds, or decide them together once the odd ones were read.
    Group(group::Group),
    #[command(flatten)]
    Handle(handling::Handle),
    /// Change the arguments of one: policy decides anew, approvals are cleared, the agent is told.
    Edit {
        /// Its id, a unique end of it, or its code.
        id: String,
        /// A new value for an argument, such as `amountMinor=4400` or `/address/city="Ulm"`; JSON, else text.
        #[arg(long, value_name = "ARG=VALUE")]
        set: Vec<String>,
        /// A JSON Patch (RFC 6902) on the arguments, or `@FILE`.
        #[arg(long, value_name = "JSON", conflicts_with = "set")]
        patch: Option<String>,
        /// Why; kept in the record, and told to the agent.
        #[arg(long, value_name = "TEXT")]
        note: String,
        /// The digest that you have read; else whatever it is now.
        #[arg(long)]
        digest: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

/// One verb of either kind.
#[derive(Debug)]
pub enum Asked {
    /// Of `holdpoint holds`.
    Holds(Holds),
    /// Of `holdpoint calls`.
    Calls(calls::Calls),
    /// Of `holdpoint grants`.
    Grants(grants::Grants),
}

impl From<Holds> for Asked {
    fn from(verb: Holds) -> Self {
        Self::Holds(verb)
    }
}

impl From<calls::Calls> for Asked {
    fn from(verb: calls::Calls) -> Self {
        Self::Calls(verb)
    }
}

impl From<grants::Grants> for Asked {
    fn from(verb: grants::Grants) -> Self {
        Self::Grants(verb)
    }
}

/// What every verb takes.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Where, and as whom.
    #[command(flatten)]
    pub at: At,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs one verb.
///
/// # Errors
/// Usage and I/O; what the server refuses is [`Exit::Rejected`], said on stderr.
pub async fn run(verb: Asked, out: &mut impl Write) -> anyhow::Result<Exit> {
    let (mut input, mut err) = (io::BufReader::new(io::stdin()), io::stderr());
    run_with(verb, Console::new(&mut input, &mut err), out).await
}

/// Whom to ask, and where to complain.
pub(super) struct Console<'a> {
    input: &'a mut dyn BufRead,
    pub(super) err: &'a mut dyn Write,
    pub(super) is_terminal: bool,
}

impl<'a> Console<'a> {
    /// That of this process.
    pub(super) fn new(input: &'a mut io::BufReader<io::Stdin>, err: &'a mut io::Stderr) -> Self {
        Self { input, err, is_terminal: io::stdin().is_terminal() && io::stderr().is_terminal() }
    }
}

impl Console<'_> {
    pub(super) fn ask(&mut self, question: &str) -> anyhow::Result<String> {
        write!(self.err, "{question} ")?;
        self.err.flush()?;
        let mut line = String::new();
        self.input.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

async fn run_with(verb: Asked, console: Console<'_>, out: &mut impl Write) -> anyhow::Result<Exit> {
    match verb {
        Asked::Holds(verb) => run_holds(verb, console, out).await,
        Asked::Calls(verb) => calls::run(verb, console, out).await,
        Asked::Grants(verb) => grants::run(verb, console, out).await,
    }
}

async fn run_holds(verb: Holds, mut console: Console<'_>, out: &mut impl Write) -> anyhow::Result<Exit> {
    match verb {
        Holds::Ls { state, tier, tool, op, agent, workflow, run, mine, overdue, find, common } => {
            let flag = |given: bool| given.then(|| "1".to_owned());
            let state = Some(state).filter(|s| s != "all");
            let filters = [
                ("state", state),
                ("tier", tier),
                ("tool", tool),
                ("op", op),
                ("agent", agent),
                ("workflow", workflow),
                ("run", run),
                ("mine", flag(mine)),
                ("overdue", flag(overdue)),
                ("q", find),
            ];
            list("/v1/holds", &filters, &common, &mut console, out).await
        }
        Holds::Show { id, common } => {
            let client = Client::new(&common.at)?;
            let read = hold(&client, &id).await?;
            match ok(read, &common, &mut console, out)? {
                Err(exit) => Ok(exit),
                Ok(hold) if common.json => printed(&hold, out),
                Ok(hold) => {
                    text::whole(&hold, out)?;
                    Ok(Exit::Ok)
                }
            }
        }
        Holds::Approve { id, digest, justify, group, no_input, common } => {
            let said = Said { id, digest, justify, group, may_ask: console.is_terminal && !no_input };
            approve(said, &common, &mut console, out).await
        }
        Holds::Reject { id, reason, message, deny_alike, digest, common } => {
            let client = Client::new(&common.at)?;
            let hold = match ok(hold(&client, &id).await?, &common, &mut console, out)? {
                Ok(hold) => hold,
                Err(exit) => return Ok(exit),
            };
            let digest = digest.unwrap_or_else(|| text::of(&hold, "/digest"));
            let mut body = json!({"digest": digest, "reason_code": reason, "deny_alike_minutes": deny_alike});
            add(&mut body, "message_to_agent", message);
            decide(&client, &hold, "reject", &body, &common, &mut console, out).await
        }
        Holds::Handle(said) => handling::run(said, &mut console, out).await,
        Holds::Watch(said) => said.run(&mut console, out).await,
        Holds::Group(said) => group::run(said, &mut console, out).await,
        Holds::Edit { id, set, patch, note, digest, common } => {
            let patch = edit::patch(&set, patch.as_deref())?;
            let client = Client::new(&common.at)?;
            let hold = match ok(hold(&client, &id).await?, &common, &mut console, out)? {
                Ok(hold) => hold,
                Err(exit) => return Ok(exit),
            };
            let digest = digest.unwrap_or_else(|| text::of(&hold, "/digest"));
            let body = json!({"digest": digest, "patch": patch, "note": note});
            decide(&client, &hold, "edit", &body, &common, &mut console, out).await
        }
    }
}

pub(super) fn add(body: &mut Value, name: &str, value: Option<String>) {
    if let (Some(members), Some(value)) = (body.as_object_mut(), value) {
        members.insert(name.to_owned(), value.into());
    }
}

pub(super) async fn hold(client: &Client, id: &str) -> anyhow::Result<Answer> {
    client.send(Method::GET, &format!("/v1/holds/{}", encode_part(id)), None).await
}

pub(super) fn printed(value: &Value, out: &mut impl Write) -> anyhow::Result<Exit> {
    writeln!(out, "{value:#}")?;
    Ok(Exit::Ok)
}

/// The answer's content; or what the server refused, said.
pub(super) fn ok(
    answer: Answer,
    common: &Common,
    console: &mut Console<'_>,
    out: &mut impl Write,
) -> anyhow::Result<Result<Value, Exit>> {
    if answer.status.is_success() {
        return Ok(Ok(answer.json));
    }
    if common.json {
        printed(&answer.json, out)?;
    } else {
        text::problem(&answer.json, answer.status, console.err)?;
    }
    Ok(Err(if answer.status.is_server_error() { Exit::Usage } else { Exit::Rejected }))
}

pub(super) async fn list(
    of: &str,
    filters: &[(&str, Option<String>)],
    common: &Common,
    console: &mut Console<'_>,
    out: &mut impl Write,
) -> anyhow::Result<Exit> {
    let client = Client::new(&common.at)?;
    let given = filters.iter().filter_map(|(name, value)| value.as_ref().map(|v| (name, v)));
    let base: String = given.map(|(name, value)| format!("&{name}={}", encode_part(value))).collect();
    let (mut items, mut next) = (Vec::new(), String::new());
    for _ in 0..PAGES {
        let path = format!("{of}?limit={PAGE}{base}{next}");
        let mut page = match ok(client.send(Method::GET, &path, None).await?, common, console, out)? {
            Ok(page) => page,
            Err(exit) => return Ok(exit),
        };
        if let Some(Value::Array(found)) = page.get_mut("items").map(Value::take) {
            items.extend(found);
        }
        next = match page.get("next").and_then(Value::as_str) {
            Some(cursor) => format!("&cursor={}", encode_part(cursor)),
            None => String::new(),
        };
        if next.is_empty() {
            break;
        }
    }
    if common.json {
        return printed(&json!({"items": items, "complete": next.is_empty()}), out);
    }
    text::table(&items, SystemClock.now(), of == "/v1/calls", out)?;
    if !next.is_empty() {
        writeln!(console.err, "there are more; narrow the list with --tier, --tool, --op, --agent or --workflow")?;
    }
    Ok(Exit::Ok)
}

struct Said {
    id: String,
    digest: Option<String>,
    justify: Option<String>,
    group: Option<String>,
    may_ask: bool,
}

async fn approve(said: Said, common: &Common, console: &mut Console<'_>, out: &mut impl Write) -> anyhow::Result<Exit> {
    if said.digest.is_none() && !said.may_ask {
        let id = visible(&said.id);
        bail!(
            "nobody can be asked here, so say which bytes you approve: read it with\n  \
             holdpoint holds show {id}\nthen run, with the digest that it shows,\n  \
             holdpoint holds approve {id} --digest sha256:…"
        );
    }
    let client = Client::new(&common.at)?;
    let hold = match ok(hold(&client, &said.id).await?, common, console, out)? {
        Ok(hold) => hold,
        Err(exit) => return Ok(exit),
    };
    let mut body = json!({});
    let mut justify = said.justify;
    if let Some(digest) = said.digest {
        add(&mut body, "digest", Some(digest));
    } else {
        text::whole(&hold, console.err)?;
        let code = text::of(&hold, "/code");
        let typed = console.ask(&format!("Type its code ({code}) to approve it:"))?;
        if plain(&typed) != plain(&code) || code.is_empty() {
            bail!("this is not its code: nothing was approved");
        }
        let needed = hold.pointer("/needs/justification").and_then(Value::as_bool).unwrap_or(false);
        if needed && justify.is_none() {
            justify = Some(console.ask("Why (kept in the record):")?);
        }
        add(&mut body, "digest", hold.get("digest").and_then(Value::as_str).map(str::to_owned));
        add(&mut body, "confirm", Some(typed));
    }
    add(&mut body, "justification", justify);
    add(&mut body, "group", said.group);
    decide(&client, &hold, "approve", &body, common, console, out).await
}

pub(super) fn plain(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_uppercase()
}

pub(super) async fn decide(
    client: &Client,
    hold: &Value,
    verb: &str,
    body: &Value,
    common: &Common,
    console: &mut Console<'_>,
    out: &mut impl Write,
) -> anyhow::Result<Exit> {
    let id = hold.get("id").and_then(Value::as_str).context("the server names no hold")?;
    let path = format!("/v1/holds/{}/{verb}", encode_part(id));
    let done = match ok(client.send(Method::POST, &path, Some(body)).await?, common, console, out)? {
        Ok(done) => done,
        Err(exit) => return Ok(exit),
    };
    if common.json {
        return printed(&done, out);
    }
    writeln!(out, "{}: {}", visible(id), text::of(&done, "/state"))?;
    text::needs(&done, out)?;
    Ok(Exit::Ok)
}

#[cfg(test)]
#[path = "holds_tests.rs"]
mod tests;
