//! One file for each verb (`contract.md` 1). Exit 0 ok, 1 usage or I/O, 2 rejected, 3 differs.

mod audit;
mod budgets;
mod calls;
mod check;
mod client;
mod diff;
mod doctor;
mod drain;
mod edit;
mod explain;
mod grants;
mod group;
mod handling;
mod hold_text;
pub mod holds;
mod init;
mod init_text;
mod kill;
mod lock;
mod paint;
mod replay;
mod schema;
mod serve;
mod set;
mod test;
mod watch;
mod webhooks;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Ok,
    /// 1: usage or I/O.
    Usage,
    /// 2: rejected.
    Rejected,
    /// 3: differs.
    Differs,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0u8,
            Exit::Usage => 1,
            Exit::Rejected => 2,
            Exit::Differs => 3,
        })
    }
}

/// Puts a person between your AI agents and the calls you would regret.
#[derive(Debug, Parser)]
#[command(name = "holdpoint", version, after_help = "Exit codes: 0 ok, 1 usage or I/O, 2 rejected, 3 differs.")]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the proxy. SIGHUP reloads, SIGTERM drains, and so does `drain`.
    Serve {
        /// The configuration.
        #[arg(long, default_value = "holdpoint.yaml")]
        config: PathBuf,
        /// Threads that carry calls; one for each core by default.
        #[arg(long)]
        cores: Option<usize>,
    },
    /// The product on your machine: proxy, two toy tools, an agent, the review page. All loopback, thrown away.
    Demo {
        /// Decide by script instead of waiting for people; compare the books; end with 1 if they differ.
        #[arg(long)]
        script: bool,
        /// Play tricks that fool other gateways against it, and say how each was stopped; end with 1 if one was not.
        #[arg(long, conflicts_with = "script")]
        attack: bool,
    },
    /// Draft configuration, schemas, policies and tests from what tools say about themselves.
    ///
    /// Writes into a new or empty folder and overwrites nothing. Every guess is marked `# guessed`. Exit 2 when the draft
    /// would not pass `check`.
    Init(init::Args),
    /// Check configuration, schemas and policies; every mistake at once. Exit 2 when rejected.
    Check(check::Args),
    /// Run the test files beside the policies. Exit 2 when one fails.
    Test(test::Args),
    /// Why a call is judged as it is, and the closest change that would alter it.
    Explain(explain::Args),
    /// Ask other policies about recorded calls: what would move, what would loosen. Exit 3 when anything does.
    Replay(replay::Args),
    /// What a change of policies tightens and loosens, with calls that show it. Exit 3 when they differ.
    Diff(diff::Args),
    /// Fetch an MCP server's tools/list, show the difference to the lock file, write it.
    Lock(lock::Args),
    /// Look at held calls and decide them, over the admin API.
    #[command(subcommand)]
    Holds(holds::Holds),
    /// Look at all calls, and say what became of those whose outcome is unknown.
    #[command(subcommand)]
    Calls(calls::Calls),
    /// Let calls like an approved one pass by themselves, within bounds; look at what does, and take it back.
    #[command(subcommand)]
    Grants(grants::Grants),
    /// The kill switch: stop everything, an agent, a workflow or a tool; without a scope: what is stopped now.
    Kill(kill::Kill),
    /// Let what the kill switch stopped go on.
    Resume(kill::Resume),
    /// Receivers of notifications: how far they were told, what waits, what was given up.
    #[command(subcommand)]
    Webhooks(webhooks::Webhooks),
    /// Budgets in use, and more room for one of them.
    #[command(subcommand)]
    Budgets(budgets::Budgets),
    /// Stop a proxy in order, as SIGTERM does: no new calls, those under way end, holds are kept.
    Drain(drain::Args),
    /// The journal of everything that happened.
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Find what would make the set-up unsafe or useless. Exit 2 when something would.
    Doctor(doctor::Args),
    /// Print a JSON Schema, or the generated Cedar schema.
    Schema(schema::Args),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let failed = e.use_stderr();
            drop(e.print());
            return if failed { Exit::Usage.into() } else { Exit::Ok.into() };
        }
    };
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(e) => {
            complain(&e);
            Exit::Usage.into()
        }
    }
}

/// An error on stderr: the whole chain, once.
fn complain(e: &anyhow::Error) {
    let text = format!("{e:#}");
    let prefix = if text.starts_with("error") { "" } else { "error: " };
    drop(writeln!(io::stderr(), "{prefix}{text}"));
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let Some(verb) = cli.verb else {
        Cli::command().print_help()?;
        return Ok(Exit::Ok);
    };
    let mut out = io::stdout().lock();
    match verb {
        Verb::Serve { config, cores } => serve::run(&config, cores),
        Verb::Demo { attack: true, .. } => crate::demo::attack(&mut out),
        Verb::Demo { script, .. } => crate::demo::run(script, &mut out),
        Verb::Init(args) => init::run(&args, &mut out),
        Verb::Check(args) => check::run(&args, &mut out),
        Verb::Test(args) => test::run(&args, &mut out),
        Verb::Explain(args) => explain::run(&args, &mut out),
        Verb::Replay(args) => replay::run(&args, &mut out),
        Verb::Diff(args) => diff::run(&args, &mut out),
        Verb::Lock(args) => lock::run(&args, &mut out),
        Verb::Holds(verb) => runtime()?.block_on(holds::run(verb.into(), &mut out)),
        Verb::Calls(verb) => runtime()?.block_on(holds::run(verb.into(), &mut out)),
        Verb::Grants(verb) => runtime()?.block_on(holds::run(verb.into(), &mut out)),
        Verb::Kill(said) => runtime()?.block_on(kill::kill(said, &mut out)),
        Verb::Resume(said) => runtime()?.block_on(kill::resume(said, &mut out)),
        Verb::Webhooks(verb) => runtime()?.block_on(webhooks::run(verb, &mut out)),
        Verb::Budgets(verb) => runtime()?.block_on(budgets::run(verb, &mut out)),
        Verb::Drain(args) => runtime()?.block_on(drain::run(args, &mut out)),
        Verb::Audit(verb) => audit::run(&verb, &mut out),
        Verb::Doctor(args) => doctor::run(&args, &mut out),
        Verb::Schema(args) => schema::run(&args, &mut out),
    }
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
