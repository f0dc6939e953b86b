//! Which points, how often, in which order: all from one seed. And what was reached.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Instant;

use holdpoint::failpoint;

use crate::chance::Chance;
use crate::ledger::STAGES;

/// Where to die next, and at which pass.
#[derive(Debug, Clone)]
pub struct Target {
    pub point: &'static str,
    pub times: u64,
    tries: u32,
}

/// Points at which whoever does not wait for the disk has told too early.
const LINGER: [&str; 2] = ["write.before", "write.torn"];

/// When in the life of a process a point is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Start,
    Load,
    Upstream,
    Stop,
}

impl Target {
    /// For `HOLDPOINT_FAILPOINT`. The journal's thread stands still for a while before it dies: whatever is told meanwhile
    /// without waiting for the disk is then lost.
    pub fn setting(&self) -> String {
        let lingers = self.point.starts_with("rotate.") || LINGER.contains(&self.point);
        format!("{}:{}:{}", self.point, self.times, if lingers { 40 } else { 0 })
    }

    pub fn when(&self) -> When {
        match self.point.split('.').next().unwrap_or_default() {
            "open" | "recover" | "serve" | "died" => When::Start,
            "upstream" => When::Upstream,
            "stop" | "close" => When::Stop,
            _ => When::Load,
        }
    }
}

/// What became of the visits to one point.
#[derive(Debug, Default, Clone, Copy)]
pub struct Reached {
    pub kills: u64,
    /// With requests that were never answered; at a start: with calls that still wait for their answer.
    pub in_flight: u64,
    pub missed: u64,
}

#[derive(Debug)]
pub struct Plan {
    pub seed: u64,
    /// Nothing new is begun after it.
    end: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    chance: Chance,
    queue: VecDeque<Target>,
    left: u64,
    reached: BTreeMap<&'static str, Reached>,
    totals: Totals,
    violations: Vec<String>,
}

/// Sums over all directories.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    pub directories: u64,
    pub requests: u64,
    pub calls: u64,
    pub effects: u64,
    pub unknown: u64,
    pub replays: u64,
    /// Attempts after the first one.
    pub resent: u64,
    /// Unknown calls that a read settled, and that two people did.
    pub read: u64,
    pub settled: u64,
    /// Records that retention took.
    pub taken: u64,
    pub records: u64,
}

/// All points, those inside the process and those at the upstream; `HOLDPOINT_CRASH_ONLY` takes those that begin so.
pub fn points() -> Vec<&'static str> {
    let only = std::env::var("HOLDPOINT_CRASH_ONLY").unwrap_or_default();
    failpoint::ALL.iter().copied().chain(STAGES).filter(|p| p.starts_with(&only)).collect()
}

impl Plan {
    pub fn new(seed: u64, kills: u64, end: Instant) -> Self {
        let state = State {
            chance: Chance::new(seed),
            queue: VecDeque::new(),
            left: kills,
            reached: points().into_iter().map(|p| (p, Reached::default())).collect(),
            totals: Totals::default(),
            violations: Vec::new(),
        };
        Self { seed, end, state: Mutex::new(state) }
    }

    /// The seed of the next directory, while there is anything left to do.
    pub fn directory(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap();
        (state.left > 0 && Instant::now() < self.end).then(|| state.chance.next())
    }

    /// What comes next for a directory that died `round` times before. Retention comes first in its directory: what is
    /// left open by others would keep every segment.
    pub fn next(&self, round: usize) -> Option<Target> {
        let mut state = self.state.lock().unwrap();
        if Instant::now() >= self.end {
            return None;
        }
        // Given back when nobody dies.
        state.left = state.left.checked_sub(1)?;
        if state.queue.is_empty() {
            let mut all = points();
            // Where an acknowledgement that came too early shows.
            all.extend(points().into_iter().filter(|p| LINGER.contains(p)));
            state.chance.shuffle(&mut all);
            for point in all {
                let times = 1 + state.chance.below(often(point));
                state.queue.push_back(Target { point, times, tries: 0 });
            }
        }
        let early = |t: &Target| t.point.starts_with("shorten.") == (round == 0);
        let at = state.queue.iter().position(early).unwrap_or(0);
        state.queue.remove(at)
    }

    pub fn reached(&self, target: &Target, in_flight: bool) {
        let mut state = self.state.lock().unwrap();
        let reached = state.reached.entry(target.point).or_default();
        reached.kills += 1;
        reached.in_flight += u64::from(in_flight);
    }

    /// It was not passed so often: again, at its first pass, and a few times at most.
    pub fn missed(&self, target: Target) {
        let mut state = self.state.lock().unwrap();
        state.reached.entry(target.point).or_default().missed += 1;
        state.left += 1;
        if target.tries < 3 {
            // Not at once: some points need what other rounds leave behind.
            let at = state.queue.len().min(2);
            state.queue.insert(at, Target { times: 1, tries: target.tries + 1, ..target });
        }
    }

    pub fn found(&self, violation: String) {
        self.state.lock().unwrap().violations.push(violation);
    }

    pub fn add(&self, t: Totals) {
        let mut state = self.state.lock().unwrap();
        let sum = &mut state.totals;
        sum.directories += 1;
        sum.requests += t.requests;
        sum.calls += t.calls;
        sum.effects += t.effects;
        sum.unknown += t.unknown;
        sum.replays += t.replays;
        sum.resent += t.resent;
        sum.read += t.read;
        sum.settled += t.settled;
        sum.taken += t.taken;
        sum.records += t.records;
    }

    /// The table, and what was found.
    pub fn report(&self) -> (String, Vec<String>) {
        let state = self.state.lock().unwrap();
        let mut lines = vec![format!("{:24}{:>7}{:>12}{:>9}", "point", "kills", "in flight", "missed")];
        for (point, r) in &state.reached {
            lines.push(format!("{point:24}{:>7}{:>12}{:>9}", r.kills, r.in_flight, r.missed));
        }
        let kills: u64 = state.reached.values().map(|r| r.kills).sum();
        let hit = state.reached.values().filter(|r| r.kills > 0).count();
        let least = state.reached.values().map(|r| r.kills).min().unwrap_or(0);
        lines.push(format!("{kills} deaths at {hit} of {} points, the rarest {least} times", state.reached.len()));
        let t = state.totals;
        lines.push(format!(
            "{} directories, {} requests, {} records ({} taken by retention), {} calls, {} effects, {} unknown, {} sent \
             again, {} settled by a read, {} by people, {} replays, {} violations",
            t.directories,
            t.requests,
            t.records,
            t.taken,
            t.calls,
            t.effects,
            t.unknown,
            t.resent,
            t.read,
            t.settled,
            t.replays,
            state.violations.len()
        ));
        (lines.join("\n"), state.violations.clone())
    }
}

/// How often a point is passed in one round, roughly.
fn often(point: &str) -> u64 {
    match point.split('.').next().unwrap_or_default() {
        "write" | "sync" | "wake" | "index" if !point.starts_with("index.sync") => 40,
        "send" | "begin" | "begun" | "conclude" | "concluded" | "upstream" => 15,
        "note" | "collected" => 8,
        "again" | "begun_again" | "sign" => 3,
        "read" | "found" => 2,
        "tell" => 60,
        "park" | "parked" | "vote" | "voted" | "approved" | "resume" | "attach" | "attached" | "artifact" => 4,
        "died" => 2,
        _ => 1,
    }
}
