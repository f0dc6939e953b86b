//! A client of the admin API: one request on one connection, the token never on a command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{tasks, wire};

const TIME: Duration = Duration::from_secs(60);
/// A hold is shown in full, so its answer may be long.
const LIMIT: usize = 64 << 20;

/// Where the admin listener is, and who asks.
#[derive(Debug, Clone, clap::Args)]
pub struct At {
    /// The admin listener.
    #[arg(long, default_value = "http://127.0.0.1:8701", value_name = "URL")]
    pub url: String,
    /// File with your reviewer token; else it is read from HOLDPOINT_TOKEN.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Authority of the listener's certificate, PEM; else those that the system trusts.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// A reviewer's way to one admin listener.
pub(super) struct Client {
    host: String,
    port: u16,
    authority: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    bearer: HeaderValue,
}

/// What the server said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) json: Value,
}

fn token(at: &At) -> anyhow::Result<String> {
    let text = match &at.token_file {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?,
        None => std::env::var("HOLDPOINT_TOKEN").ok().context("set HOLDPOINT_TOKEN, or give --token-file")?,
    };
    let text = text.trim().to_owned();
    if text.is_empty() { bail!("the token is empty") } else { Ok(text) }
}

fn connector(ca: Option<&Path>) -> anyhow::Result<TlsConnector> {
    wire::tls::install_provider();
    let roots = match ca {
        Some(ca) => wire::tls::roots(ca)?,
        None => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Client {
    /// # Errors
    /// When the URL, the token or the authority cannot be used.
    pub(super) fn new(at: &At) -> anyhow::Result<Self> {
        let uri: Uri = at.url.parse().with_context(|| format!("`{}` is not a URL", at.url))?;
        let authority = uri.authority().with_context(|| format!("`{}` names no host", at.url))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.as_str().contains('@') {
            bail!("`--url` is a scheme, a host and a port, such as http://127.0.0.1:8701");
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let (tls, port) = match uri.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from(host.clone()).context("the host is no server name")?;
                (Some((connector(at.ca.as_deref())?, name)), 443)
            }
            Some("http") if is_loopback(&host) => (None, 80),
            Some("http") => bail!("your token would cross the network in the clear: use https"),
            _ => bail!("`--url` begins with http:// or https://"),
        };
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token(at)?)).context("the token is no token")?;
        bearer.set_sensitive(true);
        let port = authority.port_u16().unwrap_or(port);
        Ok(Self { host, port, authority: authority.to_string(), tls, bearer })
    }

    fn request(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority)
            .header(AUTHORIZATION, self.bearer.clone())
            .header("holdpoint-channel", "cli")
    }

    /// Sends one request, and reads its answer as JSON.
    ///
    /// # Errors
    /// When no answer in JSON comes in time.
    pub(super) async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let mut request = self.request(method, path);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let bytes = body.map(|b| Bytes::from(b.to_string())).unwrap_or_default();
        let sent = tokio::time::timeout(TIME, self.exchange(request.body(Full::new(bytes))?));
        sent.await.context("no answer in time")?.with_context(|| format!("{} does not answer", self.authority))
    }

    /// Sends one attempt at what must not be done twice: repeated under the same key, it is the same one.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(super) async fn attempt(&self, path: &str, body: &Value, key: &str) -> anyhow::Result<Answer> {
        let request = self.request(Method::POST, path).header(CONTENT_TYPE, "application/json");
        let request = request.header("idempotency-key", key).body(Full::new(Bytes::from(body.to_string())))?;
        let sent = tokio::time::timeout(TIME, self.exchange(request));
        sent.await.context("no answer in time")?.with_context(|| format!("{} does not answer", self.authority))
    }

    /// Asks for a stream of events, from behind the one that was heard last.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub(super) async fn follow(&self, path: &str, last: Option<&str>) -> anyhow::Result<Followed> {
        let mut request = self.request(Method::GET, path).header(ACCEPT, "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let asked = tokio::time::timeout(TIME, self.ask(request.body(Full::default())?));
        let (response, carrying) =
            asked.await.context("no answer in time")?.with_context(|| format!("{} does not answer", self.authority))?;
        let (parts, body) = response.into_parts();
        if parts.status == StatusCode::OK {
            return Ok(Followed::Stream(Stream { body, _carrying: carrying }));
        }
        Ok(Followed::Refused(whole(parts.status, body, &carrying).await?))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let (response, carrying) = self.ask(request).await?;
        let (parts, body) = response.into_parts();
        whole(parts.status, body, &carrying).await
    }

    async fn ask(&self, request: Request<Full<Bytes>>) -> anyhow::Result<(Response<Incoming>, Carrying)> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        match &self.tls {
            None => over(stream, request).await,
            Some((tls, name)) => over(tls.connect(name.clone(), stream).await?, request).await,
        }
    }
}

/// What carries a connection; it ends with this.
pub(super) struct Carrying(tokio::task::JoinHandle<Result<(), hyper::Error>>);

impl Drop for Carrying {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A stream that was asked for.
pub(super) enum Followed {
    Stream(Stream),
    Refused(Answer),
}

/// The bytes of an answer as they come.
pub(super) struct Stream {
    body: Incoming,
    _carrying: Carrying,
}

impl Stream {
    /// `None` at the end, in order or not.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Ok(data) = self.body.frame().await?.ok()?.into_data() {
                return Some(data);
            }
        }
    }
}

async fn over<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<(Response<Incoming>, Carrying)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let carrying = Carrying(tasks::spawn(connection));
    Ok((sender.send_request(request).await?, carrying))
}

async fn whole(status: StatusCode, body: Incoming, _carrying: &Carrying) -> anyhow::Result<Answer> {
    let read = wire::body::read(body, LIMIT).await;
    let bytes = read.map_err(|refusal| anyhow::anyhow!("the answer: {}", refusal.public_text()))?;
    let json = serde_json::from_slice(&bytes).context("the answer is not JSON: is this an admin listener?")?;
    Ok(Answer { status, json })
}
