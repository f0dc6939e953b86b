//! What every signed token must show (RFC 7519): an allowed asymmetric algorithm, a signature by a known key, `iss`,
//! `aud`, `exp` and `sub`, and a time that is now.

use jsonwebtoken::{Algorithm, Validation};
use serde_json::Value;

use crate::call::Timestamp;

use super::keys::{KeySet, NoKey};

/// Clocks of issuer and proxy may differ by this much, seconds.
pub const LEEWAY: i64 = 30;

/// What a token must be to count.
#[derive(Debug, Clone, Copy)]
pub struct Demands<'a> {
    /// `iss`, exactly.
    pub issuer: &'a str,
    /// One of `aud`.
    pub audience: &'a str,
    /// Allowed algorithms; symmetric ones never stand here.
    pub algorithms: &'a [Algorithm],
    /// By the proxy's own clock.
    pub now: Timestamp,
}

/// The claims of a token that holds.
///
/// # Errors
/// Says which part does not, or that the keys cannot be had.
pub async fn claims(token: &str, keys: &KeySet, demands: Demands<'_>) -> Result<Value, NoKey> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| NoKey::Refused("the token cannot be read"))?;
    if !demands.algorithms.contains(&header.alg) {
        return Err(NoKey::Refused("the token's algorithm is not allowed"));
    }
    let key = keys.key(header.kid.as_deref(), header.alg).await?;
    let mut validation = Validation::new(header.alg);
    validation.set_issuer(&[demands.issuer]);
    validation.set_audience(&[demands.audience]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    // The clock is ours, so both are checked below.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let decoded = jsonwebtoken::decode::<Value>(token, &key, &validation);
    let claims = decoded.map_err(|_| NoKey::Refused("the token is not valid here"))?.claims;
    in_time(&claims, demands.now).map_err(NoKey::Refused)?;
    Ok(claims)
}

fn in_time(claims: &Value, now: Timestamp) -> Result<(), &'static str> {
    let now = now.as_millis() / 1000;
    match seconds(claims, "exp") {
        Some(Some(exp)) if now < exp.saturating_add(LEEWAY) => {}
        _ => return Err("the token has expired"),
    }
    match seconds(claims, "nbf") {
        None => Ok(()),
        Some(Some(nbf)) if nbf.saturating_sub(LEEWAY) <= now => Ok(()),
        Some(_) => Err("the token is not valid yet"),
    }
}

/// A time in whole seconds: absent, not a number, or the number.
#[expect(clippy::cast_possible_truncation, reason = "seconds; a cast from f64 saturates")]
#[must_use]
pub fn seconds(claims: &Value, name: &str) -> Option<Option<i64>> {
    let whole = |f: f64| f.floor() as i64;
    claims.get(name).map(|v| v.as_i64().or_else(|| v.as_f64().map(whole)))
}

/// `act.sub` walks into objects; a claim whose name has the dot itself wins.
#[must_use]
pub fn claim<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    claims.get(path).or_else(|| path.split('.').try_fold(claims, |at, part| at.get(part)))
}

/// Names in a list, or in one text between spaces.
#[must_use]
pub fn list(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => one.split_whitespace().map(str::to_owned).collect(),
        Value::Array(many) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}
