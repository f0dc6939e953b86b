//! Operations of a tool: from method and path (REST) or from the lock file (MCP).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::call::method::Role;
use crate::call::{Cost, Digest, Effects, HeldAs, IDLE, IdempotencyRule, Limits, Operation, Otherwise, Release};

use super::super::lock::{Lock, is_tool_name};
use super::super::used::{ToolConfig, UpstreamAt};
use super::{Ctx, file, methods, own_reads, preview, reconcile, tools, undo, units};

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// REST operations: each with its own match and schema.
pub(super) fn rest(ctx: &mut Ctx<'_>, t: &file::Tool, config: &mut ToolConfig) {
    let tool = config.tool.name.clone();
    if t.lock.is_some() {
        ctx.err(format!("/tools/{tool}/lock"), "only `kind: mcp` has a lock file");
    }
    if !t.methods.is_empty() {
        ctx.err(format!("/tools/{tool}/methods"), "only `kind: mcp` has methods");
    }
    let mut routes = matchit::Router::new();
    let known: BTreeMap<_, _> = t.operations.iter().map(|(name, o)| (name.clone(), o.matches.clone())).collect();
    for (name, o) in &t.operations {
        let at = format!("/tools/{tool}/operations/{name}");
        if !tools::is_name(name) {
            ctx.err(&at, "an operation's name is made of `a-z`, `0-9`, `_` and `-`, beginning with a letter");
        }
        let Some((method, template, params)) = route(ctx, &at, o) else { continue };
        if routes.insert(format!("/{method}{template}"), ()).is_err() {
            ctx.err(format!("{at}/match"), "matches the same requests as another operation");
        }
        let schema = rest_schema(ctx, &at, o, &method, &params);
        let mut operation = operation(ctx, &at, name, o, config, schema, params);
        operation.route = Some((method.to_string(), template.clone()));
        operation.undo = undo::rule(ctx, &format!("{at}/undo"), o, config, &known);
        config.rest.push((method, template, Arc::new(operation)));
    }
}

/// `POST /orders/:orderId/refunds` → method, matchit template, names of the parameters.
fn route(ctx: &mut Ctx<'_>, at: &str, o: &file::Operation) -> Option<(Method, String, Vec<String>)> {
    let at = format!("{at}/match");
    let Some(text) = &o.matches else {
        ctx.err(at, "missing: a REST operation needs `match`, such as `GET /customers/:customerId`");
        return None;
    };
    let Some((method, path)) = text.split_once(' ').filter(|(m, p)| METHODS.contains(m) && p.starts_with('/')) else {
        ctx.err(at, format!("`{text}` is not a method ({}) and a path", METHODS.join(", ")));
        return None;
    };
    let mut params: Vec<String> = Vec::new();
    let mut template = String::new();
    for segment in path.trim_start_matches('/').split('/') {
        let braced = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
        template.push('/');
        let Some(name) = segment.strip_prefix(':').or(braced) else {
            if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b)) {
                ctx.err(at, format!("the segment `{segment}` has characters that would need encoding"));
                return None;
            }
            template.push_str(segment);
            continue;
        };
        if name.is_empty() || params.iter().any(|p| p == name) {
            ctx.err(at, format!("the parameter `{name}` is empty or stands twice"));
            return None;
        }
        template.push_str(&format!("{{{name}}}"));
        params.push(name.to_owned());
    }
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    Some((method, template, params))
}

/// The operation's schema with its path parameters in: strings, required, unless the schema types them.
fn rest_schema(ctx: &mut Ctx<'_>, at: &str, o: &file::Operation, method: &Method, params: &[String]) -> Option<Value> {
    let mut schema = match &o.schema {
        Some(path) => {
            let text = ctx.read(&format!("{at}/schema"), path)?;
            let parsed = serde_json::from_str::<Value>(&text).map_err(|e| format!("`{}`: {e}", path.display()));
            ctx.ok(&format!("{at}/schema"), parsed)?
        }
        None if matches!(*method, Method::POST | Method::PUT | Method::PATCH) => {
            ctx.err(at, "takes a body but has no `schema`");
            return None;
        }
        None => json!({"type": "object", "properties": {}, "additionalProperties": false}),
    };
    let Some(members) = schema.as_object_mut() else {
        ctx.err(format!("{at}/schema"), "must be a JSON object");
        return None;
    };
    members.entry("type").or_insert_with(|| "object".into());
    let properties = members.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        for p in params {
            properties.entry(p.clone()).or_insert_with(|| json!({"type": "string", "minLength": 1}));
        }
    }
    let required = members.entry("required").or_insert_with(|| json!([]));
    if let Some(required) = required.as_array_mut() {
        for p in params.iter().map(|p| Value::from(p.as_str())) {
            if !required.contains(&p) {
                required.push(p);
            }
        }
    }
    Some(schema)
}

