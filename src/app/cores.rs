//! One thread and one runtime for each core: connections stay where they were handed to.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use crate::call::CallId;
use crate::inquiry;
use crate::pipeline::Pipeline;
use crate::wire::{Core, Cores, Edge};

use super::Shared;
use super::jobs::{self, Job};

/// How long answers may still flow out after the drain.
const LINGER: Duration = Duration::from_secs(2);

/// What the admin side has for the cores; the first one takes it.
pub(super) struct Work {
    /// Calls to tend.
    pub(super) resumed: mpsc::UnboundedReceiver<CallId>,
    /// Questions.
    pub(super) jobs: mpsc::UnboundedReceiver<Job>,
}

/// Starts the cores; the first one sends what was approved.
pub(super) fn start(
    shared: &Shared,
    count: usize,
    hands: &mut Cores,
    tls: Option<TlsAcceptor>,
    work: Work,
    stop: &watch::Receiver<bool>,
) -> anyhow::Result<Vec<std::thread::JoinHandle<()>>> {
    let mut work = Some(work);
    let mut threads = Vec::new();
    for i in 0..count.max(1) {
        let (core, tls, stop) = (hands.add(), tls.clone(), stop.clone());
        let (shared, work) = (shared.clone(), work.take());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let name = format!("core-{i}");
        threads.push(std::thread::Builder::new().name(name).spawn(move || {
            runtime.block_on(run(shared, core, tls, work, stop));
            runtime.shutdown_timeout(LINGER);
        })?);
    }
    Ok(threads)
}

async fn run(shared: Shared, core: Core, tls: Option<TlsAcceptor>, work: Option<Work>, stop: watch::Receiver<bool>) {
    let pipeline = shared.pipeline();
    if let Some(Work { resumed, jobs }) = work {
        crate::tasks::spawn(resume(pipeline.clone(), resumed));
        crate::tasks::spawn(jobs::work(pipeline.clone(), jobs));
    }
    let edge = Arc::new(edge(&shared, pipeline));
    core.run(edge, tls, stop, LINGER).await;
}

/// Tends each call that is named: approved ones are sent, unknown ones looked up; the admin side only names them.
async fn resume(pipeline: Pipeline, mut named: mpsc::UnboundedReceiver<CallId>) {
    while let Some(id) = named.recv().await {
        let p = pipeline.clone();
        pipeline.tracker.spawn(async move { p.tend(id).await });
    }
}

fn edge(shared: &Shared, pipeline: Pipeline) -> Edge {
    let surface = Arc::clone(&shared.surface);
    let metrics = Arc::clone(&shared.metrics);
    let (strangers, clock, store) =
        (Arc::clone(&shared.strangers), Arc::clone(&shared.clock), Arc::clone(&shared.store));
    let (own, tasks) = (pipeline.clone(), pipeline.clone());
    Edge {
        surface: Box::new(move || surface.load_full()),
        handle: Box::new(move |incoming| {
            let p = pipeline.clone();
            Box::pin(async move { p.handle(incoming).await })
        }),
        own: Box::new(move |request| {
            let p = own.clone();
            Box::pin(async move { inquiry::answer(&p, request).await })
        }),
        task: Box::new(move |request| {
            let p = tasks.clone();
            Box::pin(async move { inquiry::task(&p, request).await })
        }),
        refused: Box::new(move |code| {
            metrics.unidentified.with_label_values(&[code]).inc();
            if let Some(count) = strangers.count(clock.now()) {
                let store = Arc::clone(&store);
                crate::tasks::spawn(async move {
                    if let Err(fault) = store.append(crate::pipeline::counted(count), false).await {
                        tracing::debug!(fault = %fault.chain(), "not recorded");
                    }
                });
            }
        }),
        clock: Arc::clone(&shared.clock),
        tracker: shared.tracker.clone(),
        room: Arc::clone(&shared.room),
    }
}
