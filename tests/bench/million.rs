//! Many recorded calls: how long a start takes after `kill -9`, how much memory the proxy holds, what retention frees.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::setup::World;
use crate::{load, measure, store};

fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|e| if e.path().is_dir() { size(&e.path()) } else { e.metadata().unwrap().len() }).sum()
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

pub(crate) fn run(count: u64) {
    let world = World::upstream();
    let home = world.dir.join("million");
    let state = home.join("state");
    let started = Instant::now();
    store::fill(&state, count, 40, |_, _| {});
    println!("{count} calls recorded in {:.0} s", started.elapsed().as_secs_f64());
    let sizes = || (mib(size(&state.join("journal"))), mib(size(&state.join("index"))));
    let before = sizes();
    println!("journal {} MiB, index {} MiB", before.0, before.1);
    let mut starts = Vec::new();
    let mut rss = Vec::new();
    for round in 0..4 {
        let began = Instant::now();
        let mut target = world.write_target(&home);
        let took = began.elapsed().as_secs_f64();
        let idle = target.process.as_ref().unwrap().rss_mib();
        let plan = load::Plan { connections: 64, rate: None, time: Duration::from_secs(4) };
        let loaded = measure(&target, plan);
        target.process.take().unwrap().kill();
        // The first one also brings the page cache and the index up; the others come after a kill -9 under load.
        println!(
            "  start {round}: {took:.2} s to serving; resident {idle:.0} MiB, {:.0} MiB after {} writes by 64 connections",
            loaded.rss_mib, loaded.requests
        );
        if round > 0 {
            starts.push(took);
            rss.push(loaded.rss_mib);
        }
    }
    let (took, done) = store::shorten(&state, 20, 30);
    let after = sizes();
    println!("retention (calls 20 d, audit 30 d of 40 d): {took:.1} s, {done:?}");
    println!("journal {} MiB, index {} MiB", after.0, after.1);
    let began = Instant::now();
    let verified = holdpoint::audit::verify_signed(&state, None, &[]).unwrap();
    println!("verified in {:.1} s: {}", began.elapsed().as_secs_f64(), verified.report);
    starts.sort_by(f64::total_cmp);
    rss.sort_by(f64::total_cmp);
    let result = json!({"calls": count, "start_s": starts, "rss_mib": rss, "journal_mib": [before.0, after.0],
        "index_mib": [before.1, after.1]});
    println!("{result}");
}
