//! The methods of an MCP server beside `tools/call`, each an operation that policy can judge.

use std::sync::Arc;
use std::time::Duration;

use crate::call::method::{KNOWN, KnownMethod, Role};
use crate::call::{Cost, Digest, Effects, HeldAs, IDLE, Limits, Operation, QUIET, ReconcileRule, Release};

use super::super::used::ToolConfig;
use super::{Ctx, file, operations};

/// Request body, bytes.
const BODY: usize = 1 << 20;
/// Answer, bytes.
const ANSWER: usize = 16 << 20;
/// A stream that is listened to may stay silent for this long.
const LISTEN: Duration = Duration::from_secs(3600);

/// All methods that are known, and those that the configuration adds.
pub(super) fn methods(ctx: &mut Ctx<'_>, t: &file::Tool, config: &mut ToolConfig) {
    for known in KNOWN {
        let given = t.methods.get(known.name);
        let operation = operation(ctx, known.name, Some(*known), given, config);
        config.methods.insert(known.name.to_owned(), Arc::new(operation));
    }
    for (name, given) in t.methods.iter().filter(|(name, _)| KnownMethod::find(name).is_none()) {
        let at = format!("/tools/{}/methods/{name}", config.tool.name);
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_./-".contains(&b));
        if name == "tools/call" || name.is_empty() || !plain {
            ctx.err(at, "is not a method beside `tools/call`; patterns are not known here");
            continue;
        }
        let operation = operation(ctx, name, None, Some(given), config);
        config.methods.insert(name.clone(), Arc::new(operation));
    }
}

fn operation(
    ctx: &mut Ctx<'_>,
    name: &str,
    known: Option<KnownMethod>,
    given: Option<&file::Method>,
    config: &ToolConfig,
) -> Operation {
    let at = format!("/tools/{}/methods/{name}", config.tool.name);
    let writes = known.is_none_or(|k| k.writes);
    let usual = Effects { read: !writes, write: writes, ..Effects::default() };
    let effects = given.map_or(usual, |g| operations::effects(ctx, &at, &g.effect));
    if effects.money {
        ctx.err(format!("{at}/effect"), "a method cannot move money: nothing says how much");
    }
    let listens = known.is_some_and(|k| k.listens);
    let role = known.map_or(Role::Method, |k| k.role);
    if role == Role::Handshake && given.is_some() {
        ctx.err(&at, "carries the protocol itself: a policy may forbid it, and nothing else can be said of it");
    }
    let short = known.map_or_else(|| name.to_owned(), |k| k.short().to_owned());
    let schema =
        known.map_or_else(|| serde_json::json!({"type": "object", "additionalProperties": true}), KnownMethod::schema);
    Operation {
        name: format!("{}:{short}", config.tool.name),
        short,
        tool: Arc::clone(&config.tool),
        role,
        effects,
        groups: given.map(|g| g.groups.clone()).unwrap_or_default(),
        release: if config.tool.pass_through { Release::Collect } else { Release::Approval },
        held_as: HeldAs::Conflict,
        idempotency: operations::idempotency(ctx, &at, None, effects),
        reconcile: ReconcileRule { after: QUIET.max(config.upstream.timeout), read: None },
        preview: None,
        evidence: Vec::new(),
        undo: None,
        delay: None,
        cost: Cost::default(),
        limits: Limits {
            body: BODY,
            answer: if listens { usize::MAX } else { ANSWER },
            deadline: config.upstream.timeout,
            idle: if listens { LISTEN } else { IDLE },
        },
        target: None,
        redact: Vec::new(),
        title: None,
        not_now: Vec::new(),
        schema_digest: Digest::of_json(&schema),
        schema: Some(Arc::new(schema)),
        route: None,
        path_params: Vec::new(),
    }
}
