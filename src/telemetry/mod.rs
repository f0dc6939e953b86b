//! What is told to operators: log lines, and every metric declared once.

mod metrics;

pub use metrics::Metrics;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;

/// Writes the rest of the log when it is dropped.
#[must_use = "the log ends with it"]
#[derive(Debug)]
pub struct Log(#[expect(dead_code, reason = "held for its drop")] WorkerGuard);

/// Starts the log: JSON lines on stderr, or plain text for people. `RUST_LOG` sets the level. No call ever waits for the
/// reader of the log: when it is slower than the calls, lines are lost, and the audit journal still has them.
pub fn start_log(json: bool, default_level: &str) -> Log {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_level));
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    let started = if json { builder.json().flatten_event(true).try_init() } else { builder.try_init() };
    if let Err(e) = started {
        tracing::debug!(error = %e, "the log was started before");
    }
    Log(guard)
}
