//! What an ID token must show beyond any signed token (OpenID Connect Core 1.0, 3.1.3.7), and what is taken from it.

use serde_json::Value;
use subtle::ConstantTimeEq;

use crate::call::Timestamp;
use crate::config::OidcRule;
use crate::gates::identity::NoKey;
use crate::gates::identity::token::{self, Demands, LEEWAY, claim, list, seconds};

use super::Trouble;
use super::provider::Provider;
use crate::admin::who::SignedIn;

/// An ID token is redeemed when it is made: one that is older was kept by somebody.
const AGE: i64 = 600;

pub(super) async fn check(
    rule: &OidcRule,
    provider: &Provider,
    raw: &str,
    nonce: &str,
    fresh_since: Option<i64>,
    now: Timestamp,
) -> Result<SignedIn, Trouble> {
    let document = provider.document().await?;
    let demands = Demands { issuer: &rule.issuer, audience: &rule.client_id, algorithms: &rule.algorithms, now };
    let claims = token::claims(raw, &document.keys, demands).await.map_err(|no| match no {
        NoKey::Refused(why) => Trouble::Rejected(why),
        NoKey::Fault(fault) => Trouble::Unavailable(fault),
    })?;
    of_this_way(&claims, rule, nonce, now.as_millis() / 1000).map_err(Trouble::Rejected)?;
    let signed = taken(&claims, rule, now)?;
    let late = |at: &Timestamp| fresh_since.is_some_and(|since| at.as_millis() / 1000 < since.saturating_sub(LEEWAY));
    if fresh_since.is_some() && signed.at.as_ref().is_none_or(late) {
        return Err(Trouble::Rejected("the provider did not ask you again, so the sign-in is not fresh"));
    }
    Ok(signed)
}

/// Made for us alone, just now, for the browser that began.
fn of_this_way(claims: &Value, rule: &OidcRule, nonce: &str, now: i64) -> Result<(), &'static str> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let azp = text("azp");
    let several = claims.get("aud").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
    if azp.is_some_and(|azp| azp != rule.client_id) || (several && azp.is_none()) {
        return Err("the token was made for another client");
    }
    if !bool::from(text("nonce").unwrap_or_default().as_bytes().ct_eq(nonce.as_bytes())) {
        return Err("the token was made for another sign-in");
    }
    match seconds(claims, "iat") {
        Some(Some(iat)) if iat <= now.saturating_add(LEEWAY) && now <= iat.saturating_add(AGE) => Ok(()),
        _ => Err("the token was not made just now"),
    }
}

fn taken(claims: &Value, rule: &OidcRule, now: Timestamp) -> Result<SignedIn, Trouble> {
    let text = |path: &str| claim(claims, path).and_then(Value::as_str).filter(|t| is_name(t)).map(str::to_owned);
    let sub = text("sub").ok_or(Trouble::Rejected("the token names nobody"))?;
    let name = match &rule.user_claim {
        None => None,
        // `issuer|subject` is how accounts without a name are called: no name may be that of another account.
        Some(path) => match text(path).filter(|name| !name.contains('|')) {
            Some(name) => Some(name),
            None => return Err(Trouble::Rejected("the token lacks the claim that names the person")),
        },
    };
    let email = text("email").filter(|_| claims.get("email_verified") == Some(&Value::Bool(true)));
    // A proof in the future is none.
    let at = seconds(claims, "auth_time").flatten().filter(|at| *at <= (now.as_millis() / 1000).saturating_add(LEEWAY));
    let amr = claims.get("amr").map(list).unwrap_or_default();
    let acr = text("acr");
    Ok(SignedIn {
        issuer: rule.issuer.clone(),
        client_id: rule.client_id.clone(),
        sub,
        name,
        groups: claim(claims, &rule.group_claim).map(list).unwrap_or_default(),
        email: email.map(|e| e.to_lowercase()),
        at: at.map(|at| Timestamp::from_millis(at.saturating_mul(1000))),
        strong: amr.iter().any(|a| rule.mfa_amr.contains(a)) || acr.is_some_and(|a| rule.mfa_acr.contains(&a)),
    })
}

/// Text that can stand in a record and on a page as somebody's name.
fn is_name(text: &str) -> bool {
    (1..=256).contains(&text.len()) && !text.chars().any(char::is_control) && text.trim() == text
}
