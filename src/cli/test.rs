//! `holdpoint test`: the test files beside the policies, and what none of them has touched.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Exit;
use super::paint::{Paint, wrapped};
use super::set::{self, Which};
use crate::config::Config;
use crate::policy::Policy;
use crate::workbench::draft::draft;
use crate::workbench::suite::{self, Suite};
use crate::workbench::testing::{Coverage, Ended, Problem, Run};
use crate::workbench::{Bench, Case};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of policies and of the `*.test.yaml` files beside them; or one such file.
    dir: Option<PathBuf>,
    /// Print a test made of a recorded call (its id, or a suffix that only it has) instead: without what policies do
    /// not look at.
    #[arg(long, value_name = "CALL", conflicts_with_all = ["dir", "junit", "coverage", "json"])]
    from: Option<String>,
    /// Records elsewhere than the configuration says, for `--from`: a state folder, or a file of `audit export`.
    #[arg(long, value_name = "PATH", requires = "from")]
    log: Option<PathBuf>,
    #[command(flatten)]
    which: Which,
    /// Show for each policy at which rungs tests made it decide.
    #[arg(long)]
    coverage: bool,
    /// Write the results as JUnit XML, too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Everything that came out.
struct Report<'a> {
    suites: Vec<(PathBuf, Vec<Ended>)>,
    never: Vec<&'a str>,
    coverage: Vec<(&'a Policy, Coverage)>,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Exit> {
    let Some(config) = args.which.config() else { return Ok(Exit::Rejected) };
    if let Some(id) = &args.from {
        return drafted(args, &config, id, out);
    }
    let given = args.dir.clone().unwrap_or_else(|| args.which.dir(&config));
    let one = given.is_file();
    let files = if one { vec![given.clone()] } else { suite::files(&given)? };
    let folder = if one { args.which.dir(&config) } else { given.clone() };
    let policies = args.which.policies.clone().unwrap_or(folder);
    let Some(bench) = set::bench(&config, &policies) else { return Ok(Exit::Rejected) };
    if files.is_empty() {
        anyhow::bail!(
            "no `*.test.yaml` below `{}`; write one, or let `holdpoint test --from CALL` write it",
            given.display()
        );
    }
    let Some(suites) = read(&files) else { return Ok(Exit::Rejected) };
    let mut run = Run::default();
    let suites = suites.iter().map(|s| (s.path.clone(), run.suite(&bench, s))).collect();
    let report = Report { suites, never: run.never_tested(&bench), coverage: run.coverage(&bench) };
    if let Some(path) = &args.junit {
        std::fs::write(path, report.junit())?;
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report.json(&bench))?)?;
    } else {
        report.print(Paint::here(), args.coverage, out)?;
    }
    Ok(if report.failed() == 0 { Exit::Ok } else { Exit::Rejected })
}

/// The test that a recorded call makes.
fn drafted(args: &Args, config: &Config, id: &str, out: &mut impl Write) -> anyhow::Result<Exit> {
    let Some(bench) = set::bench(config, &args.which.dir(config)) else { return Ok(Exit::Rejected) };
    let recorded = set::recorded(config, args.log.as_deref(), id)?;
    let case = Case::recorded(&recorded, &bench.policies).map_err(|why| anyhow::anyhow!(why.to_string()))?;
    let text = draft(&bench, &recorded, &case).map_err(|e| anyhow::anyhow!(e))?;
    out.write_all(text.as_bytes())?;
    Ok(Exit::Ok)
}

/// Every file, or every mistake in them.
fn read(files: &[PathBuf]) -> Option<Vec<Suite>> {
    let mut whole = Vec::new();
    let mut wrong = false;
    for file in files {
        match Suite::read(file) {
            Ok(suite) => whole.push(suite),
            Err(mistakes) => {
                set::complain(mistakes.to_string().replace("error[config]", "error[test]"));
                wrong = true;
            }
        }
    }
    (!wrong).then_some(whole)
}

