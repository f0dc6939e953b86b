//! `holdpoint replay`: recorded calls asked again under other policies.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context;

use super::Exit;
use super::paint::Paint;
use super::set;
use crate::app;
use crate::call::{Judgement, Timestamp, visible};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, duration};
use crate::workbench::Bench;
use crate::workbench::history::{self, History, Limits, Recorded};
use crate::workbench::replay::{Load, Moved, Replay, replay, was_refused};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The other policies.
    #[arg(long, value_name = "DIR")]
    policies: PathBuf,
    /// How far back: `12h`, `7d`. All records by default.
    #[arg(long, value_parser = duration)]
    since: Option<Duration>,
    /// The configuration; its policies are those in force.
    #[arg(long, default_value = "holdpoint.yaml", value_name = "FILE")]
    config: PathBuf,
    /// Records elsewhere than the configuration says: a state folder, or a file of `holdpoint audit export`.
    #[arg(long, value_name = "PATH")]
    log: Option<PathBuf>,
    /// How many calls to show that become easier.
    #[arg(long, default_value_t = 10)]
    show: usize,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// What is printed.
struct Report<'a> {
    history: &'a History,
    result: Replay,
    show: usize,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Exit> {
    let config = match app::load(&args.config) {
        Ok(config) => config,
        Err(mistakes) => {
            set::complain(mistakes);
            return Ok(Exit::Rejected);
        }
    };
    let Some(now) = set::bench(&config, &config.policy_dir) else { return Ok(Exit::Rejected) };
    let Some(next) = set::bench(&config, &args.policies) else { return Ok(Exit::Rejected) };
    let history = args.history(&config)?;
    let report = Report { history: &history, result: asked(&history, &now, &next), show: args.show };
    if args.json {
        writeln!(
            out,
            "{}",
            serde_json::to_string_pretty(&report.result.json(&history.calls, [&now, &next], usize::MAX))?
        )?;
    } else {
        report.print(Paint::here(), out)?;
    }
    Ok(if report.result.moved.is_empty() { Exit::Ok } else { Exit::Differs })
}

/// Replays with a count on a terminal.
fn asked(history: &History, now: &Bench, next: &Bench) -> Replay {
    let (all, done) = (history.calls.len(), AtomicUsize::new(0));
    let shown = std::io::stderr().is_terminal();
    let progress = |n: usize| {
        let done = done.fetch_add(n, Relaxed) + n;
        if shown && (done.is_multiple_of(1000) || done == all) {
            let bar = "█".repeat(done * 30 / all.max(1));
            drop(write!(std::io::stderr(), "\r{bar:░<30} {} of {}", grouped(done), grouped(all)));
        }
        true
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let result = replay(&history.calls, [now, next], threads, &progress).unwrap_or_default();
    if shown {
        drop(write!(std::io::stderr(), "\r{:60}\r", ""));
    }
    result
}

impl Args {
    fn history(&self, config: &Config) -> anyhow::Result<History> {
        let path = self.log.clone().unwrap_or_else(|| history::folder(config).to_owned());
        let since = self.since.map_or(Timestamp::from_millis(0), |d| SystemClock.now().minus(d));
        let history = history::read(&path, since, Limits::NONE);
        let history = history.with_context(|| format!("the records in `{}` cannot be read", path.display()))?;
        if history.calls.is_empty() {
            anyhow::bail!("`{}` records no call of which policy was asked in that time", path.display());
        }
        Ok(history)
    }
}

/// `18204` as `18,204`.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let head = digits.len() % 3;
    let (first, rest) = digits.split_at(head);
    let mut parts: Vec<&str> = if first.is_empty() { Vec::new() } else { vec![first] };
    parts.extend(rest.as_bytes().chunks(3).filter_map(|c| std::str::from_utf8(c).ok()));
    parts.join(",")
}

