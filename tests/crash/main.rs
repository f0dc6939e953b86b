//! The crash suite: the real binary is killed at every fail point under load, started again, and again; then an offline
//! verifier joins the journal, the upstream's own ledger, and what agents and approvers were told.
//!
//! `HOLDPOINT_CRASH_SEED` fixes the schedule, `HOLDPOINT_CRASH_KILLS` says how many deaths, `HOLDPOINT_CRASH_ONLY` at which
//! points (a prefix), `HOLDPOINT_CRASH_AT_ONCE` in how many directories at a time, `HOLDPOINT_CRASH_MINUTES` after which time
//! nothing new is begun. The long set:
//!
//! ```sh
//! HOLDPOINT_CRASH_KILLS=2000 HOLDPOINT_CRASH_SEED=7 cargo test --features failpoints --test crash -- --nocapture killed
//! ```
#![expect(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::let_underscore_must_use,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests may use what the product may not, helpers outside of test functions too"
)]

mod chance;
mod client;
mod doctored;
mod ledger;
mod load;
mod plan;
mod round;
mod site;
mod verify;

use std::time::{Duration, Instant};

use plan::Plan;
use round::Directory;

/// Deaths of the short set.
const SHORT: u64 = 40;
/// Directories that are worked on at once.
const AT_ONCE: u64 = 2;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

async fn directories(plan: &Plan) {
    while let Some(seed) = plan.directory() {
        Directory::new(plan, seed).await.run().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_nothing_is_lost_and_nothing_happens_twice() {
    let end = Instant::now() + Duration::from_secs(60 * setting("HOLDPOINT_CRASH_MINUTES", 24 * 60));
    let plan = Plan::new(setting("HOLDPOINT_CRASH_SEED", 1), setting("HOLDPOINT_CRASH_KILLS", SHORT), end);
    let at_once = setting("HOLDPOINT_CRASH_AT_ONCE", AT_ONCE);
    futures_util::future::join_all((0..at_once).map(|_| directories(&plan))).await;
    let (table, violations) = plan.report();
    println!("seed {}\n{table}", plan.seed);
    assert!(violations.is_empty(), "seed {}:\n{}", plan.seed, violations.join("\n"));
}
