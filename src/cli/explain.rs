//! `holdpoint explain`: why a call is judged as it is, and the closest change that would alter it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use super::Exit;
use super::paint::{Paint, wrapped};
use super::set::{self, Which};
use crate::call::{GrantCaps, Judgement, Needs, Refusal, Terms, duration_text, money_text, visible};
use crate::config::Document;
use crate::gates::authz::Match;
use crate::workbench::case::{AgentGiven, Given, WorkflowGiven};
use crate::workbench::explain::{Change, Explanation, Looked, explain};
use crate::workbench::history::Recorded;
use crate::workbench::{Bench, Case};

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

/// What is shown.
struct Shown {
    case: Case,
    explained: Explanation,
    recorded: Option<Recorded>,
    same_policies: bool,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Exit> {
    let Some(config) = args.which.config() else { return Ok(Exit::Rejected) };
    let Some(bench) = set::bench(&config, &args.which.dir(&config)) else { return Ok(Exit::Rejected) };
    let recorded = args.call.as_deref().map(|id| set::recorded(&config, args.log.as_deref(), id)).transpose()?;
    let case = match &recorded {
        Some(recorded) => {
            Case::recorded(recorded, &bench.policies).map_err(|why| anyhow::anyhow!(set::unasked(&why)))?
        }
        None => args.case(&bench)?,
    };
    let explained = explain(&bench, &case).map_err(|refusal| anyhow::anyhow!(in_words(&refusal)))?;
    let same_policies = recorded.as_ref().is_none_or(|r| r.policy_digest == Some(bench.policies.digest()));
    let shown = Shown { case, explained, recorded, same_policies };
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&shown.json())?)?;
    } else {
        shown.print(Paint::here(), out)?;
    }
    Ok(Exit::Ok)
}

fn in_words(refusal: &Refusal) -> String {
    let wrong: Vec<String> =
        refusal.errors().iter().map(|e| format!("{} {}", e.pointer, e.message).trim().to_owned()).collect();
    if wrong.is_empty() {
        return refusal.public_text().to_owned();
    }
    format!("{}: {}", refusal.public_text(), wrong.join("; "))
}

/// The text itself, or that of the file after `@`.
fn text_or_file(given: &str) -> anyhow::Result<String> {
    match given.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read `{path}`")),
        None => Ok(given.to_owned()),
    }
}

impl Args {
    fn case(&self, bench: &Bench) -> anyhow::Result<Case> {
        let model = bench.policies.loaded().model();
        let op = self.op.as_deref().unwrap_or_default();
        let operation = model.operations.iter().find(|o| o.name == op).ok_or_else(|| {
            let near = crate::policy::nearest(op, model.operations.iter().map(|o| o.name.as_str()));
            let near = near.map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            anyhow::anyhow!("the configuration has no operation `{op}`{near}")
        })?;
        let arguments: Value = serde_json::from_str(&text_or_file(&self.input)?).context("`--input` is no JSON")?;
        bench.schemas.recheck(operation, &arguments).map_err(|refusal| anyhow::anyhow!(in_words(&refusal)))?;
        let here = Given {
            agent: Some(AgentGiven {
                id: Some(self.agent.clone()),
                groups: self.group.clone(),
                ..AgentGiven::default()
            }),
            workflow: Some(WorkflowGiven { name: self.workflow.clone(), stage: self.stage.clone(), step: None }),
            ..Given::default()
        };
        let more = match &self.given {
            None => Given::default(),
            Some(given) => {
                let document = Document::parse(&text_or_file(given)?, "--given".as_ref())?;
                document.typed(document.value(), "", "test")?
            }
        };
        more.or(&here).case(operation, arguments, model).map_err(|e| anyhow::anyhow!(e))
    }
}

impl Shown {
    fn print(&self, paint: Paint, out: &mut impl Write) -> std::io::Result<()> {
        let seen = &self.explained.seen;
        writeln!(out, "{}", self.head(paint))?;
        if let Some(recorded) = &self.recorded {
            let by = if self.same_policies { "these policies" } else { "other policies than these" };
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
            for (i, line) in wrapped(&needs(terms, self.explained.grant.as_ref()), ",", 68).into_iter().enumerate() {
                writeln!(out, "{:<11}{line}", if i == 0 { "needs" } else { "" })?;
            }
        }
        if let Some(degrade) = &seen.degrade {
            writeln!(out, "instead    {degrade}")?;
        }
        self.closest(out)
    }

    fn head(&self, paint: Paint) -> String {
        let (case, word) = (&self.case, self.explained.seen.judgement.as_str().to_uppercase());
        let word = match self.explained.seen.judgement {
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
        for looked in &self.explained.looked {
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
        let all: Vec<String> = self.explained.looked.iter().filter_map(no).collect();
        for (i, line) in wrapped(&all, ",", 68).into_iter().enumerate() {
            writeln!(out, "{:<11}{line}", if i == 0 { "no match" } else { "" })?;
        }
        Ok(())
    }

    fn closest(&self, out: &mut impl Write) -> std::io::Result<()> {
        let all: Vec<String> = self.explained.closest.iter().map(|c| self.change(c)).collect();
        for (i, line) in wrapped(&all, ";", 68).into_iter().enumerate() {
            writeln!(out, "{:<11}{line}", if i == 0 { "closest" } else { "" })?;
        }
        Ok(())
    }

    fn change(&self, change: &Change) -> String {
        let (word, member) = (change.judgement.as_str(), &change.member);
        let Some(value) = &change.value else { return format!("{word} without {member}") };
        let priced = self.case.operation.cost.amount.as_ref().filter(|(at, _)| *at == format!("/{member}"));
        let money = priced.and_then(|_| Some(money_text(value.as_i64()?, &self.case.money()?.1)));
        let money = money.map(|m| format!(" ({m})")).unwrap_or_default();
        format!("{word} at {member} {value}{money}")
    }

    fn json(&self) -> Value {
        let e = &self.explained;
        let rungs: Vec<_> = e
            .seen
            .rungs
            .iter()
            .map(|r| json!({"tier": r.tier.as_str(), "allowed": r.allowed, "policies": r.policies, "broken": r.broken}))
            .collect();
        let looked: Vec<_> = e.looked.iter().map(policy_json).collect();
        let closest: Vec<_> = e
            .closest
            .iter()
            .map(|c| json!({"tier": c.judgement.as_str(), "member": c.member, "value": c.value}))
            .collect();
        json!({
            "version": 1, "operation": self.case.operation.name, "agent": self.case.principal.agent,
            "workflow": self.case.context.workflow, "stage": self.case.context.stage,
            "tier": e.seen.judgement.as_str(), "because": e.seen.because, "rungs": rungs, "policies": looked,
            "needs": e.seen.terms.as_ref().map(|t| json!(t.needs)), "degrade": e.seen.degrade, "closest": closest,
            "recorded": self.recorded.as_ref().map(|r| json!({
                "call": r.id.to_string(), "at": r.at.to_string(), "tier": r.judgement.as_str(), "state": r.state,
                "same_policies": self.same_policies, "facts": r.facts.is_some(),
            })),
        })
    }
}

fn policy_json(looked: &Looked) -> Value {
    let (how, why) = match &looked.how {
        Match::Yes(why) => ("matched", json!(why)),
        Match::No(why) => ("not_matched", json!(why)),
        Match::Broken(why) => ("broken", json!([why])),
    };
    json!({"policy": looked.policy, "at": looked.at, "forbid": looked.forbid, "how": how, "conditions": why})
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
