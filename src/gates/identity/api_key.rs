//! Static keys: only digests are kept, and they are compared in constant time.

use std::collections::BTreeMap;

use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::call::{AuthMethod, Digest, Principal};
use crate::config::AgentKey;

#[derive(Debug)]
pub(super) struct ApiKeys(Vec<AgentKey>);

impl ApiKeys {
    pub(super) fn new(keys: Vec<AgentKey>) -> Self {
        Self(keys)
    }

    /// Looks at every key, whichever fits.
    pub(super) fn find(&self, token: &str) -> Option<Principal> {
        let digest = Digest::of(token.as_bytes());
        let mut found = Choice::from(0);
        let mut index = 0u32;
        for (i, key) in (0u32..).zip(&self.0) {
            let same = digest.as_bytes().ct_eq(key.digest.as_bytes());
            index.conditional_assign(&i, same);
            found |= same;
        }
        if !bool::from(found) {
            return None;
        }
        self.0.get(usize::try_from(index).ok()?).map(principal)
    }

    pub(super) fn has(&self, p: &Principal) -> bool {
        self.0.iter().any(|k| k.agent == p.agent && k.org == p.org)
    }
}

fn principal(key: &AgentKey) -> Principal {
    Principal {
        agent: key.agent.clone(),
        groups: key.groups.clone(),
        org: key.org.clone(),
        owner: key.owner.clone(),
        operator: key.operator.clone(),
        acting_for: None,
        acting_for_email: None,
        claims: BTreeMap::new(),
        method: AuthMethod::ApiKey,
        subject: format!("api_key|{}", key.agent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(agent: &str, secret: &str) -> AgentKey {
        AgentKey {
            agent: agent.into(),
            groups: vec![],
            owner: None,
            operator: None,
            org: "o".into(),
            digest: Digest::of(secret.as_bytes()),
        }
    }

    #[test]
    fn a_key_finds_its_own_agent_and_nothing_else_does() {
        let keys = ApiKeys::new(vec![key("a", "aaaa"), key("b", "bbbb")]);
        assert_eq!(keys.find("bbbb").unwrap().agent, "b");
        assert_eq!(keys.find("aaaa").unwrap().agent, "a");
        assert!(keys.find("").is_none());
        assert!(keys.find("aaaab").is_none());
    }
}
