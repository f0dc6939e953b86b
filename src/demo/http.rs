//! A small HTTP client and server of the demo's own.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

const LIMIT: usize = 1 << 20;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) json: Value,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// Sends one request on a connection of its own.
pub(super) async fn send(
    to: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> anyhow::Result<Answer> {
    send_text(to, method, path, headers, body.map(Value::to_string).as_deref()).await
}

/// The same with a body as it is.
pub(super) async fn send_text(
    to: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(to).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    crate::tasks::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!(error = %e, "demo connection");
        }
    });
    let mut request = Request::builder().method(method).uri(path).header("host", to.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let bytes = body.map(|b| Bytes::from(b.to_owned())).unwrap_or_default();
    let (parts, body) = sender.send_request(request.body(Full::new(bytes))?).await?.into_parts();
    let bytes = collect(body).await?;
    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Ok(Answer { status: parts.status, headers: parts.headers, json })
}

#[expect(clippy::disallowed_methods, reason = "bounded, and not on the data path")]
async fn collect(body: Incoming) -> anyhow::Result<Bytes> {
    let whole = Limited::new(body, LIMIT).collect().await.map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(whole.to_bytes())
}

/// A request as a toy server sees it.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) json: Value,
}

/// Serves requests with `answer` until the runtime ends.
pub(super) fn serve<F, R>(listener: TcpListener, answer: F)
where
    F: Fn(Asked) -> R + Send + Sync + 'static,
    R: Future<Output = (StatusCode, Value)> + Send + 'static,
{
    let answer = Arc::new(answer);
    crate::tasks::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = Arc::clone(&answer);
                async move {
                    let (parts, body) = request.into_parts();
                    let bytes = collect(body).await?;
                    let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                    let asked =
                        Asked { method: parts.method, path: parts.uri.path().to_owned(), headers: parts.headers, json };
                    let (status, json) = answer(asked).await;
                    let body = if json.is_null() { Bytes::new() } else { Bytes::from(json.to_string()) };
                    let response = Response::builder().status(status).header("content-type", "application/json");
                    Ok::<_, anyhow::Error>(response.body(Full::new(body))?)
                }
            });
            crate::tasks::spawn(async move {
                let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                if let Err(e) = served.await {
                    tracing::debug!(error = %e, "demo server");
                }
            });
        }
    });
}
