//! The cookies of the page: out of reach of scripts and of other sites' requests, and over TLS of other hosts, too.

use http::HeaderValue;
use http::header::{COOKIE, HOST, HeaderMap};

use crate::snapshot::Snapshot;

use super::problem::Problem;

/// Who is signed in.
pub(super) const SESSION: &str = "holdpoint";
/// A sign-in at the provider that is under way.
pub(super) const SIGN_IN: &str = "holdpoint-sign-in";

/// Whether this browser came by TLS: our own, or that of a server before us under the page's public name.
fn by_tls(snapshot: &Snapshot, headers: &HeaderMap) -> bool {
    let public = snapshot.config.reviews.url.as_deref().and_then(|u| u.strip_prefix("https://"));
    let host = headers.get(HOST).and_then(|h| h.to_str().ok());
    snapshot.config.listen.tls.is_some() || (public.is_some() && public == host)
}

/// Over TLS no other host or path can set it.
fn full(name: &str, tls: bool) -> String {
    if tls { format!("__Host-{name}") } else { name.to_owned() }
}

/// Sets a cookie; without an age it lives as long as the browser, with none left it goes.
///
/// # Errors
/// The value does not fit into a field.
pub(super) fn set(
    snapshot: &Snapshot,
    headers: &HeaderMap,
    name: &str,
    value: &str,
    age: Option<u32>,
) -> Result<HeaderValue, Problem> {
    let tls = by_tls(snapshot, headers);
    let secure = if tls { "; Secure" } else { "" };
    let age = age.map(|s| format!("; Max-Age={s}")).unwrap_or_default();
    let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{age}", full(name, tls));
    HeaderValue::from_str(&text).map_err(|_| Problem::unavailable())
}

/// The value, when exactly one came.
pub(super) fn read(snapshot: &Snapshot, headers: &HeaderMap, name: &str) -> Option<String> {
    let name = full(name, by_tls(snapshot, headers));
    let cookies = headers.get_all(COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(';'));
    let mut ours = cookies.filter_map(|c| c.trim().split_once('=')).filter(|(n, _)| *n == name).map(|(_, v)| v);
    let first = ours.next()?;
    if ours.next().is_some() { None } else { Some(first.to_owned()) }
}
