//! Where a tool's upstream is and how it is reached.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use crate::call::Fault;
use crate::config::{HttpServer, UpstreamAt, UpstreamAuth, UpstreamConfig};

use super::stdio::{Server, Servers};

/// One upstream.
#[derive(Debug)]
pub enum Endpoint {
    /// By HTTP.
    Http(Arc<Origin>),
    /// A child process.
    Stdio(Arc<Server>),
}

impl Endpoint {
    /// The upstream of the tool `name`, mounted at `mount`; a command is not started yet.
    ///
    /// # Errors
    /// A fault, when its authority file cannot be used or its host is no server name.
    pub fn new(name: &str, mount: &[String], config: &UpstreamConfig, servers: &Servers) -> Result<Self, Fault> {
        match &config.at {
            UpstreamAt::Http(http) => Ok(Self::Http(Arc::new(Origin::new(name, mount, http)?))),
            UpstreamAt::Stdio(command) => Ok(Self::Stdio(servers.of(name, command))),
        }
    }

    /// Whether it gets the client's own credential, which is never kept.
    #[must_use]
    pub(crate) fn passes_through(&self) -> bool {
        matches!(self, Self::Http(origin) if origin.passes_through())
    }

    /// A command is started, so that the first call need not wait for it.
    pub fn warm(&self) {
        if let Self::Stdio(server) = self {
            server.start();
        }
    }
}

/// A server that is reached by HTTP.
pub struct Origin {
    id: String,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    host_header: HeaderValue,
    origin: String,
    base: String,
    mount: String,
    auth: UpstreamAuth,
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Origin({})", self.origin)
    }
}

/// The upstreams of one configuration version, by tool.
pub type Endpoints = HashMap<String, Arc<Endpoint>>;

impl Origin {
    /// The upstream of the tool `name`, mounted at `mount`.
    ///
    /// # Errors
    /// A fault, when its authority file cannot be used or its host is no server name.
    pub(super) fn new(name: &str, mount: &[String], config: &HttpServer) -> Result<Self, Fault> {
        let tls = config.origin.scheme_str() == Some("https");
        let host = config.origin.host().unwrap_or_default().to_owned();
        let port = config.origin.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let authority = config.origin.authority().map(ToString::to_string).unwrap_or_default();
        let origin = config.origin.to_string().trim_end_matches('/').to_owned();
        let tls = if tls { Some(connector(config.ca.as_deref(), &host)?) } else { None };
        Ok(Self {
            id: format!(
                "{name}\n{origin}\n{}",
                config.ca.as_ref().map(|c| c.display().to_string()).unwrap_or_default()
            ),
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            tls,
            host_header: HeaderValue::from_str(&authority).map_err(|e| Fault::caused("the upstream's host", e))?,
            origin,
            base: config.base.clone(),
            mount: format!("/{}", mount.join("/")),
            auth: config.auth.clone(),
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }
    pub(crate) fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
    pub(crate) fn tls(&self) -> Option<&(TlsConnector, ServerName<'static>)> {
        self.tls.as_ref()
    }
    pub(crate) fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }
    pub(crate) fn auth(&self) -> &UpstreamAuth {
        &self.auth
    }
    /// Whether it gets the client's own credential, which is never kept.
    pub(crate) fn passes_through(&self) -> bool {
        matches!(self.auth, UpstreamAuth::PassThrough)
    }

    /// A `Location` of the same origin, as agents can follow it; none for any other (rule R17).
    pub(crate) fn location(&self, value: &str) -> Option<String> {
        let path = value.strip_prefix(&self.origin).unwrap_or(value);
        if !path.starts_with('/') || path.starts_with("//") {
            return None;
        }
        let below = path.strip_prefix(&self.base)?;
        (below.is_empty() || below.starts_with(['/', '?'])).then(|| format!("{}{below}", self.mount))
    }
}

fn connector(ca: Option<&Path>, host: &str) -> Result<(TlsConnector, ServerName<'static>), Fault> {
    let mut roots = rustls::RootCertStore::empty();
    match ca {
        Some(path) => {
            let all = CertificateDer::pem_file_iter(path).map_err(|e| Fault::caused("the upstream's authority", e))?;
            for certificate in all {
                let certificate = certificate.map_err(|e| Fault::caused("the upstream's authority", e))?;
                roots.add(certificate).map_err(|e| Fault::caused("the upstream's authority", e))?;
            }
        }
        None => {
            let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            tracing::debug!(added, "the system's authorities are used");
        }
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|e| Fault::caused("the upstream's host is no server name", e))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}