impl Report<'_> {
    fn ended(&self) -> impl Iterator<Item = &Ended> {
        self.suites.iter().flat_map(|(_, all)| all)
    }

    fn failed(&self) -> usize {
        self.ended().filter(|e| !e.problems.is_empty()).count()
    }

    fn print(&self, paint: Paint, coverage: bool, out: &mut impl Write) -> std::io::Result<()> {
        for (path, all) in &self.suites {
            writeln!(out, "{}", path.display())?;
            for test in grouped(all) {
                print_test(&test, path, paint, out)?;
            }
        }
        if coverage {
            self.print_coverage(paint, out)?;
        }
        if !self.never.is_empty() {
            let names: Vec<String> = self.never.iter().map(|n| (*n).to_owned()).collect();
            let mut lines = wrapped(&names, ",", 64).into_iter();
            writeln!(out, "{} {}", paint.warn("never tested:"), lines.next().unwrap_or_default())?;
            lines.try_for_each(|line| writeln!(out, "              {line}"))?;
        }
        for (policy, gap) in self.coverage.iter().filter_map(|(p, c)| c.gap(p).map(|gap| (p, gap))) {
            writeln!(out, "{} {}: {gap}", paint.warn("only one side:"), policy.id)?;
        }
        let (failed, all) = (self.failed(), self.ended().count());
        let verdict = format!("{} passed, {failed} failed", all - failed);
        let verdict = if failed == 0 { paint.good(&verdict) } else { paint.bad(&verdict) };
        match self.never.len() {
            0 => writeln!(out, "{verdict}"),
            1 => writeln!(out, "{verdict}, 1 policy without a test"),
            n => writeln!(out, "{verdict}, {n} policies without a test"),
        }
    }

    fn print_coverage(&self, paint: Paint, out: &mut impl Write) -> std::io::Result<()> {
        let head =
            format!("{:<32} {:>7}  {:>4} {:>6} {:>4}  {:>6}", "policy", "decided", "low", "medium", "high", "silent");
        writeln!(out, "{}", paint.dim(&head))?;
        for (policy, c) in &self.coverage {
            let [low, medium, high] = c.rungs;
            writeln!(out, "{:<32} {:>7}  {low:>4} {medium:>6} {high:>4}  {:>6}", policy.id, c.decided, c.silent)?;
        }
        Ok(())
    }

    fn json(&self, bench: &Bench) -> serde_json::Value {
        let problem = |p: &Problem| json!({"what": p.what, "wanted": p.wanted, "got": p.got, "hints": p.hints});
        let test = |e: &Ended| {
            let problems: Vec<_> = e.problems.iter().map(problem).collect();
            json!({"name": e.name, "line": e.line, "row": e.row.as_ref().map(|(n, _)| n), "ok": problems.is_empty(), "problems": problems})
        };
        let suites: Vec<_> = self
            .suites
            .iter()
            .map(|(path, all)| json!({"file": path.display().to_string(), "tests": all.iter().map(test).collect::<Vec<_>>()}))
            .collect();
        let coverage: Vec<_> = self
            .coverage
            .iter()
            .map(|(p, c)| json!({"policy": p.id, "decided": c.decided, "forbade": {"low": c.rungs[0], "medium": c.rungs[1], "high": c.rungs[2]}, "silent": c.silent}))
            .collect();
        json!({
            "version": 1, "ok": self.failed() == 0, "policy_digest": bench.policies.digest().to_string(),
            "passed": self.ended().count() - self.failed(), "failed": self.failed(),
            "suites": suites, "never_tested": self.never, "coverage": coverage,
        })
    }

    /// JUnit's XML, as CI systems read it.
    fn junit(&self) -> String {
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
        for (path, all) in &self.suites {
            let failures = all.iter().filter(|e| !e.problems.is_empty()).count();
            let file = escaped(&path.display().to_string());
            xml.push_str(&format!("  <testsuite name=\"{file}\" tests=\"{}\" failures=\"{failures}\">\n", all.len()));
            for e in all {
                let row = e.row.as_ref().map(|(n, text)| format!(" [{n}: {text}]")).unwrap_or_default();
                let name = escaped(&format!("{}{row}", e.name));
                xml.push_str(&format!("    <testcase classname=\"{file}\" name=\"{name}\""));
                if e.problems.is_empty() {
                    xml.push_str("/>\n");
                    continue;
                }
                let lines: Vec<String> = e.problems.iter().flat_map(lines_of).collect();
                let first = lines.first().map(|l| escaped(l)).unwrap_or_default();
                let text = escaped(&lines.join("\n"));
                xml.push_str(&format!(">\n      <failure message=\"{first}\">{text}</failure>\n    </testcase>\n"));
            }
            xml.push_str("  </testsuite>\n");
        }
        xml.push_str("</testsuites>\n");
        xml
    }
}

/// XML 1.0 takes no other control characters, escaped or not.
fn escaped(text: &str) -> String {
    let legal = |c: &char| !c.is_control() || *c == '\n' || *c == '\t';
    text.chars().filter(legal).fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
        out
    })
}

/// The rows of one table, or one test by itself.
fn grouped(all: &[Ended]) -> Vec<Vec<&Ended>> {
    let mut groups: Vec<Vec<&Ended>> = Vec::new();
    for e in all {
        match groups.last_mut() {
            Some(group) if e.row.is_some() && group.iter().all(|g| g.row.is_some() && g.line == e.line) => {
                group.push(e)
            }
            _ => groups.push(vec![e]),
        }
    }
    groups
}

fn print_test(rows: &[&Ended], path: &Path, paint: Paint, out: &mut impl Write) -> std::io::Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    let failed = rows.iter().filter(|e| !e.problems.is_empty()).count();
    let word = if failed == 0 { paint.good("ok  ") } else { paint.bad("FAIL") };
    let count = if first.row.is_some() { format!(" ({} rows)", rows.len()) } else { String::new() };
    writeln!(out, "  {word}  {}{count}", first.name)?;
    for e in rows.iter().filter(|e| !e.problems.is_empty()) {
        if let Some((number, text)) = &e.row {
            writeln!(out, "          row {number}: {text}")?;
        }
        for line in e.problems.iter().flat_map(lines_of) {
            writeln!(out, "          {line}")?;
        }
    }
    if failed > 0 {
        writeln!(out, "          {}", paint.dim(&format!("{}:{}", path.display(), first.line)))?;
    }
    Ok(())
}

fn lines_of(p: &Problem) -> Vec<String> {
    let mut lines = vec![format!("{:<13} wanted {}", p.what, p.wanted), format!("{:<13} got    {}", "", p.got)];
    lines.extend(p.hints.iter().map(|h| format!("  {h}")));
    lines
}
