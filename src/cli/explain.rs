//! `holdpoint explain`: why a call is judged as it is, and the closest change that would alter it.

use std::io::Write;
use std::path::PathBuf;

use super::Exit;
use super::paint::{Paint, wrapped};
use super::set::{self, Which};
use crate::call::{GrantCaps, Judgement, Needs, Terms, duration_text, money_text, visible};
use crate::config::Document;
use crate::gates::authz::Match;
use crate::workbench::case::Given;
use crate::workbench::explain::{Change, Looked};
use crate::workbench::told::{Told, Wanted};
use anyhow::Context;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["call", "op"])))]
pub(super) struct Args {
    /// A recorded call: its id, or a suffix that only it has.
    call: Option<String>,
    /// An operation, instead of a recorded call: `crm.refund`.
    #[arg(long)]
    op: Option<String>,
    /// Its arguments as one JSON object, or `@FILE`.
    #[arg(long, default_value = "{}", value_name = "JSON|@FILE")]
    input: String,
    /// Who calls.
    #[arg(long, default_value = "agent")]
    agent: String,
    /// A group of the agent. May be repeated.
    #[arg(long)]
    group: Vec<String>,
    /// In which workflow.
    #[arg(long)]
    workflow: Option<String>,
    /// In which stage, other than the workflow's own.
    #[arg(long)]
    stage: Option<String>,
    /// More facts, as the `defaults` of a test file: `{ budget: { worstPct: 93 } }`, or `@FILE`.
    #[arg(long, value_name = "YAML|@FILE")]
    given: Option<String>,
    #[command(flatten)]
    which: Which,
    /// Records elsewhere than the configuration says: a state folder, or a file of `holdpoint audit export`.
    #[arg(long, value_name = "PATH")]
    log: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Exit> {
    let Some(config) = args.which.config() else { return Ok(Exit::Rejected) };
    let Some(bench) = set::bench(&config, &args.which.dir(&config)) else { return Ok(Exit::Rejected) };
    let told = match &args.call {
        Some(id) => Told::recorded(&bench, set::recorded(&config, args.log.as_deref(), id)?),
        None => Told::wanted(&bench, args.wanted()?),
    };
    let told = told.map_err(anyhow::Error::msg)?;
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&told.json())?)?;
    } else {
        Shown(told).print(Paint::here(), out)?;
    }
    Ok(Exit::Ok)
}

/// The text itself, or that of the file after `@`.
fn text_or_file(given: &str) -> anyhow::Result<String> {
    match given.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read `{path}`")),
        None => Ok(given.to_owned()),
    }
}

impl Args {
    fn wanted(&self) -> anyhow::Result<Wanted> {
        let given = match &self.given {
            None => Given::default(),
            Some(given) => {
                let document = Document::parse(&text_or_file(given)?, "--given".as_ref())?;
                document.typed(document.value(), "", "test")?
            }
        };
        Ok(Wanted {
            operation: self.op.clone().unwrap_or_default(),
            input: serde_json::from_str(&text_or_file(&self.input)?).context("`--input` is no JSON")?,
            agent: self.agent.clone(),
            groups: self.group.clone(),
            workflow: self.workflow.clone(),
            stage: self.stage.clone(),
            given,
        })
    }
}

/// As text.
struct Shown(Told);

impl Shown {
    fn print(&self, paint: Paint, out: &mut impl Write) -> std::io::Result<()> {
        let seen = &self.0.explained.seen;
        writeln!(out, "{}", self.head(paint))?;
        if let Some(recorded) = &self.0.recorded {
            let by = if self.0.same_policies { "these policies" } else { "other policies than these" };
            let then = recorded.judgement.as_str();
            writeln!(out, "recorded   {} as {then} by {by}; it is {}", recorded.at, visible(&recorded.state))?;
            if recorded.facts.is_none() {
                writeln!(out, "           without what was known then: asked as if nothing was spent or done before")?;
            }
        }
        for (i, rung) in seen.rungs.iter().enumerate() {
            let label = if i == 0 { "asked as" } else { "" };
            let (word, ids) = match (rung.allowed, rung.broken.is_empty()) {
                (true, _) => (paint.good("yes"), &rung.policies),
                (false, true) => (paint.bad("no "), &rung.policies),
                (false, false) => (paint.bad("err"), &rung.broken),
            };
            let ids = if ids.is_empty() { "no policy permits it".to_owned() } else { ids.join(", ") };
            writeln!(out, "{label:<10} {:<7} {word}   {ids}", rung.tier.as_str())?;
        }
        self.matched(out)?;
        self.unmatched(out)?;
        if let Some(terms) = &seen.terms {
            for (i, line) in wrapped(&needs(terms, self.0.explained.grant.as_ref()), ",", 68).into_iter().enumerate() {
                writeln!(out, "{:<11}{line}", if i == 0 { "needs" } else { "" })?;
            }
        }
        if let Some(degrade) = &seen.degrade {
            writeln!(out, "instead    {degrade}")?;
        }
        self.closest(out)
    }

