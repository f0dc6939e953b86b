//! placeholder until merge
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
#[derive(Debug)]
pub struct Admin {
    pub snapshots: Arc<crate::snapshot::Snapshots>,
    pub store: Arc<crate::store::Store>,
    pub metrics: Arc<crate::telemetry::Metrics>,
    pub clock: Arc<dyn crate::clock::Clock>,
    pub resume: mpsc::UnboundedSender<crate::call::CallId>,
    pub draining: crate::tasks::Draining,
}
pub fn router(_: Arc<Admin>) {}
pub async fn serve(_: tokio::net::TcpListener, _: Option<tokio_rustls::TlsAcceptor>, (): (), _: watch::Receiver<bool>) {
}
