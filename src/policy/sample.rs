//! The toy tools that the shipped policies are about, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Defaults, Finding, Loaded, Model, Reviewer, Source, load_sources};
use crate::call::{
    AuthMethod, Call, CallContext, CallId, Checked, Cost, Digest, Effects, Facts, HeldAs, History, IdempotencyRule,
    Limits, Meter, Meters, Operation, Otherwise, OutRequest, Preference, Principal, QUIET, ReconcileRule, Release,
    Target, Timestamp, Tool, ToolKind,
};

/// A tool of the toy world.
pub(crate) fn tool(name: &str, kind: ToolKind) -> Arc<Tool> {
    Arc::new(Tool {
        name: name.to_owned(),
        kind,
        env: "prod".to_owned(),
        owner: "support-leads".to_owned(),
        data_classes: vec!["pii".to_owned()],
        mount: vec![name.to_owned()],
        upstream: format!("http://{name}.internal"),
        forward_headers: Vec::new(),
        pass_through: false,
    })
}

/// An operation of the toy world.
pub(crate) fn operation(tool: &Arc<Tool>, short: &str, effects: Effects, schema: Option<Value>) -> Operation {
    Operation {
        name: format!("{}.{short}", tool.name),
        short: short.to_owned(),
        tool: Arc::clone(tool),
        role: crate::call::method::Role::Call,
        effects,
        groups: Vec::new(),
        release: Release::Approval,
        held_as: HeldAs::Conflict,
        idempotency: IdempotencyRule {
            pointer: None,
            otherwise: Otherwise::None,
            window: Duration::from_secs(120),
            keep: Duration::from_secs(3600),
            upstream_header: false,
            repeatable: false,
        },
        reconcile: ReconcileRule { after: QUIET, read: None },
        preview: None,
        evidence: Vec::new(),
        undo: None,
        delay: None,
        cost: Cost::default(),
        limits: Limits { body: 1 << 20, answer: 1 << 24, deadline: Duration::from_secs(30), idle: crate::call::IDLE },
        target: None,
        redact: Vec::new(),
        title: None,
        not_now: Vec::new(),
        schema_digest: Digest::of(b""),
        schema: schema.map(Arc::new),
        route: None,
        path_params: Vec::new(),
    }
}

pub(crate) const READ: Effects = Effects { read: true, write: false, money: false, irreversible: false };
pub(crate) const WRITE: Effects = Effects { read: false, write: true, money: false, irreversible: false };
pub(crate) const FINAL: Effects = Effects { read: false, write: false, money: false, irreversible: true };
pub(crate) const MONEY: Effects = Effects { read: false, write: false, money: true, irreversible: true };

