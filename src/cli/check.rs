//! `holdpoint check`: configuration, schemas and policies, every mistake at once, without opening a port.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use super::Exit;
use crate::policy::prove::{self, Proofs};
use crate::policy::{self, Severity, Source};
use crate::workbench::check::{Report, Set};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration.
    #[arg(long, default_value = "holdpoint.yaml")]
    config: PathBuf,
    /// Other policies than the configuration names.
    #[arg(long)]
    policies: Option<PathBuf>,
    /// Write the generated Cedar schema beside the policies, for editors.
    #[arg(long)]
    write_schema: bool,
    /// Prove with the solver cvc5, when it is installed, that no policy errs and that the claims hold, for every call that
    /// the schema admits.
    #[arg(long)]
    prove: bool,
    /// What to prove: forbids with `@id` that the policies must imply, such as no refund above 500.00 without two people.
    #[arg(long, value_name = "FILE", requires = "prove")]
    claims: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Exit> {
    let mut report = look(&args.config, args.policies.as_deref(), args.write_schema)?;
    let proofs = if args.prove { prove(&mut report, args.claims.as_deref())? } else { None };
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&to_json(&report, proofs.as_ref()))?)?;
    } else {
        print(&report, proofs.as_ref(), &args.config, out)?;
    }
    Ok(if report.errors() == 0 { Exit::Ok } else { Exit::Rejected })
}

/// Everything that `check` looks at; `write_schema` first writes what is compared.
pub(super) fn look(path: &Path, policies: Option<&Path>, write_schema: bool) -> anyhow::Result<Report> {
    let mut report = Report::of(path, policies.map_or(Set::Configured, Set::Dir));
    if let (Some(config), Some(loaded)) = (&report.config, &report.policies) {
        if write_schema {
            policy::generated::write(&config.policy_dir, loaded.schema_text())?;
        }
        let stale = policy::generated::compare(&config.policy_dir, loaded.schema_text());
        report.findings.extend(stale.map(|f| f.with_help("run `holdpoint check --write-schema`")));
    }
    Ok(report)
}

pub(super) fn to_json(report: &Report, proofs: Option<&Proofs>) -> serde_json::Value {
    let mut object = report.json();
    if let Some(members) = object.as_object_mut() {
        members.insert("proofs".to_owned(), proofs.map_or(serde_json::Value::Null, proofs_json));
    }
    object
}

fn proofs_json(proofs: &Proofs) -> serde_json::Value {
    json!({"policies": proofs.policies, "never_err": proofs.never_err, "claims_that_hold": proofs.hold})
}

/// Proves what can be proved of a set that loads. Whoever asks for proofs and cannot have them must hear it.
fn prove(report: &mut Report, claims: Option<&Path>) -> anyhow::Result<Option<Proofs>> {
    let Some(loaded) = &report.policies else { return Ok(None) };
    let claims = match claims {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("`{}`", path.display()))?;
            prove::claims(&Source::new(path.display().to_string(), text), loaded)
        }
        None => Ok(Vec::new()),
    };
    match claims {
        Ok(claims) => {
            let proofs = super::runtime()?.block_on(prove::prove(loaded, &claims)).map_err(anyhow::Error::msg)?;
            report.findings.extend(proofs.findings.iter().cloned());
            return Ok(Some(proofs));
        }
        Err(mistakes) => report.findings.extend(mistakes),
    }
    Ok(None)
}

/// What is worth a look and may well be meant, a line each.
fn print_notes(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    for note in report.findings.iter().filter(|f| f.severity == Severity::Note) {
        let at = note.file.as_ref().map(|file| format!("{file}:{}", note.line)).unwrap_or_default();
        let width = note.message.chars().count() + at.chars().count();
        let gap = if width > 66 && !at.is_empty() { format!("\n{:10}", "") } else { "  ".to_owned() };
        writeln!(out, "  note    {}{gap}{at}", note.message)?;
    }
    Ok(())
}

fn print(report: &Report, proofs: Option<&Proofs>, config: &Path, out: &mut impl Write) -> std::io::Result<()> {
    report.mistakes.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    if report.mistakes.is_empty() {
        writeln!(out, "config    {:<36} ok", config.display().to_string())?;
        writeln!(out, "schemas   {} operations typed", report.schemas.0)?;
        for why in &report.schemas.1 {
            writeln!(out, "error[schema]: {why}")?;
        }
    }
    if let Some(loaded) = &report.policies {
        let plural = if loaded.files() == 1 { "" } else { "s" };
        let what = format!("{} in {} file{plural}", loaded.policies().len(), loaded.files());
        let digest: String = loaded.digest().to_string().trim_start_matches("sha256:").chars().take(8).collect();
        writeln!(out, "policies  {what:<36} ok   digest {digest}…")?;
        writeln!(out, "  tiers   {}", loaded.counts())?;
    }
    print_notes(report, out)?;
    let shadows = report.shadows();
    if !shadows.is_empty() {
        let plural = if shadows.len() == 1 { "policy" } else { "policies" };
        writeln!(out, "shadow    {} {plural} in shadow: {}", shadows.len(), shadows.join(", "))?;
    }
    if let Some(proofs) = proofs {
        let broken = proofs.findings.iter().filter(|f| f.severity == Severity::Error).count();
        let claims = format!("{} of {} claims hold", proofs.hold.len(), proofs.hold.len() + broken);
        writeln!(out, "proofs    {} of {} policies never err, {claims}", proofs.never_err, proofs.policies)?;
        proofs.hold.iter().try_for_each(|id| writeln!(out, "  holds   {id}"))?;
    }
    for finding in report.findings.iter().filter(|f| f.severity != Severity::Note) {
        writeln!(out, "{finding}")?;
    }
    let (errors, warnings) = (report.errors(), report.count(Severity::Warning));
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let verdict = if errors == 0 { "ok       " } else { "rejected " };
    writeln!(out, "{verdict} {}, {}", plural(errors, "error"), plural(warnings, "warning"))?;
    if errors > 0 && !report.mistakes.is_empty() {
        writeln!(out, "          fix {} and run `holdpoint check` again", config.display())?;
    }
    Ok(())
}
