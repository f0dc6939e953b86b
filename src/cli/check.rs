//! `holdpoint check`: configuration, schemas and policies, every mistake at once, without opening a port.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use super::Exit;
use crate::call::Operation;
use crate::config::Config;
use crate::gates::schema::Schemas;
use crate::policy::prove::{self, Proofs};
use crate::policy::{self, Counts, Finding, Loaded, Severity, Source};
use crate::{app, clock, snapshot};

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

/// What was found, ready to be printed.
pub(super) struct Report {
    pub(super) config: Result<String, String>,
    pub(super) schemas: (usize, Vec<String>),
    policies: Option<Loaded>,
    proofs: Option<Proofs>,
    never: Vec<String>,
    shadows: Vec<String>,
    pub(super) findings: Vec<Finding>,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Exit> {
    let mut report = look(&args.config, args.policies.as_deref(), args.write_schema)?;
    if args.prove {
        report.prove(args.claims.as_deref())?;
    }
    let errors = report.errors();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report.json())?)?;
    } else {
        report.print(&args.config, out)?;
    }
    Ok(if errors == 0 { Exit::Ok } else { Exit::Rejected })
}

/// Everything that `check` looks at; `write_schema` first writes what is compared.
pub(super) fn look(path: &Path, policies: Option<&Path>, write_schema: bool) -> anyhow::Result<Report> {
    let mut config = match app::load(path) {
        Ok(config) => config,
        Err(mistakes) => return Ok(Report::rejected(mistakes.to_string())),
    };
    if let Some(dir) = policies {
        config.policy_dir = dir.to_path_buf();
    }
    let operations: Vec<_> = config.tools.iter().flat_map(crate::config::ToolConfig::calls).cloned().collect();
    let schemas =
        Schemas::new(operations.iter(), std::collections::HashMap::new(), std::sync::Arc::new(clock::SystemClock));
    // One bad schema of a server stops that tool, and nothing else.
    let rest: std::collections::BTreeSet<&str> =
        config.tools.iter().flat_map(|t| &t.rest).map(|r| r.2.name.as_str()).collect();
    let (ours, theirs): (Vec<_>, Vec<_>) = schemas.broken().partition(|(op, _)| rest.contains(op));
    let broken = ours.into_iter().map(|(op, why)| format!("{op}: {why}")).collect();
    let stopped = theirs.into_iter().map(|(op, why)| {
        let what = format!("{op}: its schema cannot be used, so its calls are refused: {why}");
        Finding::new(Severity::Warning, "tool-schema", what)
    });
    let mut report = Report {
        config: Ok(path.display().to_string()),
        schemas: (operations.iter().filter(|o| is_typed(o)).count(), broken),
        policies: None,
        proofs: None,
        never: Vec::new(),
        shadows: Vec::new(),
        findings: observing(&config).into_iter().chain(unlisted(&config)).chain(stopped).collect(),
    };
    match policy::load(&config.policy_dir, &snapshot::model(&config), snapshot::defaults(&config)) {
        Err(findings) => report.findings.extend(findings),
        Ok(loaded) => {
            if write_schema {
                policy::generated::write(&config.policy_dir, loaded.schema_text())?;
            }
            report.findings.extend(
                policy::generated::compare(&config.policy_dir, loaded.schema_text())
                    .map(|f| f.with_help("run `holdpoint check --write-schema`")),
            );
            report.findings.extend(loaded.findings().iter().cloned());
            report.never = loaded.nobody_can_release().iter().map(|id| (*id).to_owned()).collect();
            report.shadows = loaded.shadows().into_iter().map(str::to_owned).collect();
            report.policies = Some(loaded);
        }
    }
    Ok(report)
}

fn policies_json(loaded: &Loaded) -> serde_json::Value {
    let Counts { low, medium, high, never, admin, shadow } = loaded.counts();
    json!({
        "count": loaded.policies().len(), "files": loaded.files(), "digest": loaded.digest(),
        "tiers": {"low": low, "medium": medium, "high": high, "nobody": never, "admin": admin, "shadow": shadow},
    })
}

fn proofs_json(proofs: &Proofs) -> serde_json::Value {
    json!({"policies": proofs.policies, "never_err": proofs.never_err, "claims_that_hold": proofs.hold})
}

fn is_typed(operation: &Operation) -> bool {
    operation.schema.is_some()
}

/// A set that only observes stops nothing.
fn observing(config: &Config) -> Option<Finding> {
    let text = "policies.mode is `observe`: every call runs, and what policy would have said is only recorded";
    config.observe.then(|| Finding::new(Severity::Warning, "policy-observe", text))
}

/// Tools of a lock file that no operation lists are refused: worth a word.
fn unlisted(config: &Config) -> Vec<Finding> {
    let named = config.tools.iter().filter(|t| !t.unlisted.is_empty());
    named
        .map(|t| {
            let what = format!("{}: not listed under `operations`, so refused: {}", t.tool.name, t.unlisted.join(", "));
            Finding::new(Severity::Note, "tool-unlisted", what)
        })
        .collect()
}

