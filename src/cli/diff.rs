//! `holdpoint diff`: what a change of policies tightens and loosens, with calls that show it.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Exit;
use super::paint::{Paint, wrapped};
use super::set;
use crate::app;
use crate::call::{Timestamp, visible};
use crate::config::Config;
use crate::workbench::diff::{Diff, Edit, Kind, Origin, diff};
use crate::workbench::history::{self, Limits, Recorded};
use crate::workbench::suite::{self, Suite};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The policies as they are.
    old: PathBuf,
    /// The policies as they would be.
    new: PathBuf,
    /// The configuration that both are about.
    #[arg(long, default_value = "holdpoint.yaml", value_name = "FILE")]
    config: PathBuf,
    /// Recorded calls to look for examples in: a state folder, or a file of `holdpoint audit export`. Those of the
    /// configuration when they are there.
    #[arg(long, value_name = "PATH")]
    log: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Exit> {
    let config = match app::load(&args.config) {
        Ok(config) => config,
        Err(mistakes) => {
            set::complain(mistakes);
            return Ok(Exit::Rejected);
        }
    };
    let (Some(old), Some(new)) = (set::bench(&config, &args.old), set::bench(&config, &args.new)) else {
        return Ok(Exit::Rejected);
    };
    let mut suites = suites(&args.old)?;
    suites.extend(suites_not_in(&args.new, &suites)?);
    let found = diff(&old, &new, &suites, &args.calls(&config)?);
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&to_json(&found))?)?;
    } else {
        print(&found, Paint::here(), out)?;
    }
    Ok(if found.edits.is_empty() && found.kinds.is_empty() { Exit::Ok } else { Exit::Differs })
}

/// Test files are only a place to look for calls: those that cannot be read are left to `holdpoint test`.
fn suites(dir: &Path) -> anyhow::Result<Vec<Suite>> {
    Ok(suite::files(dir)?.iter().filter_map(|f| Suite::read(f).ok()).collect())
}

/// Tests that both folders have count once.
fn suites_not_in(dir: &Path, known: &[Suite]) -> anyhow::Result<Vec<Suite>> {
    let text = |path: &Path| std::fs::read(path).unwrap_or_default();
    let known: Vec<Vec<u8>> = known.iter().map(|s| text(&s.path)).collect();
    Ok(suites(dir)?.into_iter().filter(|s| !known.contains(&text(&s.path))).collect())
}

impl Args {
    fn calls(&self, config: &Config) -> anyhow::Result<Vec<Recorded>> {
        let path = match &self.log {
            Some(path) => path.clone(),
            None if history::folder(config).join("journal").is_dir() => history::folder(config).to_owned(),
            None => return Ok(Vec::new()),
        };
        Ok(history::read(&path, Timestamp::from_millis(0), Limits::NONE)?.calls)
    }
}

fn print(found: &Diff, paint: Paint, out: &mut impl Write) -> std::io::Result<()> {
    for (id, edit) in &found.edits {
        match edit {
            Edit::Added(what) => writeln!(out, "{} {id:<24} {what}", paint.good("+"))?,
            Edit::Removed(what) => writeln!(out, "{} {id:<24} {what}", paint.bad("-"))?,
            Edit::Changed(all) => {
                for (i, what) in all.iter().enumerate() {
                    let (mark, id) = if i == 0 { (paint.warn("~"), id.as_str()) } else { (" ".to_owned(), "") };
                    writeln!(out, "{mark} {id:<24} {}", visible(what))?;
                }
            }
        }
    }
    let a = found.asked;
    writeln!(
        out,
        "asked about {} calls: {} of tests, {} recorded, {} made up",
        a.tests + a.calls + a.made,
        a.tests,
        a.calls,
        a.made
    )?;
    for kind in &found.kinds {
        print_kind(kind, paint, out)?;
    }
    let loosening = found.kinds.iter().filter(|k| k.loosens()).count();
    let plural = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let edits = plural(found.edits.len(), "policy differs", "policies differ");
    match (found.edits.len(), loosening) {
        (0, 0) if found.kinds.is_empty() => writeln!(out, "no difference"),
        (_, 0) => writeln!(out, "{edits}, no loosening found"),
        (_, n) => writeln!(out, "{edits}, {}. CI label: needs-security-review", plural(n, "loosening", "loosenings")),
    }
}

fn print_kind(kind: &Kind, paint: Paint, out: &mut impl Write) -> std::io::Result<()> {
    let mark = if kind.loosens() { paint.bad("   LOOSENS") } else { String::new() };
    let by = if kind.by.is_empty() { "no policy permits it".to_owned() } else { kind.by.join(", ") };
    let (old, new) = (kind.old.as_str(), kind.new.as_str());
    writeln!(out, "  {old:<6} → {new:<6} {by}{mark}")?;
    let names: Vec<String> = kind.operations.keys().cloned().collect();
    wrapped(&names, ",", 72).into_iter().try_for_each(|line| writeln!(out, "      {line}"))?;
    let (origin, case) = &kind.example;
    let groups = visible(&case.principal.groups.join(", "));
    let who = if groups.is_empty() { "an agent of no group" } else { &groups };
    writeln!(out, "      such as {} by {who}", case.operation.name)?;
    writeln!(out, "      {}", visible(&shortened(&case.arguments)))?;
    writeln!(out, "      {}", paint.dim(&visible(&from(origin, kind.count()))))
}

fn from(origin: &Origin, count: usize) -> String {
    let which = match origin {
        Origin::Call(id) => format!("recorded as {id}"),
        Origin::Test(name) => format!("test: {name}"),
        Origin::Made(moves) if moves.is_empty() => "made up".to_owned(),
        Origin::Made(moves) => format!("made up: {}", moves.join(", ")),
    };
    if count > 1 { format!("{which}; {} more", count - 1) } else { which }
}

/// Arguments in one line; long ones are cut here, never in `--json`.
fn shortened(arguments: &Value) -> String {
    let text = arguments.to_string();
    if text.chars().count() <= 72 {
        return text;
    }
    let cut: String = text.chars().take(71).collect();
    format!("{cut}…")
}

fn to_json(found: &Diff) -> Value {
    let edits: Vec<_> = found
        .edits
        .iter()
        .map(|(id, edit)| match edit {
            Edit::Added(what) => json!({"policy": id, "edit": "added", "what": [what]}),
            Edit::Removed(what) => json!({"policy": id, "edit": "removed", "what": [what]}),
            Edit::Changed(all) => json!({"policy": id, "edit": "changed", "what": all}),
        })
        .collect();
    let kinds: Vec<_> = found.kinds.iter().map(kind_json).collect();
    let a = found.asked;
    json!({
        "version": 1, "policies": edits, "moves": kinds, "loosens": found.kinds.iter().any(Kind::loosens),
        "asked": {"tests": a.tests, "recorded": a.calls, "made_up": a.made},
    })
}

fn kind_json(kind: &Kind) -> Value {
    let (origin, case) = &kind.example;
    let (from, what) = match origin {
        Origin::Call(id) => ("recorded", json!(id)),
        Origin::Test(name) => ("test", json!(name)),
        Origin::Made(moves) => ("made_up", json!(moves)),
    };
    json!({
        "operations": kind.operations, "old": kind.old.as_str(), "new": kind.new.as_str(), "policies": kind.by,
        "loosens": kind.loosens(), "count": kind.count(),
        "example": {"operation": case.operation.name, "from": from, "what": what, "input": case.arguments, "groups": case.principal.groups},
    })
}
