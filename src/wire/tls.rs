//! TLS by rustls: server configurations and client certificates.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct TlsError {
    what: String,
    why: String,
}

fn wrong(what: &Path, why: impl ToString) -> TlsError {
    TlsError { what: what.display().to_string(), why: why.to_string() }
}

/// Certificates of a PEM file.
///
/// # Errors
/// When it cannot be read or has none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|e| wrong(path, e))?.collect();
    let all = all.map_err(|e| wrong(path, e))?;
    if all.is_empty() { Err(wrong(path, "has no certificate")) } else { Ok(all) }
}

/// Roots of a PEM file.
///
/// # Errors
/// When it cannot be read or has none.
pub fn roots(path: &Path) -> Result<rustls::RootCertStore, TlsError> {
    let mut store = rustls::RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|e| wrong(path, e))?;
    }
    Ok(store)
}

/// A server configuration. With `client_ca`, client certificates of that authority are verified when offered;
/// who comes without one must prove itself otherwise.
///
/// # Errors
/// When a file cannot be read or certificate and key do not fit.
pub fn server(cert: &Path, key: &Path, client_ca: Option<&Path>, alpn: &[&str]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, e))?;
    let builder = match client_ca {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots(ca)?)).allow_unauthenticated();
            ServerConfig::builder().with_client_cert_verifier(verifier.build().map_err(|e| wrong(ca, e))?)
        }
    };
    let mut config = builder.with_single_cert(chain, private).map_err(|e| wrong(cert, e))?;
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// Installs the one crypto provider of the process. Safe to call again.
pub fn install_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // A second caller at the same moment installs the same provider.
        rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap_or_default();
    }
}
