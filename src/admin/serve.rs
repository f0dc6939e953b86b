//! The admin listener itself: few connections, short heads, HTTP/1.1.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::tasks;

/// Connections that may be open at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// A connection that has carried nothing for so long makes room for others.
const IDLE: Duration = Duration::from_secs(10);

/// Serves until told to stop, then until open requests have ended (long polls: at most 5 s).
///
/// TLS must be set up for `http/1.1`.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener, &slots) => accepted,
            () = stopped(&mut stop) => break,
        };
        let Some((stream, slot)) = accepted else { continue };
        let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
        tasks::spawn(async move {
            if let Err(error) = connection(stream, tls, router, stop).await {
                tracing::debug!(%error, "an admin connection ended early");
            }
            drop(slot);
        });
    }
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    let ended = tokio::time::timeout(Duration::from_secs(5), slots.acquire_many(all)).await.is_ok();
    tracing::debug!(ended, "the admin listener stopped");
}

async fn next(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(error) => {
            tracing::warn!(%error, "accept failed on the admin listener");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let seen = stop.wait_for(|s| *s).await.is_ok();
    tracing::trace!(seen, "stop");
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(acceptor) = tls else { return http(stream, router, stop).await };
    let handshake = tokio::time::timeout(Duration::from_secs(10), acceptor.accept(stream));
    let stream = handshake.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    http(stream, router, stop).await
}

async fn http<S>(stream: S, router: Router, mut stop: watch::Receiver<bool>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    // The head's time runs while a kept connection is idle, too.
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE).max_headers(64).max_buf_size(64 << 10).half_close(false);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(io::Error::other)
}
