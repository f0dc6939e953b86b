//! Agents that come by signed token: keys from the configured set alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::call::{AuthMethod, Fault, Principal, Refusal};
use crate::clock::Clock;
use crate::config::JwtRule;

use super::keys::{Fetch, KeySet, NoKey};
use super::token::{self, Demands, claim, list};
use super::unauthenticated;

pub(super) struct Jwt {
    rule: JwtRule,
    keys: KeySet,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Jwt({})", self.rule.issuer)
    }
}

/// Three parts, the first of which is a JSON object in base64url.
pub(super) fn looks_like(token: &str) -> bool {
    token.starts_with("ey") && token.bytes().filter(|b| *b == b'.').count() == 2
}

impl Jwt {
    pub(super) fn new(rule: JwtRule, fetch: Fetch, clock: Arc<dyn Clock>) -> Self {
        let keys = KeySet::new(rule.keys.clone(), fetch, Arc::clone(&clock));
        Self { rule, keys, clock }
    }

    pub(super) fn issued(&self, p: &Principal) -> bool {
        p.subject.starts_with(&format!("{}|", self.rule.issuer))
    }

    pub(super) async fn warm(&self) -> Result<(), Fault> {
        self.keys.warm().await
    }

    pub(super) async fn verify(&self, token: &str) -> Result<Principal, Refusal> {
        let JwtRule { issuer, audience, algorithms, .. } = &self.rule;
        let demands = Demands { issuer, audience, algorithms, now: self.clock.now() };
        match Box::pin(token::claims(token, &self.keys, demands)).await {
            Ok(claims) => self.principal(&claims),
            Err(NoKey::Refused(why)) => Err(unauthenticated(why)),
            Err(NoKey::Fault(fault)) => Err(Refusal::from(fault)),
        }
    }

    fn principal(&self, claims: &Value) -> Result<Principal, Refusal> {
        let rule = &self.rule;
        let text = |path: &str| claim(claims, path).and_then(Value::as_str).map(str::to_owned);
        let agent = text(&rule.agent_claim).filter(|a| !a.is_empty() && a.len() <= 256);
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        let optional = |path: &Option<String>| path.as_deref().and_then(text);
        let mut tags = BTreeMap::new();
        if let Some(scope) = optional(&rule.scope_claim) {
            tags.insert("scope".to_owned(), scope);
        }
        Ok(Principal {
            agent: agent.ok_or_else(|| unauthenticated("the token names no agent"))?,
            groups: rule.group_claim.as_deref().and_then(|p| claim(claims, p)).map(list).unwrap_or_default(),
            org: optional(&rule.org_claim).unwrap_or_else(|| rule.org.clone()),
            owner: rule.owner.clone(),
            operator: optional(&rule.operator_claim),
            acting_for: optional(&rule.user_claim),
            acting_for_email: text("email").filter(|_| claims.get("email_verified") == Some(&Value::Bool(true))),
            claims: tags,
            method: AuthMethod::Jwt,
            subject: format!("{}|{subject}", rule.issuer),
        })
    }
}