    fn head(&self, paint: Paint) -> String {
        let (case, word) = (&self.0.case, self.0.explained.seen.judgement.as_str().to_uppercase());
        let word = match self.0.explained.seen.judgement {
            Judgement::Low => paint.good(&word),
            Judgement::Deny => paint.bad(&word),
            _ => paint.warn(&word),
        };
        let money = case.money().map(|(n, c)| format!("  {}", money_text(n, &visible(&c)))).unwrap_or_default();
        let who = visible(&case.principal.agent);
        format!(
            "{word}  {}{money}  by {who} in {} ({})",
            case.operation.name, case.context.workflow, case.context.stage
        )
    }

    /// Policies that apply, each with its conditions and its place.
    fn matched(&self, out: &mut impl Write) -> std::io::Result<()> {
        for looked in &self.0.explained.looked {
            let (word, why) = match &looked.how {
                Match::Yes(why) if why.is_empty() => ("always", Vec::new()),
                Match::Yes(why) => ("", why.clone()),
                Match::Broken(why) => ("cannot be evaluated:", vec![why.clone()]),
                Match::No(_) => continue,
            };
            let effect = if looked.forbid { "forbid" } else { "permit" };
            let line = visible(&format!("{effect:<10} {:<20} {word}{}", looked.policy, why.join(", ")));
            if line.chars().count() + looked.at.chars().count() < 79 {
                let room = 80 - looked.at.chars().count();
                writeln!(out, "{line:<room$}{}", looked.at)?;
            } else {
                writeln!(out, "{line}\n{:>80}", looked.at)?;
            }
        }
        Ok(())
    }

    fn unmatched(&self, out: &mut impl Write) -> std::io::Result<()> {
        let no = |l: &Looked| match &l.how {
            Match::No(why) if !l.built_in => Some(visible(&format!("{} ({})", l.policy, why.join(", ")))),
            _ => None,
        };
        let all: Vec<String> = self.0.explained.looked.iter().filter_map(no).collect();
        for (i, line) in wrapped(&all, ",", 68).into_iter().enumerate() {
            writeln!(out, "{:<11}{line}", if i == 0 { "no match" } else { "" })?;
        }
        Ok(())
    }

    fn closest(&self, out: &mut impl Write) -> std::io::Result<()> {
        let all: Vec<String> = self.0.explained.closest.iter().map(|c| self.change(c)).collect();
        for (i, line) in wrapped(&all, ";", 68).into_iter().enumerate() {
            writeln!(out, "{:<11}{line}", if i == 0 { "closest" } else { "" })?;
        }
        Ok(())
    }

    fn change(&self, change: &Change) -> String {
        let (word, member) = (change.judgement.as_str(), &change.member);
        let Some(value) = &change.value else { return format!("{word} without {member}") };
        let priced = self.0.case.operation.cost.amount.as_ref().filter(|(at, _)| *at == format!("/{member}"));
        let money = priced.and_then(|_| Some(money_text(value.as_i64()?, &self.0.case.money()?.1)));
        let money = money.map(|m| format!(" ({m})")).unwrap_or_default();
        format!("{word} at {member} {value}{money}")
    }
}

/// What lifts it.
fn needs(terms: &Terms, grant: Option<&GrantCaps>) -> Vec<String> {
    let Needs { people, requirements, justification, evidence } = &terms.needs;
    let mut groups: Vec<String> = Vec::new();
    for requirement in requirements {
        let one = |g: &String| format!("1 of {g}");
        let asked = if requirement.all {
            requirement.groups.iter().map(one).collect()
        } else {
            vec![format!("1 of {}", requirement.groups.join(" or "))]
        };
        groups.extend(asked.into_iter().filter(|g| !groups.contains(g)).collect::<Vec<_>>());
    }
    let mut parts = vec![groups.join(" + ")];
    parts.push(match people {
        1 => "one person".to_owned(),
        2 => "two people".to_owned(),
        n => format!("{n} people"),
    });
    parts.extend(justification.then(|| "justification".to_owned()));
    parts.extend((!evidence.is_empty()).then(|| format!("evidence: {}", evidence.join(", "))));
    parts.push(format!("sent within {}", duration_text(terms.window)));
    parts.extend(grant.map(|caps| {
        let uses = caps.uses.map(|n| format!(", {n} uses")).unwrap_or_default();
        let sums: String = caps.sums.iter().map(|(path, most)| format!(", {path} adding up to {most}")).collect();
        format!("or a grant ({} at most{uses}{sums})", duration_text(caps.max))
    }));
    parts
}
