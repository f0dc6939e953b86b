//! Receivers by e-mail: the server, how it is reached, and the addresses.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use lettre::message::Mailbox;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use percent_encoding::percent_decode_str;

use super::super::Secret;
use super::super::used_notify::{Channel, Smtp};
use super::notify::Told;
use super::{Ctx, file};

/// What the URL of a server says.
struct Server {
    user: Option<String>,
    host: String,
    port: u16,
    /// TLS from the first byte.
    wrapped: bool,
}

pub(super) fn smtp(ctx: &mut Ctx<'_>, at: &str, s: &file::Smtp) -> Told {
    let server = ctx.ok(&format!("{at}/url"), server(&s.url));
    let from = ctx.ok(&format!("{at}/from"), mailbox(&s.from));
    let to: Vec<Mailbox> = (s.to.iter().enumerate())
        .filter_map(|(k, address)| ctx.ok(&format!("{at}/to/{k}"), mailbox(address)))
        .collect();
    if s.to.is_empty() {
        ctx.err(format!("{at}/to"), "is empty: name who is written to");
    }
    let digest = ctx.duration(&format!("{at}/digest"), s.digest.as_ref(), Duration::from_secs(300));
    if digest > Duration::from_secs(86_400) {
        ctx.err(format!("{at}/digest"), "must be at most `1d`");
    }
    let server = server?;
    let login = login(ctx, at, server.user.as_ref(), s.password.as_ref());
    let tls = tls(ctx, at, &server, s.ca.as_ref())?;
    let address = format!("{} {}", s.url, s.to.join(" "));
    let Server { host, port, .. } = server;
    Some((Channel::Smtp(Smtp { host, port, tls, login, from: from?, to, digest }), address))
}

fn login(
    ctx: &mut Ctx<'_>,
    at: &str,
    user: Option<&String>,
    password: Option<&file::SecretRef>,
) -> Option<(String, Secret)> {
    match (user, password) {
        (Some(user), Some(password)) => {
            let password = ctx.secret(&format!("{at}/password"), password)?;
            Some((user.clone(), Secret::new(password)))
        }
        (None, None) => None,
        (Some(_), None) => {
            ctx.err(at, "`url` names a user, so `password` is needed");
            None
        }
        (None, Some(_)) => {
            ctx.err(format!("{at}/password"), "`url` names no user; write `smtps://user@host`");
            None
        }
    }
}

fn server(url: &str) -> Result<Server, String> {
    let wrong = || format!("`{url}` is not a mail server, such as `smtps://user@mail.acme.dev`");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let wrapped = match uri.scheme_str() {
        Some("smtps") => true,
        Some("smtp") => false,
        _ => return Err(wrong()),
    };
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(wrong());
    }
    let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
    let user = uri.authority().and_then(|a| a.as_str().rsplit_once('@')).map(|(user, _)| user);
    if user.is_some_and(|u| u.contains(':')) {
        return Err("has a password in it; give that as `password`".into());
    }
    let user = user.map(|u| percent_decode_str(u).decode_utf8().map(Cow::into_owned));
    let user = user.transpose().map_err(|_| wrong())?;
    Ok(Server { user, host, port: uri.port_u16().unwrap_or(if wrapped { 465 } else { 587 }), wrapped })
}

fn mailbox(text: &str) -> Result<Mailbox, String> {
    text.parse().map_err(|e| format!("`{text}` is not an address, such as `Holdpoint <holdpoint@acme.dev>`: {e}"))
}

/// TLS from the first byte, or before the first credential; on loopback it is not needed.
fn tls(ctx: &mut Ctx<'_>, at: &str, server: &Server, ca: Option<&file::FileRef>) -> Option<Tls> {
    let is_loopback = server.host == "localhost" || server.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    if !server.wrapped && is_loopback && ca.is_none() {
        return Some(Tls::None);
    }
    let at = format!("{at}/ca");
    let mut builder = TlsParameters::builder(server.host.clone());
    if let Some(ca) = ca {
        let pem = ctx.read(&at, &ca.file)?;
        let read = Certificate::from_pem(pem.as_bytes()).ok().filter(|_| pem.contains("BEGIN CERTIFICATE"));
        let own = ctx.ok(&at, read.ok_or_else(|| format!("`{}` holds no certificate", ca.file.display())))?;
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(own);
    }
    let parameters = ctx.ok(&at, builder.build().map_err(|e| format!("cannot be used: {e}")))?;
    Some(if server.wrapped { Tls::Wrapper(parameters) } else { Tls::Required(parameters) })
}
