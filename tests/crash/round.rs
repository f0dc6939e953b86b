//! One directory: killed again and again, then ended in order and verified.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use holdpoint::audit;
use serde_json::json;

use crate::chance::Chance;
use crate::client::World;
use crate::load::{Focus, Load};
use crate::plan::{Plan, Target, Totals, When};
use crate::site::{Ended, Policies, Process, Site, kept};
use crate::verify::{History, Line, verify};

/// Deaths of one directory.
const DEATHS: usize = 15;
const STEPS: usize = 16;

pub struct Directory<'a> {
    plan: &'a Plan,
    seed: u64,
    site: Site,
    world: World,
    chance: Chance,
    tampered: bool,
    /// Epochs of processes with retention.
    forgetful: Vec<u64>,
    /// How many requests had no answer, all rounds together.
    unanswered: usize,
}

impl<'a> Directory<'a> {
    pub async fn new(plan: &'a Plan, seed: u64) -> Self {
        let site = Site::new(seed).await;
        let chance = Chance::new(seed);
        Self {
            plan,
            seed,
            site,
            world: World::default(),
            chance,
            tampered: false,
            forgetful: Vec::new(),
            unanswered: 0,
        }
    }

    /// All of it; what is found goes to the plan.
    pub async fn run(mut self) {
        for round in 0..DEATHS {
            let Some(target) = self.plan.next(round) else { break };
            if let Err(why) = self.round(round, target).await {
                self.plan.found(format!("{why} (directory {} of seed {})", kept(&self.site.state()), self.plan.seed));
                std::mem::forget(self.site.dir);
                return;
            }
        }
        self.end().await;
    }

    fn load<'b>(&'b self, process: &'b Process, focus: Focus, round: usize) -> Load<'b> {
        // Segments have to grow old while somebody looks.
        let steps = if focus == Focus::Brief { STEPS * 9 } else { STEPS };
        Load { world: &self.world, process, upstream: &self.site.upstream, focus, round, steps }
    }

    fn prepare(&mut self, target: &Target) {
        let policies = match target.point.split('.').next().unwrap_or_default() {
            "renew" | "renewed" => Policies::Stricter,
            "revoke" | "revoked" => Policies::Forbidding,
            _ if self.chance.percent(6) => Policies::Stricter,
            _ => Policies::Usual,
        };
        self.site.policies(policies);
        if target.point == "open.aside" {
            self.site.damage_index();
            self.tampered = true;
        }
    }

    /// Starts it, loads it, sees it die.
    async fn round(&mut self, round: usize, target: Target) -> Result<(), String> {
        self.prepare(&target);
        let when = target.when();
        let inside = (when != When::Upstream).then(|| target.setting());
        let forgets = target.point.starts_with("shorten.");
        let rotates = target.point.starts_with("rotate.") || target.point.starts_with("index.sync");
        self.site.upstream.calm(forgets);
        let process = match self.site.start(inside.as_deref(), (forgets, rotates)).await {
            Ok(process) => process,
            Err(Ended { killed: true, .. }) => {
                self.site.keep();
                let open = self.world.asks.lock().unwrap().iter().any(|a| !a.answered && a.method == "POST");
                self.plan.reached(&target, open);
                self.site.upstream.quiet().await;
                return Ok(());
            }
            Err(Ended { log, .. }) => return Err(format!("I22: it does not start any more: {log}")),
        };
        if when == When::Upstream {
            self.site.upstream.arm(target.point, target.times, process.killer());
        }
        if forgets {
            self.forgetful.push(process.epoch);
        }
        let mut chance = self.chance.fork();
        let stops = when == When::Stop;
        let half = || {
            if stops {
                process.terminate()
            }
        };
        let load = self.load(&process, Focus::of(target.point, target.times), round).run(&mut chance, half);
        tokio::select! {
            () = load => {}
            () = self.watch(forgets) => {}
        }
        let alive = !process.is_over();
        if alive && !stops {
            process.killer()();
        }
        let killed = process.ended().await;
        self.site.keep();
        self.site.upstream.disarm();
        self.site.upstream.quiet().await;
        let unanswered = self.world.unanswered.load(SeqCst);
        let in_flight = unanswered > self.unanswered;
        self.unanswered = unanswered;
        if killed && (stops || !alive) {
            self.plan.reached(&target, in_flight);
        } else if alive || stops {
            self.plan.missed(target);
        } else {
            return Err(format!("I22: it ended by itself: {}", process.log()));
        }
        Ok(())
    }

