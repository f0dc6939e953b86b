//! What Holdpoint costs, as ratios taken side by side in one run: `cargo bench --bench bench [-- --full] [-- --json FILE]`;
//! `-- store` the store alone, `-- review [N]` what approvers wait for with so many holds pending, `-- million [N]` a start, memory and retention with so many calls recorded.
//!
//! Every server under test runs alone on core 0; the upstream and the load stand on core 1. Rounds are interleaved and
//! shuffled; the table shows medians with the lowest and highest round. Only ratios mean anything on another machine.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a measuring tool: it stops where it cannot measure"
)]

mod load;
mod million;
mod raw;
mod replay;
mod review;
mod setup;
mod store;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use load::{Plan, Round};
use setup::{Process, Target};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Args {
    full: bool,
    json: Option<String>,
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    match args.next().as_deref() {
        Some("upstream") => load::upstream(&args.next().unwrap()),
        Some("load") => load::child(&args.collect::<Vec<_>>()),
        Some("million") => million::run(args.next().map_or(1_000_000, |n| n.parse().unwrap())),
        Some("review") => drop(review::run(args.next().map_or(1_000, |n| n.parse().unwrap()))),
        Some("reviewing") => review::child(args.next().unwrap().parse().unwrap()),
        Some("replay") => replay::run(args.next().map_or(100_000, |n| n.parse().unwrap())),
        Some("store") => {
            let clients = args.next().map_or(vec![1, 64], |n| vec![n.parse().unwrap()]);
            store_alone(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")), &clients, 3, 3);
        }
        first => {
            let all: Vec<String> = first.map(str::to_owned).into_iter().chain(args).collect();
            let json = all.iter().position(|a| a == "--json").and_then(|i| all.get(i + 1)).cloned();
            bench(&Args { full: all.iter().any(|a| a == "--full"), json });
        }
    }
}

fn bench(args: &Args) {
    let (rounds, seconds) = if args.full { (7, 5) } else { (3, 2) };
    let world = setup::World::start();
    let mut results: BTreeMap<String, Vec<Round>> = BTreeMap::new();
    let saturated: Vec<&Target> = world.targets.iter().filter(|t| !t.durable).collect();
    println!("saturated, 64 connections, {rounds} rounds of {seconds} s, shuffled");
    for round in 0..rounds {
        for target in shuffled(&saturated, round) {
            let plan = Plan { connections: 64, rate: None, time: Duration::from_secs(seconds) };
            results.entry(target.name.clone()).or_default().push(measure(target, plan));
        }
    }
    table(&results, "nginx");
    inspection(&results);
    println!("\nat 3,000 requests a second (latency from the intended time of sending)");
    let mut paced: BTreeMap<String, Vec<Round>> = BTreeMap::new();
    for round in 0..rounds {
        for target in shuffled(&saturated, round + 100) {
            let plan = Plan { connections: 64, rate: Some(3_000), time: Duration::from_secs(seconds) };
            paced.entry(target.name.clone()).or_default().push(measure(target, plan));
        }
    }
    table(&paced, "nginx");
    println!("\ndurable calls over HTTP (two records each), beside a raw journal that writes two records of 1 KiB");
    let durable = durable(&world, rounds, seconds);
    let store = store_alone(&world.dir, &[1, 64], rounds, seconds);
    let review = review::run(1_000);
    if let Some(path) = &args.json {
        let all = json!({"review": review, "saturated": summary(&results), "paced": summary(&paced), "durable": durable, "store": store});
        std::fs::write(path, serde_json::to_string_pretty(&all).unwrap()).unwrap();
    }
}

fn measure(target: &Target, plan: Plan) -> Round {
    let before = target.process.as_ref().map(Process::cpu);
    let mut round = load::run(target, plan);
    if let (Some(before), Some(process)) = (before, &target.process) {
        round.cpu_us = (process.cpu() - before).as_secs_f64() * 1e6 / round.requests.max(1) as f64;
        round.rss_mib = process.rss_mib();
    }
    assert!(round.errors == 0, "{}: {} errors, first: {}", target.name, round.errors, round.first_error);
    round
}

fn durable(world: &setup::World, rounds: usize, seconds: u64) -> serde_json::Value {
    let target = world.targets.iter().find(|t| t.durable).unwrap();
    let mut out = serde_json::Map::new();
    for connections in [1usize, 64] {
        let (mut ours, mut rawly, mut p50, mut raw_p50) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let plan = Plan { connections, rate: None, time: Duration::from_secs(seconds) };
            let round = measure(target, plan);
            ours.push(round.per_second());
            p50.push(round.p50_us);
            let (per_second, latency) = raw::journal(&world.dir, connections, Duration::from_secs(seconds), 1024);
            rawly.push(per_second);
            raw_p50.push(latency);
        }
        let (a, b, c, d) = (median(&mut ours), median(&mut rawly), median(&mut p50), median(&mut raw_p50));
        println!(
            "  {connections:>2} clients   {a:>8.0} calls/s   raw {b:>8.0}/s   ratio {:.2}   p50 {c:>7.0} µs   raw {d:>7.0} µs   ratio {:.2}",
            a / b,
            c / d
        );
        out.insert(
            format!("{connections}"),
            json!({"per_s": a, "raw_per_s": b, "ratio": a / b, "p50_us": c, "raw_p50_us": d, "p50_ratio": c / d}),
        );
    }
    out.into()
}