/// MCP operations: what the lock holds, as far as the configuration lists it.
pub(super) fn mcp(ctx: &mut Ctx<'_>, t: &file::Tool, config: &mut ToolConfig) {
    let tool = config.tool.name.clone();
    let at = format!("/tools/{tool}/lock");
    let Some(path) = &t.lock else {
        ctx.err(at, format!("missing: name a file, then run `holdpoint lock {tool}` to fill it"));
        return;
    };
    if ctx.unlocked {
        return;
    }
    let Some(text) = ctx.read(&at, path) else {
        if let Some((_, message)) = ctx.wrong.last_mut() {
            message.push_str(&format!("; run `holdpoint lock {tool}`"));
        }
        return;
    };
    let Some(lock) = ctx.ok(&at, Lock::parse(&text, &tool)) else { return };
    let mut used: BTreeMap<&str, bool> = t.operations.keys().map(|k| (k.as_str(), false)).collect();
    let known: BTreeMap<_, _> =
        lock.tools.keys().filter(|n| best_match(&t.operations, n).is_some()).map(|n| (n.clone(), None)).collect();
    for (name, locked) in &lock.tools {
        if !is_tool_name(name) {
            ctx.err(&at, format!("the tool name `{}` has characters that no name may have", name.escape_debug()));
            continue;
        }
        config.pins.insert(name.clone(), locked.clone());
        let Some((pattern, o)) = best_match(&t.operations, name) else {
            config.unlisted.push(name.clone());
            continue;
        };
        used.insert(pattern, true);
        let at = format!("/tools/{tool}/operations/{pattern}");
        let schema = locked.definition.get("inputSchema").cloned();
        let mut operation = operation(ctx, &at, name, o, config, schema, Vec::new());
        operation.undo = undo::rule(ctx, &format!("{at}/undo"), o, config, &known);
        if t.trust_annotations {
            operation.groups.extend(hints(&locked.definition));
        }
        config.mcp.insert(name.clone(), Arc::new(operation));
    }
    for (pattern, o) in &t.operations {
        let at = format!("/tools/{tool}/operations/{pattern}");
        if o.matches.is_some() || o.schema.is_some() {
            ctx.err(&at, "an MCP operation has no `match` and no `schema`: both come from the lock file");
        }
        // `*` alone says nothing that could be misspelt.
        if pattern != "*" && used.get(pattern.as_str()) == Some(&false) {
            ctx.err(&at, format!("no tool of that name in the lock file; `holdpoint lock {tool}` fetches anew"));
        }
    }
    methods::methods(ctx, t, config);
}

/// The action groups of a server's own hints, with the defaults of the specification.
fn hints(definition: &Value) -> impl Iterator<Item = String> {
    let hint = |name: &str, default: bool| {
        definition.get("annotations").and_then(|a| a.get(name)?.as_bool()).unwrap_or(default)
    };
    let read_only = hint("readOnlyHint", false);
    let all = [
        (read_only, "hint:read-only"),
        (!read_only && hint("destructiveHint", true), "hint:destructive"),
        (!read_only && hint("idempotentHint", false), "hint:idempotent"),
        (hint("openWorldHint", true), "hint:open-world"),
    ];
    all.into_iter().filter(|(is, _)| *is).map(|(_, group)| group.to_owned())
}

/// The exact name first, else the longest pattern that ends in `*`.
fn best_match<'a>(
    operations: &'a BTreeMap<String, file::Operation>,
    name: &str,
) -> Option<(&'a str, &'a file::Operation)> {
    let exact = operations.get_key_value(name);
    let matching = |pattern: &str| pattern.strip_suffix('*').is_some_and(|prefix| name.starts_with(prefix));
    let widest = || operations.iter().filter(|(p, _)| matching(p)).max_by_key(|(p, _)| p.len());
    exact.or_else(widest).map(|(p, o)| (p.as_str(), o))
}

