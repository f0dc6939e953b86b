//! What is told to operators: log lines, and every metric declared once.

mod metrics;

pub use metrics::Metrics;

use tracing_subscriber::EnvFilter;

/// Starts the log: JSON lines on stderr, or plain text with colour off for people. `RUST_LOG` sets the level.
pub fn start_log(json: bool, default_level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let started = if json { builder.json().flatten_event(true).try_init() } else { builder.try_init() };
    if let Err(e) = started {
        tracing::debug!(error = %e, "the log was started before");
    }
}