fn file(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn with_path(mut operation: Operation, names: &[&str]) -> Operation {
    operation.path_params = names.iter().map(|n| (*n).to_owned()).collect();
    operation
}

fn object(properties: Value, required: &[&str]) -> Option<Value> {
    Some(json!({"type": "object", "properties": properties, "required": required}))
}

/// The toy CRM and the toy ticket server, with a few reviewers.
pub(crate) fn model() -> Model {
    let crm = tool("crm", ToolKind::Rest);
    let tickets = tool("tickets", ToolKind::Mcp);
    let text = || json!({"type": "string"});
    let hard = object(json!({"ticketId": text(), "hard": {"type": "boolean"}}), &["ticketId"]);
    let search = object(json!({"query": text(), "limit": {"type": "integer", "maximum": 100}}), &["query"]);
    let comment = object(json!({"ticketId": text(), "body": text()}), &["ticketId", "body"]);
    let operations = vec![
        with_path(operation(&crm, "get_customer", READ, None), &["customerId"]),
        with_path(operation(&crm, "get_order", READ, None), &["orderId"]),
        with_path(operation(&crm, "update_customer", WRITE, Some(file("update_customer.json"))), &["customerId"]),
        with_path(operation(&crm, "refund", MONEY, Some(file("refund.json"))), &["orderId"]),
        operation(&tickets, "search_tickets", READ, search),
        operation(&tickets, "get_ticket", READ, object(json!({"ticketId": text()}), &["ticketId"])),
        operation(&tickets, "add_comment", WRITE, comment),
        operation(&tickets, "delete_ticket", FINAL, hard),
    ];
    let reviewer = |user: &str, group: &str| Reviewer { user: user.to_owned(), groups: vec![group.to_owned()] };
    Model {
        operations: operations.into_iter().map(Arc::new).collect(),
        tools: vec![crm, tickets],
        agent_groups: BTreeSet::from(["support".to_owned()]),
        teams: BTreeSet::new(),
        workflows: BTreeMap::from([("refunds".to_owned(), Some("support-leads".to_owned()))]),
        default_workflow: "refunds".to_owned(),
        stages: BTreeMap::from([("refunds".to_owned(), "checkpointed".to_owned())]),
        stages_in_force: BTreeSet::from(["checkpointed".to_owned()]),
        reviewers: Some(vec![
            reviewer("maya", "support-leads"),
            reviewer("noor", "support-leads"),
            reviewer("finn", "finance"),
            reviewer("dana", "data-stewards"),
            reviewer("pat", "platform"),
        ]),
    }
}

/// Loads one text as a set.
pub(crate) fn try_loaded(text: &str) -> Result<Loaded, Vec<Finding>> {
    let source = Source::new("policies/test.cedar", text);
    load_sources(&[source], &model(), Defaults::default())
}

/// Loads one text as a set, or shows what is wrong with it.
pub(crate) fn loaded(text: &str) -> Loaded {
    try_loaded(text).unwrap_or_else(|all| panic!("{}", all.iter().map(|f| format!("{f}\n")).collect::<String>()))
}

/// The shipped set.
pub(crate) fn shipped() -> Loaded {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let all = super::load(&dir, &model(), Defaults::default());
    all.unwrap_or_else(|all| panic!("{}", all.iter().map(|f| format!("{f}\n")).collect::<String>()))
}

/// The toy agent.
pub(crate) fn support_bot() -> Principal {
    Principal {
        agent: "support-bot".to_owned(),
        groups: vec!["support".to_owned()],
        org: "acme".to_owned(),
        owner: Some("support-leads".to_owned()),
        operator: None,
        acting_for: Some("ana".to_owned()),
        acting_for_email: Some("ana@acme.dev".to_owned()),
        claims: BTreeMap::from([("scope".to_owned(), "crm".to_owned())]),
        method: AuthMethod::ApiKey,
        subject: "key|support-bot".to_owned(),
    }
}

/// The same agent under another name.
pub(crate) fn named(agent: &str) -> Principal {
    Principal { agent: agent.to_owned(), ..support_bot() }
}

/// Nothing was spent, nothing happened before.
pub(crate) fn facts() -> Facts {
    let meter = Meter { used_pct: 10, remaining_minor: Some(90_000) };
    Facts {
        now: Timestamp::from_millis(1_795_440_600_123),
        evidence: BTreeSet::from(["ticket".to_owned()]),
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        budget: Meters { step: Meter::default(), run: meter, user: meter, org: meter },
        history: History::default(),
        trust: crate::call::Trust::default(),
    }
}

/// A call of an operation of the model.
pub(crate) fn call(model: &Model, name: &str, arguments: Value) -> Call {
    let operation = model.operations.iter().find(|o| o.name == name).unwrap();
    polling(operation, arguments, None)
}

/// A call whose client came back with this state.
#[expect(clippy::disallowed_methods, reason = "tests of gates need calls without the schema gate")]
pub(crate) fn polling(operation: &Arc<Operation>, arguments: Value, poll: Option<&str>) -> Call {
    let checked = Checked {
        id: CallId::new(),
        operation: Arc::clone(operation),
        arguments,
        request: OutRequest {
            target: Target { method: "POST".to_owned(), path: "/".to_owned() },
            content_type: None,
            body: bytes::Bytes::new(),
            headers: Vec::new(),
            rpc: None,
        },
        key: None,
        key_derived: false,
        named_run: None,
        context: CallContext {
            workflow: "refunds".to_owned(),
            stage: "checkpointed".to_owned(),
            run: "run-1".to_owned(),
            step: Some("refund".to_owned()),
            intent: None,
            confidence: None,
            source_ip: None,
        },
        evidence: Vec::new(),
        source_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        prefer: Preference::default(),
        poll: poll.map(str::to_owned),
        deadline: now(),
    };
    Call::checked(checked, &support_bot())
}

#[expect(clippy::disallowed_methods, reason = "a deadline that no test of policy looks at")]
fn now() -> Instant {
    Instant::now()
}