fn operation(
    ctx: &mut Ctx<'_>,
    at: &str,
    name: &str,
    o: &file::Operation,
    config: &ToolConfig,
    schema: Option<Value>,
    path_params: Vec<String>,
) -> Operation {
    let effects = effects(ctx, at, &o.effect);
    let release = match o.release {
        _ if config.tool.pass_through => Release::Collect,
        Some(file::Release::Collect) => Release::Collect,
        Some(file::Release::Approval) | None => Release::Approval,
    };
    if config.tool.pass_through && o.release == Some(file::Release::Approval) {
        ctx.err(format!("{at}/release"), "with `auth: pass_through` only `collect` is possible: no credential is kept");
    }
    if matches!(config.upstream.at, UpstreamAt::Stdio(_)) {
        no_http(ctx, at, o);
    }
    pointers(ctx, at, o);
    urls(ctx, at, o, &path_params);
    let limits = limits(ctx, &format!("{at}/limits"), o.limits.as_ref(), config.upstream.timeout);
    let reconcile = reconcile::rule(ctx, &format!("{at}/reconcile"), o, config, schema.as_ref(), limits);
    Operation {
        name: format!("{}.{name}", config.tool.name),
        short: name.to_owned(),
        tool: Arc::clone(&config.tool),
        role: Role::Call,
        effects,
        groups: o.groups.clone(),
        release,
        held_as: match o.held_as {
            Some(file::HeldAs::Accepted) => HeldAs::Accepted,
            _ => HeldAs::Conflict,
        },
        idempotency: idempotency(ctx, &format!("{at}/idempotency"), o.idempotency.as_ref(), effects),
        cost: cost(ctx, &format!("{at}/cost"), o.cost.as_ref(), effects),
        reconcile,
        undo: None,
        delay: undo::delay(ctx, &format!("{at}/delay"), o, effects, release),
        preview: preview::rule(ctx, &format!("{at}/preview"), o, config, schema.as_ref()),
        evidence: own_reads::evidence(ctx, &format!("{at}/evidence"), o, schema.as_ref()),
        limits,
        target: o.target.clone(),
        redact: o.redact.clone(),
        title: o.title.clone(),
        not_now: o.not_now.clone(),
        schema_digest: Digest::of_json(schema.as_ref().unwrap_or(&Value::Null)),
        schema: schema.map(Arc::new),
        route: None,
        path_params,
    }
}

pub(super) fn effects(ctx: &mut Ctx<'_>, at: &str, given: &file::OneOrMany) -> Effects {
    let all: &[file::Effect] = match given {
        file::OneOrMany::One(e) => std::slice::from_ref(e),
        file::OneOrMany::Many(all) => all,
    };
    let has = |e| all.contains(&e);
    let effects = Effects {
        read: has(file::Effect::Read),
        write: has(file::Effect::Write),
        money: has(file::Effect::Money),
        irreversible: has(file::Effect::Irreversible),
    };
    if all.is_empty() || (effects.read && all.len() > 1) {
        ctx.err(format!("{at}/effect"), "is `read`, or one or more of `write`, `money`, `irreversible`");
    }
    effects
}

fn pointers(ctx: &mut Ctx<'_>, at: &str, o: &file::Operation) {
    let cost = o.cost.iter().flat_map(|c| [("cost/amount", &c.amount), ("cost/currency", &c.currency)]);
    let key = o.idempotency.iter().map(|i| ("idempotency/pointer", &i.pointer));
    let single = [("target", &o.target)].into_iter().chain(cost).chain(key);
    let all = single.filter_map(|(k, p)| p.as_ref().map(|p| (k, p))).chain(o.redact.iter().map(|p| ("redact", p)));
    for (key, pointer) in all.collect::<Vec<_>>() {
        if !pointer.starts_with('/') {
            ctx.err(format!("{at}/{key}"), format!("`{pointer}` is not a JSON Pointer such as `/amountMinor`"));
        }
    }
}