/// The store's two durable steps of a call, beside a raw journal that writes records of the same sizes.
fn store_alone(dir: &std::path::Path, clients: &[usize], rounds: usize, seconds: u64) -> serde_json::Value {
    println!("\nthe store alone (begin and conclude), beside a raw journal that writes records of the same sizes");
    let time = Duration::from_secs(seconds);
    let mut out = serde_json::Map::new();
    for &clients in clients {
        let (mut ratios, mut p50s) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let start = setup::own_cpu();
            let ours = store::run(dir, clients, time);
            let middle = setup::own_cpu();
            let (per_second, p50) = raw::journal(dir, clients, time, (ours.bytes_per_call / 2.0) as usize);
            let per_call = |cpu: Duration, per_second: f64| cpu.as_secs_f64() * 1e6 / (per_second * time.as_secs_f64());
            let raw_cpu = per_call(setup::own_cpu() - middle, per_second);
            println!(
                "  {clients:>2} clients   {:>8.0} calls/s   raw {per_second:>8.0}/s   p50 {:>6.0} µs   raw {p50:>6.0} µs   CPU {:>4.0} µs   raw {raw_cpu:>4.0} µs   {:>5.0} bytes of journal a call   {:.1} records per fdatasync",
                ours.per_second,
                ours.p50_us,
                per_call(middle - start, ours.per_second),
                ours.bytes_per_call,
                ours.frames_per_sync
            );
            ratios.push(ours.per_second / per_second);
            p50s.push(ours.p50_us / p50);
        }
        let (ratio, p50) = (median(&mut ratios), median(&mut p50s));
        println!("  {clients:>2} clients   median ratio {ratio:.2}   p50 ratio {p50:.2}");
        out.insert(format!("{clients}"), json!({"ratio": ratio, "p50_ratio": p50}));
    }
    out.into()
}

fn table(results: &BTreeMap<String, Vec<Round>>, base: &str) {
    let cpu = |name: &str| results.get(name).map(|r| median(&mut r.iter().map(|r| r.cpu_us).collect::<Vec<_>>()));
    let p99 = |name: &str| results.get(name).map(|r| median(&mut r.iter().map(|r| r.p99_us).collect::<Vec<_>>()));
    let (base_cpu, base_p99) = (cpu(base).unwrap_or(1.0), p99(base).unwrap_or(1.0));
    println!(
        "  {:<26} {:>9} {:>22} {:>8} {:>9} {:>9} {:>8} {:>8}",
        "", "req/s", "CPU µs/req (low–high)", "×nginx", "p50 µs", "p99 µs", "×nginx", "RSS MiB"
    );
    for (name, rounds) in results {
        let mut cpus: Vec<f64> = rounds.iter().map(|r| r.cpu_us).collect();
        let rate = median(&mut rounds.iter().map(Round::per_second).collect::<Vec<_>>());
        let p50 = median(&mut rounds.iter().map(|r| r.p50_us).collect::<Vec<_>>());
        let p99 = median(&mut rounds.iter().map(|r| r.p99_us).collect::<Vec<_>>());
        let rss = rounds.iter().map(|r| r.rss_mib).fold(0.0, f64::max);
        let middle = median(&mut cpus);
        let range = format!("{middle:.1} ({:.1}–{:.1})", cpus[0], cpus[cpus.len() - 1]);
        println!(
            "  {name:<26} {rate:>9.0} {range:>22} {:>8.2} {p50:>9.0} {p99:>9.0} {:>8.2} {rss:>8.0}",
            middle / base_cpu,
            p99 / base_p99
        );
    }
}

/// What reading MCP costs beside passing the same bytes on: both through Holdpoint, both with one policy.
fn inspection(results: &BTreeMap<String, Vec<Round>>) {
    let cpu = |name: &str| results.get(name).map(|r| median(&mut r.iter().map(|r| r.cpu_us).collect::<Vec<_>>()));
    for (kind, plain) in [("JSON", "allow-all"), ("SSE", "allow-all, SSE")] {
        if let (Some(mcp), Some(plain)) = (cpu(&format!("MCP {kind}, allow-all")), cpu(plain)) {
            println!(
                "  MCP inspection, {kind}: {mcp:.1} µs against {plain:.1} µs of plain pass-through: {:.2} ×",
                mcp / plain
            );
        }
    }
}

fn summary(results: &BTreeMap<String, Vec<Round>>) -> serde_json::Value {
    let one = |rounds: &Vec<Round>| {
        let mut cpu: Vec<f64> = rounds.iter().map(|r| r.cpu_us).collect();
        let mut rate: Vec<f64> = rounds.iter().map(Round::per_second).collect();
        let mut p99: Vec<f64> = rounds.iter().map(|r| r.p99_us).collect();
        json!({"cpu_us": median(&mut cpu), "per_s": median(&mut rate), "p99_us": median(&mut p99)})
    };
    results.iter().map(|(name, rounds)| (name.clone(), one(rounds))).collect::<serde_json::Map<_, _>>().into()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The same order for the same round on every machine.
fn shuffled<'a>(targets: &[&'a Target], round: usize) -> Vec<&'a Target> {
    let mut order = targets.to_vec();
    let mut seed = (round as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    for i in (1..order.len()).rev() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        order.swap(i, (seed % (i as u64 + 1)) as usize);
    }
    order
}