    /// Keeps segments before retention takes them; without it there is nothing to do. The process under test does not say
    /// when it takes one, so this looks often.
    async fn watch(&self, forgets: bool) {
        if !forgets {
            std::future::pending::<()>().await;
        }
        loop {
            self.site.keep();
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }

    /// No more faults: all that is open is asked once more, then it ends in order.
    async fn end(mut self) {
        self.site.policies(Policies::Usual);
        self.site.upstream.calm(false);
        let process = match self.site.start(None, (false, false)).await {
            Ok(process) => process,
            Err(ended) => {
                self.plan.found(format!(
                    "I22: it does not start at the end: {} ({})",
                    ended.log,
                    kept(&self.site.state())
                ));
                std::mem::forget(self.site.dir);
                return;
            }
        };
        let mut chance = self.chance.fork();
        self.load(&process, Focus::Retry, DEATHS).run(&mut chance, || ()).await;
        process.terminate();
        if process.ended().await {
            self.plan.found("I24: it did not end in order".to_owned());
        }
        self.site.upstream.quiet().await;
        self.site.keep();
        self.judge();
    }

    fn judge(self) {
        let history = self.history();
        let mut found = verify(&history);
        found.append(&mut self.world.strange.lock().unwrap());
        let totals = self.totals(&history);
        println!(
            "directory {}: {} calls, {} effects, {} violations",
            self.seed,
            totals.calls,
            totals.effects,
            found.len()
        );
        self.plan.add(totals);
        if found.is_empty() {
            return;
        }
        let dir = self.site.dir.keep();
        std::fs::write(dir.join("effects.txt"), format!("{:#?}", history.effects)).unwrap();
        std::fs::write(dir.join("told.txt"), format!("{:#?}", history.told)).unwrap();
        for what in found {
            let (plan, own) = (self.plan.seed, self.seed);
            self.plan.found(format!("{what} (seed {plan}, directory seed {own}, kept in {})", kept(&dir)));
        }
    }

    fn history(&self) -> History {
        let state = self.site.state();
        let first = audit::lines(&state, 0).unwrap().map_while(Result::ok).next().map_or(0, |l| l.seq);
        let lines = audit::lines(&self.site.archive(), 0).unwrap().map_while(Result::ok);
        // What later segments begin with repeats what is known, and is long.
        let repeats = json!({"type": "snapshot"});
        let line = |(i, l): (usize, audit::Line)| {
            let repeated = i > 0 && l.event.get().starts_with("{\"type\":\"snapshot\"");
            let event = || serde_json::from_str(l.event.get()).unwrap();
            Line { seq: l.seq, at: l.at, event: if repeated { repeats.clone() } else { event() } }
        };
        History {
            chain: audit::verify(&state).map(drop).map_err(|e| e.to_string()),
            lines: lines.enumerate().map(line).collect(),
            effects: self.site.upstream.effects(),
            told: self.world.told.lock().unwrap().clone(),
            upstream: self.site.upstream_url(),
            closed: true,
            linked: vec![("token|mia".to_owned(), "token|maya".to_owned())],
            tampered: self.tampered,
            first,
            forgetful: self.forgetful.clone(),
        }
    }

    fn totals(&self, history: &History) -> Totals {
        let first = history.first;
        let of_calls = history.lines.iter().filter(|l| matches!(l.event["type"].as_str(), Some("call" | "step")));
        let step = |name: &str| of_calls.clone().filter(|l| l.event["step"] == name).count() as u64;
        let to_unknown = |l: &&Line| {
            let changed = l.event.get("record").or_else(|| l.event.get("changed"));
            matches!(l.event["step"].as_str(), Some("died" | "concluded"))
                && changed.is_some_and(|c| c["state"] == "unknown")
        };
        let begun_at_once =
            of_calls.clone().filter(|l| l.event["step"] == "begun" && l.event["record"]["version"] == 1);
        Totals {
            directories: 1,
            requests: self.world.calls.load(SeqCst),
            calls: step("parked") + begun_at_once.count() as u64,
            effects: history.effects.len() as u64,
            unknown: of_calls.clone().filter(to_unknown).count() as u64,
            resent: step("begun_again"),
            read: step("found") + step("not_found"),
            settled: step("reconciled"),
            taken: first.saturating_sub(1),
            replays: self.world.replays.load(SeqCst),
            records: history.lines.len() as u64,
        }
    }
}
