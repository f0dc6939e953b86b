//! Client certificates: TLS has verified the chain; here the name in it becomes an agent.

use std::collections::BTreeMap;

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::call::{AuthMethod, Principal, Refusal};
use crate::config::MtlsRule;

use super::unauthenticated;

#[derive(Debug)]
pub(super) struct Mtls(MtlsRule);

impl Mtls {
    pub(super) fn new(rule: MtlsRule) -> Self {
        Self(rule)
    }

    pub(super) fn find(&self, der: &[u8]) -> Result<Principal, Refusal> {
        let name = name(der, self.0.by_uri).ok_or_else(|| unauthenticated("the certificate has no usable name"))?;
        let agent = self.0.agents.get(&name).ok_or_else(|| unauthenticated("the certificate names no known agent"))?;
        Ok(Principal {
            agent: agent.agent.clone(),
            groups: agent.groups.clone(),
            org: agent.org.clone(),
            owner: agent.owner.clone(),
            operator: agent.operator.clone(),
            acting_for: None,
            acting_for_email: None,
            claims: BTreeMap::new(),
            method: AuthMethod::Mtls,
            subject: format!("mtls|{name}"),
        })
    }

    pub(super) fn has(&self, p: &Principal) -> bool {
        self.0.agents.values().any(|a| a.agent == p.agent && a.org == p.org)
    }
}

/// The one URI name (a SPIFFE id has exactly one), or the one common name of the subject.
fn name(der: &[u8], by_uri: bool) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    if !by_uri {
        let mut names = certificate.subject().iter_common_name();
        let name = names.next()?.as_str().ok()?.to_owned();
        return names.next().is_none().then_some(name);
    }
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|n| match n {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    let uri = uris.next()?;
    uris.next().is_none().then_some(uri)
}
