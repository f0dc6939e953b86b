//! What `holdpoint init` says it did.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::check;
use crate::init::{At, File, Guess, Remarks, Tool};
use crate::policy::Severity;
use crate::workbench::check::Report;

/// Names that a note shows; what was left out is always named in full.
const SHOWN: usize = 3;

pub(super) struct Summary<'a> {
    pub(super) dir: &'a Path,
    pub(super) tools: &'a [Tool],
    pub(super) files: &'a [File],
    pub(super) report: &'a Report,
}

impl Summary<'_> {
    pub(super) fn print(&self, as_json: bool, out: &mut impl Write) -> io::Result<()> {
        if as_json {
            return writeln!(out, "{}", serde_json::to_string_pretty(&self.json())?);
        }
        for tool in self.tools {
            one(tool, out)?;
        }
        let bytes: usize = self.files.iter().map(|f| f.text.len()).sum();
        let dir = self.dir.display().to_string();
        writeln!(out, "written   {dir:<36} {} files, {} KiB", self.files.len(), bytes.div_ceil(1024))?;
        self.checked(out)?;
        self.next(out)
    }

    fn checked(&self, out: &mut impl Write) -> io::Result<()> {
        let report = self.report;
        report.mistakes.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        for why in &report.schemas.1 {
            writeln!(out, "error[schema]: {why}")?;
        }
        for finding in report.findings.iter().filter(|f| f.severity == Severity::Error) {
            writeln!(out, "{finding}")?;
        }
        let warnings = report.count(Severity::Warning);
        let verdict = if report.errors() == 0 { "ok" } else { "rejected" };
        let errors = report.errors();
        writeln!(out, "check     {verdict:<36} {errors} errors, {warnings} warnings (`holdpoint check` shows them)")
    }

    fn next(&self, out: &mut impl Write) -> io::Result<()> {
        let config = self.dir.join("holdpoint.yaml");
        let config = config.display();
        let dir = self.dir.display();
        writeln!(out, "next      1. look at every `# guessed` in {config}")?;
        writeln!(out, "          2. holdpoint check --config {config}")?;
        writeln!(out, "          3. holdpoint test {dir}/policies --config {config}")?;
        writeln!(out, "          4. holdpoint serve --config {config}")?;
        writeln!(out, "             agents send the key in {dir}/secrets/first-agent; you sign in with")?;
        writeln!(out, "             {dir}/secrets/first-reviewer at http://127.0.0.1:8701")?;
        writeln!(out, "          5. it observes: no policy stops a call until `policies.mode` is `enforce`")
    }

    fn json(&self) -> Value {
        let remarks = |r: &Remarks| -> Vec<Value> {
            r.0.iter().map(|(what, who)| json!({"what": what, "operations": who})).collect()
        };
        let tool = |t: &Tool| {
            json!({"name": t.name, "kind": kind(t), "upstream": upstream(t), "operations": t.operations.len(),
                   "guessed": counts(t).into_iter().map(|(g, n)| (g.word(), n)).collect::<BTreeMap<_, _>>(),
                   "typed": typed(t), "left_out": remarks(&t.left_out), "notes": remarks(&t.notes)})
        };
        let files: Vec<String> = self.files.iter().map(|f| f.path.display().to_string()).collect();
        json!({"version": 1, "ok": self.report.errors() == 0, "dir": self.dir, "files": files,
               "tools": self.tools.iter().map(tool).collect::<Vec<_>>(), "check": check::to_json(self.report, None)})
    }
}

fn kind(t: &Tool) -> &'static str {
    if t.lock.is_some() { "mcp" } else { "rest" }
}

fn upstream(t: &Tool) -> String {
    match &t.at {
        At::Url(url) => url.clone(),
        At::Command(command) => command.join(" "),
    }
}

/// Operations whose arguments are checked name by name.
fn typed(t: &Tool) -> usize {
    let open = |s: &Value| s.get("additionalProperties") == Some(&Value::Bool(true));
    t.operations.iter().filter(|o| o.schema.as_ref().is_some_and(|s| !open(s))).count()
}

fn counts(t: &Tool) -> Vec<(Guess, usize)> {
    let count = |g: Guess| t.operations.iter().filter(|o| o.effect == g).count();
    Guess::ALL.into_iter().map(|g| (g, count(g))).collect()
}

fn one(t: &Tool, out: &mut impl Write) -> io::Result<()> {
    let what = format!("{}, {} operations", kind(t), t.operations.len());
    writeln!(out, "{:<9} {what:<36} {}", t.name, upstream(t))?;
    let guessed: Vec<String> = counts(t).into_iter().map(|(g, n)| format!("{} {n}", g.word())).collect();
    writeln!(out, "  guessed {}", guessed.join(" · "))?;
    writeln!(out, "  schemas {} operations typed", typed(t))?;
    for (what, who) in &t.left_out.0 {
        writeln!(out, "  left out {what}: {}", who.join(", "))?;
    }
    for (what, who) in &t.notes.0 {
        let more = who.len().saturating_sub(SHOWN);
        let shown = who.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        writeln!(out, "  note    {what}: {shown}{more}")?;
    }
    Ok(())
}
