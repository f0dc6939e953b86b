//! `holdpoint demo`: the product on one machine. A toy CRM, a toy ticket server and an agent, all over real sockets; the
//! proxy with the shipped policies between them. Nothing here uses the proxy from inside: this is the outside world.

mod agent;
mod attack;
mod crm;
mod http;
mod people;
mod story;
mod tickets;
mod world;

use std::io::Write;

use crate::cli::Exit;

/// Plays tricks against the running product, and says how each was stopped.
///
/// # Errors
/// When something that it needs cannot be started.
pub fn attack(out: &mut impl Write) -> anyhow::Result<Exit> {
    on_a_runtime(async {
        let world = world::World::start(true).await?;
        let score = attack::play(&world, out).await?;
        world.judge(score, out).await
    })
}

fn on_a_runtime(work: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let _log = crate::telemetry::start_log(false, "error");
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}

/// Runs the demo; with `script` nobody is waited for, and the books are compared at the end.
///
/// # Errors
/// When something that it needs cannot be started.
pub fn run(script: bool, out: &mut impl Write) -> anyhow::Result<Exit> {
    on_a_runtime(async {
        let world = world::World::start(script).await?;
        let told = story::tell(&world, script, out).await?;
        world.end(told, out).await
    })
}
