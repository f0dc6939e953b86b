//! Sign-in at an OpenID provider: what can be checked before it is asked anything.

use std::sync::Arc;

use super::super::used::{ListenConfig, OidcRule};
use super::super::{Secret, safe_url};
use super::identity::{algorithms, safe_url as safe};
use super::{Ctx, file};

const AT: &str = "/identity/reviewers/oidc";

pub(super) fn oidc(
    ctx: &mut Ctx<'_>,
    o: &file::Oidc,
    page: Option<&str>,
    listen: &ListenConfig,
) -> Option<Arc<OidcRule>> {
    let url = format!("{}/.well-known/openid-configuration", o.issuer.trim_end_matches('/'));
    let discovery = ctx.ok(&format!("{AT}/issuer"), safe(&url).and_then(|u| plain(&o.issuer, u)));
    let secret = o.client_secret.as_ref().map(|s| ctx.secret(&format!("{AT}/client_secret"), s));
    if o.client_id.trim().is_empty() {
        ctx.err(format!("{AT}/client_id"), "is empty");
    }
    if matches!(&secret, Some(Some(text)) if text.is_empty()) {
        ctx.err(format!("{AT}/client_secret"), "is empty; leave the key out for a public client");
    }
    let page = ctx.ok("/reviews/url", page_url(page, &listen.allowed_hosts));
    let mut scopes = vec!["openid".to_owned()];
    scopes.extend(o.scopes.clone().unwrap_or_else(|| vec!["profile".into(), "email".into()]));
    scopes.dedup();
    let algorithms = algorithms(ctx, AT, o.algorithms.clone());
    Some(Arc::new(OidcRule {
        issuer: o.issuer.clone(),
        discovery: discovery?,
        client_id: o.client_id.clone(),
        client_secret: secret.flatten().map(Secret::new),
        redirect_uri: format!("{}/sign-in/callback", page?),
        scope: scopes.join(" "),
        group_claim: o.group_claim.clone().unwrap_or_else(|| "groups".into()),
        user_claim: o.user_claim.clone(),
        algorithms,
        mfa_amr: o.mfa.amr.clone().unwrap_or_else(|| vec!["mfa".into()]),
        mfa_acr: o.mfa.acr.clone().unwrap_or_default(),
    }))
}

fn plain<T>(issuer: &str, discovery: T) -> Result<T, String> {
    let odd = issuer.contains(['?', '#', '|']);
    if odd { Err(format!("`{issuer}` is not an issuer: no query, no fragment, no `|`")) } else { Ok(discovery) }
}

/// Where browsers come back to: the page itself, as they reach it.
fn page_url(page: Option<&str>, hosts: &[String]) -> Result<String, String> {
    let page =
        page.ok_or("sign-in at a provider needs `reviews.url`: the address of this page, as browsers reach it")?;
    let uri = safe_url(page).ok_or_else(|| format!("`{page}` must be https (http is for loopback only)"))?;
    if !uri.path().trim_end_matches('/').is_empty() || uri.query().is_some() {
        return Err(format!("`{page}` must have no path: the page stands at the root of its host"));
    }
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    if !hosts.contains(&host) {
        return Err(format!("its host `{host}` must be one of `listen.allowed_hosts`"));
    }
    Ok(page.trim_end_matches('/').to_owned())
}
