//! How calls are taken back: by another operation of the same tool, or by waiting before they are sent.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::call::{Effects, Release, UNDO_WITHIN, UndoHow, UndoRule, UndoValue};

use super::super::used::ToolConfig;
use super::{Ctx, file};

/// The rule of one operation; `known` are the operations of its tool.
pub(super) fn rule(
    ctx: &mut Ctx<'_>,
    at: &str,
    o: &file::Operation,
    config: &ToolConfig,
    known: &BTreeMap<String, Option<String>>,
) -> Option<UndoRule> {
    let given = o.undo.as_ref()?;
    if config.tool.pass_through && !matches!(given, file::Undo::Never(_)) {
        ctx.err(at, "with `auth: pass_through` the proxy has no credential of its own to undo with");
        return None;
    }
    let (name, how, within) = match given {
        file::Undo::Never(_) => return None,
        file::Undo::Before(u) => {
            let name = known.iter().find(|(_, m)| m.as_deref() == Some(u.matches.as_str())).map(|(name, _)| name);
            let Some(name) = name else {
                ctx.err(format!("{at}/match"), format!("`{}` is the `match` of no operation of this tool", u.matches));
                return None;
            };
            (name, UndoHow::Before, &u.within)
        }
        file::Undo::Call(u) => {
            let Some((name, _)) = known.get_key_value(&u.call) else {
                ctx.err(format!("{at}/call"), format!("`{}` is no operation of this tool", u.call));
                return None;
            };
            let value = |ctx: &mut Ctx<'_>, (name, text): (&String, &String)| {
                let value = ctx.ok(&format!("{at}/with/{name}"), parsed(text))?;
                Some((name.clone(), value))
            };
            let all = u.with.iter().filter_map(|pair| value(ctx, pair)).collect();
            (name, UndoHow::With(all), &u.within)
        }
    };
    let within = ctx.duration(&format!("{at}/within"), within.as_ref(), UNDO_WITHIN);
    let rule = UndoRule { operation: format!("{}.{name}", config.tool.name), how, within };
    if rule.needs_before() && o.preview.is_none() {
        ctx.err(at, "needs the state before: say with `preview` how it is read");
    }
    Some(rule)
}

/// `result./id`, `input./customerId`, `before./email`.
fn parsed(text: &str) -> Result<UndoValue, String> {
    let (from, pointer) = text.split_once('.').unwrap_or((text, ""));
    if !pointer.starts_with('/') {
        return Err(format!(
            "`{text}` is not `result.`, `input.` or `before.` and a JSON Pointer, such as `result./id`"
        ));
    }
    let pointer = pointer.to_owned();
    match from {
        "result" => Ok(UndoValue::Result(pointer)),
        "input" => Ok(UndoValue::Input(pointer)),
        "before" => Ok(UndoValue::Before(pointer)),
        _ => Err(format!("`{from}` is not `result`, `input` or `before`")),
    }
}

/// How long an execution waits, so that it can still be taken back.
pub(super) fn delay(
    ctx: &mut Ctx<'_>,
    at: &str,
    o: &file::Operation,
    effects: Effects,
    release: Release,
) -> Option<Duration> {
    let text = o.delay.as_ref()?;
    let delay = ctx.duration(at, Some(text), Duration::ZERO);
    if delay.is_zero() {
        ctx.err(at, "must be longer than nothing");
    }
    if effects.is_read() {
        ctx.err(at, "a read has nothing that could be taken back");
    }
    if release == Release::Collect {
        ctx.err(at, "needs `release: approval`: what the client's return sends cannot wait for its time");
    }
    Some(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_say_where_they_come_from() {
        assert_eq!(parsed("result./id"), Ok(UndoValue::Result("/id".into())));
        assert_eq!(parsed("before./a.b"), Ok(UndoValue::Before("/a.b".into())));
        for text in ["id", "result", "result.id", "answer./id"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
