//! `holdpoint demo`: the product on one machine. A toy CRM, a toy ticket server and an agent, all over real sockets; the
//! proxy with the shipped policies between them. Nothing here uses the proxy from inside: this is the outside world.

mod agent;
mod crm;
mod http;
mod people;
mod story;
mod tickets;
mod world;

use std::io::Write;

use crate::cli::Exit;

/// Runs the demo; with `script` nobody is waited for, and the books are compared at the end.
///
/// # Errors
/// When something that it needs cannot be started.
pub fn run(script: bool, out: &mut impl Write) -> anyhow::Result<Exit> {
    let _log = crate::telemetry::start_log(false, "error");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let world = world::World::start(script).await?;
        let told = story::tell(&world, script, out).await?;
        world.end(told, out).await
    })
}