/// What is redacted must not stand in a URL: records, logs of upstreams and pages show those.
fn urls(ctx: &mut Ctx<'_>, at: &str, o: &file::Operation, path_params: &[String]) {
    let bodiless = o.matches.as_ref().is_some_and(|m| ["GET ", "HEAD ", "DELETE "].iter().any(|p| m.starts_with(p)));
    for pointer in &o.redact {
        let name = pointer.trim_start_matches('/');
        if bodiless || path_params.iter().any(|p| p == name) {
            ctx.err(
                format!("{at}/redact"),
                format!("`{pointer}` would stand in the URL; only members of a body can be redacted"),
            );
        }
    }
}

pub(super) fn idempotency(
    ctx: &mut Ctx<'_>,
    at: &str,
    given: Option<&file::Idempotency>,
    effects: Effects,
) -> IdempotencyRule {
    let risky = effects.money || effects.irreversible;
    let default = if risky { file::Otherwise::Derive } else { file::Otherwise::None };
    if let Some(name) = given.and_then(|g| g.header.as_ref()).filter(|n| !n.eq_ignore_ascii_case("idempotency-key")) {
        ctx.err(format!("{at}/header"), format!("`{name}`: only `Idempotency-Key` is read"));
    }
    let otherwise = given.and_then(|g| g.otherwise).unwrap_or(default);
    IdempotencyRule {
        pointer: given.and_then(|g| g.pointer.clone()),
        otherwise: match otherwise {
            file::Otherwise::Require => Otherwise::Require,
            file::Otherwise::Derive => Otherwise::Derive,
            file::Otherwise::None => Otherwise::None,
        },
        window: ctx.duration(&format!("{at}/window"), given.and_then(|g| g.window.as_ref()), Duration::from_secs(120)),
        keep: ctx.duration(&format!("{at}/keep"), given.and_then(|g| g.keep.as_ref()), Duration::from_secs(86_400)),
        upstream_header: given.is_some_and(|g| g.upstream.is_some()),
        repeatable: given.is_some_and(|g| g.repeatable),
    }
}

/// A command gets no header, has no status and no path: what stands on one of them would never come true.
fn no_http(ctx: &mut Ctx<'_>, at: &str, o: &file::Operation) {
    let keys = [
        ("idempotency/upstream", o.idempotency.as_ref().is_some_and(|i| i.upstream.is_some())),
        ("not_now", !o.not_now.is_empty()),
    ];
    for (key, _) in keys.iter().filter(|(_, given)| *given) {
        ctx.err(format!("{at}/{key}"), "needs an upstream with a `url`, not a `command`");
    }
}

fn cost(ctx: &mut Ctx<'_>, at: &str, given: Option<&file::Cost>, effects: Effects) -> Cost {
    let Some(c) = given else {
        if effects.money {
            ctx.err(
                at,
                "missing: an operation that moves money must say what it costs (`amount` and `currency`, or `fixed`)",
            );
        }
        return Cost { calls: 1, money: None, amount: None };
    };
    let fixed = c.fixed.as_ref();
    let money =
        fixed.and_then(|f| f.money.as_ref()).and_then(|m| ctx.ok(&format!("{at}/fixed/money"), units::money(m)));
    let calls = fixed.and_then(|f| f.calls).unwrap_or(1);
    if calls < 0 {
        ctx.err(format!("{at}/fixed/calls"), "must not be negative");
    }
    let amount = match (&c.amount, &c.currency) {
        (Some(a), Some(k)) => Some((a.clone(), k.clone())),
        (None, None) => None,
        _ => {
            ctx.err(at, "`amount` and `currency` belong together");
            None
        }
    };
    if amount.is_some() && money.is_some() {
        ctx.err(at, "give a fixed price or pointers, not both");
    }
    if effects.money && amount.is_none() && money.is_none() {
        ctx.err(at, "an operation that moves money must say how much");
    }
    Cost { calls, money, amount }
}

fn limits(ctx: &mut Ctx<'_>, at: &str, given: Option<&file::Limits>, timeout: Duration) -> Limits {
    let mut size = |key: &str, text: Option<&String>, default: usize| {
        text.and_then(|t| ctx.ok(&format!("{at}/{key}"), units::size(t))).unwrap_or(default)
    };
    let body = size("body", given.and_then(|g| g.body.as_ref()), 1 << 20);
    let answer = size("answer", given.and_then(|g| g.answer.as_ref()), 16 << 20);
    let deadline = ctx.duration(&format!("{at}/deadline"), given.and_then(|g| g.deadline.as_ref()), timeout);
    Limits { body, answer, deadline, idle: IDLE }
}
