//! How an unknown outcome is cleared up: the time that must pass, and the read that tells.
//!
//! A read that asks for something the upstream never saw would prove of every call that it was not executed. So each
//! placeholder must stand for a thing that went upstream.

use serde_json::Value;

use crate::call::{Limits, Part, ProbeRule, QUIET, ReconcileRule, ToolKind, is_redacted};

use super::super::used::ToolConfig;
use super::{Ctx, file, reads};

pub(super) fn rule(
    ctx: &mut Ctx<'_>,
    at: &str,
    o: &file::Operation,
    config: &ToolConfig,
    schema: Option<&Value>,
    limits: Limits,
) -> ReconcileRule {
    let default = QUIET.max(limits.deadline);
    let Some(given) = &o.reconcile else { return ReconcileRule { after: default, read: None } };
    let after = ctx.duration(&format!("{at}/after"), given.after.as_ref(), default);
    if after < limits.deadline {
        let text = format!(
            "must be at least the operation's deadline ({}s): until then its request may still be on the wire",
            limits.deadline.as_secs()
        );
        ctx.err(format!("{at}/after"), text);
    }
    let read = match (&given.read, &given.found) {
        (None, None) => None,
        (Some(text), Some(found)) => read(ctx, at, (text, found), o, config, schema),
        _ => {
            ctx.err(at, "`read` and `found` belong together");
            None
        }
    };
    ReconcileRule { after, read }
}

fn read(
    ctx: &mut Ctx<'_>,
    at: &str,
    (text, found): (&str, &str),
    o: &file::Operation,
    config: &ToolConfig,
    schema: Option<&Value>,
) -> Option<ProbeRule> {
    let read_at = format!("{at}/read");
    if config.tool.kind == ToolKind::Mcp {
        ctx.err(read_at, "only REST tools can be read; what became of an MCP call is settled by two people");
        return None;
    }
    if config.tool.pass_through {
        ctx.err(read_at, "with `auth: pass_through` the proxy has no credential of its own to read with");
        return None;
    }
    if !found.starts_with('/') {
        ctx.err(format!("{at}/found"), format!("`{found}` is not a JSON Pointer such as `/items/0`"));
    }
    let rule = ctx.ok(&read_at, reads::parsed(text, &["GET"]))?;
    let mut named = 0;
    for part in rule.path.iter().chain(rule.query.iter().map(|(_, part)| part)) {
        named += usize::from(!matches!(part, Part::Text(_)));
        if let Err(why) = stands_for(part, o, schema) {
            ctx.err(&read_at, why);
        }
    }
    if named == 0 {
        ctx.err(&read_at, "names nothing of the call: put `:key` or an argument in, so that it asks for this one call");
    }
    Some(ProbeRule { read: rule, found: found.to_owned() })
}

/// Whether a placeholder stands for something that the upstream was told.
fn stands_for(part: &Part, o: &file::Operation, schema: Option<&Value>) -> Result<(), String> {
    let rule = o.idempotency.as_ref();
    let pointer = rule.and_then(|i| i.pointer.as_deref());
    let header = rule.is_some_and(|i| i.upstream.is_some());
    match part {
        Part::Text(_) => Ok(()),
        Part::Key if !header && pointer.is_some_and(|p| is_redacted(p, &o.redact)) => {
            Err("`:key` is redacted and must not stand in a URL".into())
        }
        Part::Key if header || pointer.is_some() => Ok(()),
        Part::Key => {
            Err("`:key` needs `idempotency.upstream: header` or `idempotency.pointer`: else the upstream never \
                          sees the key, and what it does not know proves nothing"
                .into())
        }
        Part::Call if header => Ok(()),
        Part::Call => Err("`:call` needs `idempotency.upstream: header`: else the upstream never sees the id".into()),
        Part::Argument(name) => reads::argument(name, o, schema),
    }
}