impl Report<'_> {
    fn print(&self, paint: Paint, out: &mut impl Write) -> std::io::Result<()> {
        let r = &self.result;
        writeln!(out, "{} calls replayed in {:.1} s      now → next", grouped(r.asked), r.seconds)?;
        for (now, next, by, n) in r.kinds() {
            let by = if by.is_empty() { "no policy permits it".to_owned() } else { by.join(", ") };
            let note = if next < now { paint.warn("   loosens") } else { String::new() };
            writeln!(out, "  {:<6} → {:<6} {:>9}   {by}{note}", now.as_str(), next.as_str(), grouped(n))?;
        }
        writeln!(out, "  {:<15} {:>9}", "unchanged", grouped(r.unchanged))?;
        self.print_load(out)?;
        self.print_loosened(paint, out)?;
        self.print_honesty(paint, out)
    }

    fn print_load(&self, out: &mut impl Write) -> std::io::Result<()> {
        let r = &self.result;
        writeln!(out, "reviews a day   {} → {}", rounded(r.reviews.0), rounded(r.reviews.1))?;
        let groups: BTreeSet<&String> = r.load.0.keys().chain(r.load.1.keys()).collect();
        for group in groups {
            let of = |load: &Load| rounded(load.get(group).copied().unwrap_or_default());
            writeln!(out, "  {group:<24} {} → {}", of(&r.load.0), of(&r.load.1))?;
        }
        Ok(())
    }

    fn print_loosened(&self, paint: Paint, out: &mut impl Write) -> std::io::Result<()> {
        let loosened: Vec<&Moved> = self.result.moved.iter().filter(|m| m.loosens()).collect();
        if loosened.is_empty() {
            return Ok(());
        }
        writeln!(out, "loosened, look at these first:")?;
        for (call, moved) in loosened.iter().take(self.show).filter_map(|m| Some((self.call(m)?, *m))) {
            let (was, mark) =
                (was(call), if alarming(call, moved) { paint.bad("  ◄ would now run") } else { String::new() });
            writeln!(out, "  {}  {} → {}", call.id, moved.now.as_str(), moved.next.as_str())?;
            writeln!(out, "      {}  {was}{mark}", name(call))?;
        }
        let more = loosened.len().saturating_sub(self.show);
        if more > 0 {
            writeln!(out, "  … and {} more (--show N)", grouped(more))?;
        }
        Ok(())
    }

    /// What the figures do not stand on.
    fn print_honesty(&self, paint: Paint, out: &mut impl Write) -> std::io::Result<()> {
        let r = &self.result;
        for (why, n) in &r.unasked {
            writeln!(out, "{} {} calls: {}", paint.warn("not asked:"), grouped(*n), why)?;
        }
        if r.without_facts > 0 {
            let n = grouped(r.without_facts);
            writeln!(
                out,
                "{} {n} calls without what was known then: budgets and history taken as nothing",
                paint.warn("facts:")
            )?;
        }
        if r.drifted > 0 {
            let n = grouped(r.drifted);
            writeln!(
                out,
                "{} {n} calls were judged otherwise then than the policies in force judge them now",
                paint.dim("since then:")
            )?;
        }
        if self.history.torn {
            writeln!(out, "{} the newest records were just being written and are left out", paint.dim("journal:"))?;
        }
        Ok(())
    }

    fn call(&self, moved: &Moved) -> Option<&Recorded> {
        self.history.calls.get(moved.call)
    }
}

/// What people, or nobody, had let run, and runs by itself now.
fn alarming(call: &Recorded, moved: &Moved) -> bool {
    moved.next == Judgement::Low && was_refused(&call.state)
}

fn was(call: &Recorded) -> String {
    let note = visible(&call.note);
    if note.is_empty() { format!("({})", call.state) } else { format!("({}: {note})", call.state) }
}

fn name(call: &Recorded) -> String {
    visible(if call.title.is_empty() { &call.operation } else { &call.title })
}

fn rounded(n: f64) -> String {
    if n < 10.0 { format!("{n:.1}") } else { format!("{n:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_in_threes() {
        assert_eq!([0, 12, 123, 1234, 1_234_567].map(grouped), ["0", "12", "123", "1,234", "1,234,567"]);
    }
}
