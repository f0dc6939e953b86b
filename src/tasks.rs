//! Spawning, with panics reported as faults.

use std::future::Future;

use tokio::task::JoinHandle;

use crate::call::Fault;

/// Spawns on the current runtime: the work goes on when whoever waits for it hangs up.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
pub fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(work)
}

/// Waits for spawned work; a panic in it becomes a fault.
///
/// # Errors
/// [`Fault`] when the work panicked or was cancelled with its runtime.
pub async fn join<T>(handle: JoinHandle<T>) -> Result<T, Fault> {
    handle.await.map_err(|e| Fault::caused("a task of ours ended early", e))
}
