//! What the admin side asks of a core: connections to upstreams belong to cores, and only they walk the path.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::admin::Ask;
use crate::pipeline::Pipeline;

/// Work for whichever core takes it.
pub(super) type Job = Box<dyn FnOnce(Pipeline) -> BoxFuture<'static, ()> + Send>;

/// A question to the path; its asker hears nothing when no core takes work any more.
pub(super) fn ask<Q, A, F>(jobs: &mpsc::UnboundedSender<Job>, work: fn(Pipeline, Q) -> F) -> Ask<Q, A>
where
    Q: Send + 'static,
    A: Send + 'static,
    F: Future<Output = A> + Send + 'static,
{
    let jobs = jobs.clone();
    Arc::new(move |question| {
        let (to, answer) = oneshot::channel();
        let job: Job = Box::new(move |pipeline| {
            let work = work(pipeline, question);
            Box::pin(async move {
                if to.send(work.await).is_err() {
                    tracing::debug!("who asked has gone; what was done stands");
                }
            })
        });
        let taken = jobs.send(job).is_ok();
        Box::pin(async move { if taken { answer.await.ok() } else { None } })
    })
}

/// Takes what is asked, as long as anybody may ask.
pub(super) async fn work(pipeline: Pipeline, mut jobs: mpsc::UnboundedReceiver<Job>) {
    while let Some(job) = jobs.recv().await {
        pipeline.tracker.spawn(job(pipeline.clone()));
    }
}
