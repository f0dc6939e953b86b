//! `holdpoint serve`.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::app;
use crate::clock::SystemClock;
use crate::telemetry;

use super::Exit;

pub(super) fn run(path: &Path, cores: Option<usize>) -> anyhow::Result<Exit> {
    let _log = telemetry::start_log(true, "info");
    let config = match app::load(path) {
        Ok(config) => config,
        Err(mistakes) => {
            writeln!(std::io::stderr(), "{mistakes}")?;
            return Ok(Exit::Rejected);
        }
    };
    let cores = cores.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(path, config, cores))
}

async fn serve(path: &Path, config: crate::config::Config, cores: usize) -> anyhow::Result<Exit> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let running = match app::start(path.to_owned(), config, Arc::new(SystemClock), cores).await {
        Ok(running) => running,
        Err(e) => {
            let rejected = e.is::<crate::snapshot::Unbuilt>();
            writeln!(std::io::stderr(), "{e:#}")?;
            return Ok(if rejected { Exit::Rejected } else { Exit::Usage });
        }
    };
    let r = &running.recovery;
    if r.rollback.is_some() || r.records_lost > 0 {
        tracing::error!(recovery = %r, "calls with effects are refused; look with `holdpoint audit verify`, then restore the state or say `holdpoint audit accept`");
    } else {
        tracing::info!(recovery = %r, "recovered");
    }
    tracing::info!(agents = %running.agents, admin = %running.admin, "serving");
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                // What is wrong was logged, counted and recorded; the old version stays in force.
                let reloaded = running.reload().await.is_ok();
                tracing::debug!(reloaded, "SIGHUP");
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = running.asked_to_stop() => break,
        }
    }
    running.stop().await;
    Ok(Exit::Ok)
}
