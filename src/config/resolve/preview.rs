//! How the effect of an operation is foreseen.

use serde_json::Value;

use crate::call::{DiffRule, FenceRule, Part, PreviewRead, PreviewRule, ReadRule, ToolKind};

use super::super::used::ToolConfig;
use super::{Ctx, file, own_reads, reads};

/// Methods that a dry run may have.
const DRY: [&str; 4] = ["GET", "POST", "PUT", "PATCH"];

pub(super) fn rule(
    ctx: &mut Ctx<'_>,
    at: &str,
    o: &file::Operation,
    config: &ToolConfig,
    schema: Option<&Value>,
) -> Option<PreviewRule> {
    let given = o.preview.as_ref()?;
    if config.tool.pass_through {
        ctx.err(at, "with `auth: pass_through` the proxy has no credential of its own to read with");
        return None;
    }
    let is_mcp = config.tool.kind == ToolKind::Mcp;
    let read = match (&given.read, &given.call) {
        (Some(_), None) if is_mcp => {
            ctx.err(format!("{at}/read"), "an MCP tool is read with `call`, by an operation whose effect is `read`");
            return None;
        }
        (Some(text), None) => {
            let at = format!("{at}/read");
            let read = ctx.ok(&at, reads::parsed(text, &["GET"]))?;
            placeholders(ctx, &at, &read, o, schema);
            PreviewRead::Request(read)
        }
        (None, Some(name)) => {
            let name = format!("{}.{name}", config.tool.name);
            PreviewRead::Call(own_reads::rule(ctx, at, name, &given.with, (o, schema)))
        }
        _ => {
            ctx.err(at, "give exactly one of `read` and `call`");
            return None;
        }
    };
    if given.call.is_none() && !given.with.is_empty() {
        ctx.err(format!("{at}/with"), "belongs to `call`");
    }
    if is_mcp && given.diff.is_some() {
        ctx.err(
            format!("{at}/diff"),
            "the arguments of an MCP tool are no patch: leave it out, and the state is shown",
        );
    }
    let diff = given.diff.as_ref().and_then(|d| diff(ctx, &format!("{at}/diff"), d, o, schema));
    let fence = match &given.fence {
        None | Some(file::Fence::Plain(file::PlainFence::Hash)) => FenceRule::Hash,
        Some(file::Fence::Plain(file::PlainFence::Etag)) => {
            if is_mcp {
                ctx.err(format!("{at}/fence"), "an MCP tool has no `ETag`: `hash`, or `version` with a JSON Pointer");
            }
            FenceRule::Etag
        }
        Some(file::Fence::Field(field)) => {
            if !field.version.starts_with('/') {
                let text = format!("`{}` is not a JSON Pointer such as `/version`", field.version);
                ctx.err(format!("{at}/fence/version"), text);
            }
            FenceRule::Version(field.version.clone())
        }
    };
    Some(PreviewRule { read, diff, fence })
}

fn diff(
    ctx: &mut Ctx<'_>,
    at: &str,
    given: &file::Diff,
    o: &file::Operation,
    schema: Option<&Value>,
) -> Option<DiffRule> {
    let dry = match given {
        file::Diff::Plain(file::PlainDiff::MergePatch) => return Some(DiffRule::MergePatch),
        file::Diff::Plain(file::PlainDiff::JsonPatch) => return Some(DiffRule::JsonPatch),
        file::Diff::Plain(file::PlainDiff::Replace) => return Some(DiffRule::Replace),
        file::Diff::DryRun(dry) => &dry.dry_run,
    };
    let at = format!("{at}/dry-run");
    let run = ctx.ok(&at, reads::parsed(dry, &DRY))?;
    if o.matches.as_deref().is_some_and(|m| m == run.text) {
        ctx.err(&at, "is the operation itself: a dry run differs from it by path or query, and has no effect");
    }
    placeholders(ctx, &at, &run, o, schema);
    Some(DiffRule::DryRun(run))
}

/// Only arguments: what is read before the call cannot know its key.
fn placeholders(ctx: &mut Ctx<'_>, at: &str, rule: &ReadRule, o: &file::Operation, schema: Option<&Value>) {
    for part in rule.path.iter().chain(rule.query.iter().map(|(_, part)| part)) {
        let checked = match part {
            Part::Text(_) => Ok(()),
            Part::Key | Part::Call => Err("`:key` and `:call` mean nothing before the call was sent".to_owned()),
            Part::Argument(name) => reads::argument(name, o, schema),
        };
        if let Err(why) = checked {
            ctx.err(at, why);
        }
    }
}
