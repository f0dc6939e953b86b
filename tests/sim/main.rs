//! The store against a model of its own: seeded runs with injected time. A failure prints its seed.
//!
//! `HOLDPOINT_SIM_SEED=n` runs one seed, `HOLDPOINT_SIM_SEEDS=n` that many instead of as many as fit in ten seconds,
//! `HOLDPOINT_SIM_RESTARTS=n` of them with restarts.
#![expect(
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "tests may use what the product may not, helpers outside of test functions too"
)]

mod damage;
mod disk;
mod model;
mod power;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use holdpoint::store::Options;
use world::{Dice, Place, Sum, World};

/// So many seeds share one store, each with callers, keys, calls and ledgers of its own.
const SHARE: u64 = 200;
const SHORT: Duration = Duration::from_secs(5);

fn wanted(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

fn options(seed: u64) -> Options {
    // Some stores begin a new segment every few records.
    let segment_bytes = if seed.is_multiple_of(3) { 20_000 } else { 64 << 20 };
    Options { segment_bytes, preallocate: 4096, ..Options::default() }
}

fn run(place: &mut Place, seed: u64, restarts: bool) -> Sum {
    let mut world = World::new(place, seed, restarts);
    let steps = 30 + Dice(seed).below(31);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        (0..steps).for_each(|_| world.step());
        world.drain();
    }));
    if let Err(panic) = ended {
        println!("seed {seed} failed; the last steps were:");
        world.trace.iter().rev().take(25).rev().for_each(|line| println!("  {line}"));
        let shared = if restarts { "" } else { " HOLDPOINT_SIM_SHARED=1" };
        println!("again: HOLDPOINT_SIM_SEED={seed}{shared} cargo test --test sim");
        println!(
            "(if it passes alone, it needs those before it: this store was shared from seed {})",
            seed - seed % SHARE
        );
        resume_unwind(panic);
    }
    world.sum
}

fn add(all: &mut Sum, one: Sum) {
    all.steps += one.steps;
    all.agreed += one.agreed;
    all.restarts += one.restarts;
    all.begins += one.begins;
    all.approvals += one.approvals;
}

/// Runs seeds until there were `count` of them, or for a while.
fn many(count: Option<u64>, restarts: bool) {
    let (begun, mut all, mut seeds) = (Instant::now(), Sum::default(), 0);
    let mut place: Option<Place> = None;
    let only = wanted("HOLDPOINT_SIM_SEED");
    if only.is_some() && restarts == std::env::var_os("HOLDPOINT_SIM_SHARED").is_some() {
        return;
    }
    for seed in only.unwrap_or(0).. {
        let more = match (only, count) {
            (Some(_), _) => seeds == 0,
            (None, Some(count)) => seeds < count,
            (None, None) => begun.elapsed() < SHORT,
        };
        if !more {
            break;
        }
        let share = if restarts { 1 } else { SHARE };
        if seed.is_multiple_of(share) {
            place = None;
        }
        let group = seed / share;
        add(&mut all, run(place.get_or_insert_with(|| Place::new(options(group))), seed, restarts));
        seeds += 1;
        if seeds.is_multiple_of(10_000) {
            println!("{seeds} seeds after {:?}: {all:?}", begun.elapsed());
        }
    }
    println!("restarts: {restarts}; {seeds} seeds in {:?}, no difference: {all:?}", begun.elapsed());
    assert!(only.is_some() || all.approvals > 0 && all.begins > 0, "nothing happened");
}

#[test]
fn the_store_does_what_the_model_does() {
    many(wanted("HOLDPOINT_SIM_SEEDS"), false);
}

#[test]
fn the_store_does_what_the_model_does_over_restarts() {
    many(wanted("HOLDPOINT_SIM_RESTARTS"), true);
}