impl Report {
    fn rejected(why: String) -> Self {
        Self {
            config: Err(why),
            schemas: (0, Vec::new()),
            policies: None,
            proofs: None,
            never: Vec::new(),
            shadows: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// Proves what can be proved of a set that loads. Whoever asks for proofs and cannot have them must hear it.
    fn prove(&mut self, claims: Option<&Path>) -> anyhow::Result<()> {
        let Some(loaded) = &self.policies else { return Ok(()) };
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
                self.findings.extend(proofs.findings.iter().cloned());
                self.proofs = Some(proofs);
            }
            Err(mistakes) => self.findings.extend(mistakes),
        }
        Ok(())
    }

    pub(super) fn errors(&self) -> usize {
        let mistakes = self.config.as_ref().err().map_or(0, |text| text.lines().count());
        mistakes + self.schemas.1.len() + self.count(Severity::Error)
    }

    pub(super) fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|f| f.severity == severity).count()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        let findings: Vec<_> = self
            .findings
            .iter()
            .map(|f| {
                json!({"severity": format!("{:?}", f.severity).to_lowercase(), "code": f.code, "message": f.message,
                       "help": f.help, "file": f.file, "line": f.line, "column": f.column})
            })
            .collect();
        json!({
            "version": 1, "ok": self.errors() == 0,
            "config": self.config.as_ref().map_or_else(|e| e.lines().collect::<Vec<_>>(), |_| Vec::new()),
            "schemas": {"typed": self.schemas.0, "errors": self.schemas.1},
            "policies": self.policies.as_ref().map(policies_json), "proofs": self.proofs.as_ref().map(proofs_json),
            "nobody_can_release": self.never, "shadow": self.shadows, "findings": findings,
        })
    }

    /// What is worth a look and may well be meant, a line each.
    fn print_notes(&self, out: &mut impl Write) -> std::io::Result<()> {
        for note in self.findings.iter().filter(|f| f.severity == Severity::Note) {
            let at = note.file.as_ref().map(|file| format!("{file}:{}", note.line)).unwrap_or_default();
            let width = note.message.chars().count() + at.chars().count();
            let gap = if width > 66 && !at.is_empty() { format!("\n{:10}", "") } else { "  ".to_owned() };
            writeln!(out, "  note    {}{gap}{at}", note.message)?;
        }
        Ok(())
    }

    fn print(&self, config: &Path, out: &mut impl Write) -> std::io::Result<()> {
        match &self.config {
            Err(mistakes) => writeln!(out, "{mistakes}")?,
            Ok(path) => writeln!(out, "config    {path:<36} ok")?,
        }
        if self.config.is_ok() {
            writeln!(out, "schemas   {} operations typed", self.schemas.0)?;
            for why in &self.schemas.1 {
                writeln!(out, "error[schema]: {why}")?;
            }
        }
        if let Some(loaded) = &self.policies {
            let plural = if loaded.files() == 1 { "" } else { "s" };
            let what = format!("{} in {} file{plural}", loaded.policies().len(), loaded.files());
            let digest: String = loaded.digest().to_string().trim_start_matches("sha256:").chars().take(8).collect();
            writeln!(out, "policies  {what:<36} ok   digest {digest}…")?;
            writeln!(out, "  tiers   {}", loaded.counts())?;
        }
        self.print_notes(out)?;
        if !self.shadows.is_empty() {
            let plural = if self.shadows.len() == 1 { "policy" } else { "policies" };
            writeln!(out, "shadow    {} {plural} in shadow: {}", self.shadows.len(), self.shadows.join(", "))?;
        }
        if let Some(proofs) = &self.proofs {
            let broken = proofs.findings.iter().filter(|f| f.severity == Severity::Error).count();
            let claims = format!("{} of {} claims hold", proofs.hold.len(), proofs.hold.len() + broken);
            writeln!(out, "proofs    {} of {} policies never err, {claims}", proofs.never_err, proofs.policies)?;
            proofs.hold.iter().try_for_each(|id| writeln!(out, "  holds   {id}"))?;
        }
        for finding in self.findings.iter().filter(|f| f.severity != Severity::Note) {
            writeln!(out, "{finding}")?;
        }
        let (errors, warnings) = (self.errors(), self.count(Severity::Warning));
        let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        let verdict = if errors == 0 { "ok       " } else { "rejected " };
        writeln!(out, "{verdict} {}, {}", plural(errors, "error"), plural(warnings, "warning"))?;
        if errors > 0 && self.config.is_err() {
            writeln!(out, "          fix {} and run `holdpoint check` again", config.display())?;
        }
        Ok(())
    }
}
