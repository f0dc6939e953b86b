//! Records for tests.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::call::{
    AuthMethod, CallContext, CallId, Digest, GrantId, Leans, Loose, Needs, Principal, Requirement, Target, Terms, Tier,
    Timestamp, rest_of,
};

use super::{CallRecord, Grant, State, StoredRequest, Vote};

pub(crate) const START: Timestamp = Timestamp::from_millis(1_795_440_600_000);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn principal() -> Principal {
    Principal {
        agent: "bot".into(),
        groups: vec![],
        org: "acme".into(),
        owner: None,
        operator: Some("olga".into()),
        acting_for: Some("anna".into()),
        acting_for_email: Some("Anna@acme.example".into()),
        claims: Default::default(),
        method: AuthMethod::ApiKey,
        subject: "key|bot".into(),
    }
}

pub(crate) fn terms(tier: Tier, requirements: &[(&[&str], bool)], people: usize) -> Terms {
    let requirement = |(i, (groups, all)): (usize, &(&[&str], bool))| Requirement {
        policy: format!("p{i}"),
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        all: *all,
    };
    Terms {
        tier,
        why: vec![],
        needs: Needs {
            people,
            requirements: requirements.iter().enumerate().map(requirement).collect(),
            justification: tier == Tier::High,
            evidence: vec![],
        },
        sla: MINUTE * 15,
        expires: MINUTE * 60,
        window: MINUTE * 15,
        policy_digest: Digest::of(b"policy"),
    }
}

pub(crate) fn record(state: State, fingerprint: &str, key: Option<&str>) -> CallRecord {
    let held = state == State::Held || state == State::Approved;
    CallRecord {
        id: CallId::new(),
        version: 1,
        state,
        operation: "crm.refund".into(),
        tool: "crm".into(),
        effects: vec!["money".into()],
        principal: principal().into(),
        context: CallContext { workflow: "w".into(), run: "r1".into(), ..CallContext::default() }.into(),
        key: key.map(str::to_owned),
        key_derived: false,
        keep: MINUTE * 60 * 24,
        fingerprint: Digest::of(fingerprint.as_bytes()),
        digest: Digest::of(b"digest"),
        request: StoredRequest {
            target: Target { method: "POST".into(), path: "/refunds".into() },
            content_type: None,
            headers: vec![],
            rpc: None,
            body: None,
            arguments: None,
        },
        arguments: json!({"amount": 5, "card": "[redacted]"}).into(),
        schema_digest: Digest::of(b"schema"),
        config_digest: Digest::of(b"config"),
        policy_digest: Digest::of(b"policy"),
        tier: if held { Tier::Medium } else { Tier::Low },
        policies: vec![],
        facts: None,
        would: Vec::new(),
        preview: None,
        undoes: None,
        grant: None,
        delay: None,
        not_before: None,
        edited: None,
        terms: held.then(|| terms(Tier::Medium, &[(&["ops", "lead"], false)], 1)),
        release_by_proxy: false,
        title: "Refund".into(),
        handling: None,
        unfetched: Vec::new(),
        deny_alike: None,
        approvals: vec![],
        evidence: vec![],
        created: START,
        updated: START,
        expires: (state == State::Held).then(|| START.plus(MINUTE * 60)),
        window_closes: (state == State::Approved).then(|| START.plus(MINUTE * 15)),
        halted: None,
        renewals: 0,
        attempt: 0,
        epoch: 0,
        begun: None,
        quiet_for: MINUTE * 10,
        quiet_after: None,
        resend: None,
        charges: vec![],
        answer: None,
        note: None,
        opinion: None,
        collected: None,
        target: None,
        money: None,
        seq: 0,
        frames: Vec::new(),
    }
}

/// A grant for calls like `from`, with any amount up to `most`, so often, and up to so much in all.
pub(crate) fn grant(from: &CallRecord, most: i64, uses: u32, sum: i64) -> Grant {
    let id = GrantId::new();
    let loose = BTreeMap::from([("/amount".to_owned(), Loose::Max(most))]);
    let text = BTreeMap::from([("p0".to_owned(), Digest::of(b"p0"))]);
    Grant {
        id,
        operation: from.operation.clone(),
        tool: from.tool.clone(),
        principal: from.principal.key(),
        workflow: from.context.workflow.clone(),
        from: from.id,
        title: from.title.clone(),
        arguments: from.arguments.clone(),
        rest: rest_of(id, &from.arguments, &loose),
        loose,
        max_uses: Some(uses),
        sums: BTreeMap::from([("/amount".to_owned(), sum)]),
        leans: Leans {
            forbids: text.clone(),
            permits: text,
            schema: Digest::of(b"schema"),
            definition: Digest::of(b"tool"),
        },
        by: "eve".into(),
        aliases: vec!["eve@acme.example".into(), "idp|eve".into()],
        channel: "api".into(),
        reason: None,
        created: START,
        expires: START.plus(MINUTE * 60),
        ended: None,
    }
}

pub(crate) fn vote(record: &CallRecord, person: &str, groups: &[&str]) -> Vote {
    Vote {
        id: record.id,
        version: None,
        digest: record.digest,
        person: person.into(),
        aliases: vec![format!("{person}@acme.example")],
        subject: format!("idp|{person}"),
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        as_group: None,
        channel: "api".into(),
        justification: Some("looked at it".into()),
    }
}
