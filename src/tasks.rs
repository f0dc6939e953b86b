//! Spawning, with panics reported as faults and calls in flight counted, so that a drain can wait for them.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};
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

/// Counts the work that a drain must wait for.
#[derive(Debug, Clone, Default)]
pub struct Tracker(Arc<(AtomicUsize, Notify)>);

struct Counted(Tracker);

impl Drop for Counted {
    fn drop(&mut self) {
        let (count, idle) = &*self.0.0;
        if count.fetch_sub(1, Ordering::AcqRel) == 1 {
            idle.notify_waiters();
        }
    }
}

impl Tracker {
    /// Spawns work that a drain waits for.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.0.fetch_add(1, Ordering::AcqRel);
        let counted = Counted(self.clone());
        spawn(async move {
            let done = work.await;
            drop(counted);
            done
        })
    }

    /// Ends when nothing is under way.
    pub async fn idle(&self) {
        loop {
            let notified = self.0.1.notified();
            if self.0.0.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// Whether the process is about to stop: nothing new begins, inline waits become handles.
#[derive(Debug, Clone)]
pub struct Draining(watch::Receiver<bool>);

impl Draining {
    /// Follows this flag.
    #[must_use]
    pub const fn new(flag: watch::Receiver<bool>) -> Self {
        Self(flag)
    }

    /// Now.
    #[must_use]
    pub fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends when it is on; never, when its owner is gone without setting it.
    pub async fn on(&self) {
        let mut flag = self.0.clone();
        let seen = flag.wait_for(|on| *on).await.is_ok();
        if !seen {
            std::future::pending::<()>().await;
        }
    }
}
