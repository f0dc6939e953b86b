//! Reads that the proxy makes by itself with an operation: `call` and `with` of previews and evidence.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::call::{EvidenceRule, Operation, OwnRead, is_redacted};

use super::super::used::ToolConfig;
use super::{Ctx, file};

/// Kinds that are fetched for one call.
const KINDS: usize = 8;

/// The read as written. Whether its operation is there and changes nothing can be said once all are known: [`check`].
pub(super) fn rule(
    ctx: &mut Ctx<'_>,
    at: &str,
    operation: String,
    with: &BTreeMap<String, String>,
    (o, schema): (&file::Operation, Option<&Value>),
) -> OwnRead {
    let one = |ctx: &mut Ctx<'_>, (name, text): (&String, &String)| {
        let pointer = ctx.ok(&format!("{at}/with/{name}"), input(text, o, schema))?;
        Some((name.clone(), pointer))
    };
    let with = with.iter().filter_map(|pair| one(ctx, pair)).collect();
    let read = OwnRead { operation, with };
    let asked = (at.to_owned(), read.clone());
    // A pattern of operations says it once.
    if !ctx.own_reads.contains(&asked) {
        ctx.own_reads.push(asked);
    }
    read
}

/// Evidence that is fetched when a call of this operation is held.
pub(super) fn evidence(ctx: &mut Ctx<'_>, at: &str, o: &file::Operation, schema: Option<&Value>) -> Vec<EvidenceRule> {
    if o.evidence.len() > KINDS {
        ctx.err(at, format!("names more than {KINDS} kinds"));
    }
    let one = |(kind, given): (&String, &file::Evidence)| {
        let at = format!("{at}/{kind}");
        if !is_word(kind) {
            ctx.err(&at, "a kind is a word such as `ticket`: letters, digits, `_` and `-`");
        }
        let pointers = given.check.keys().map(|p| ("check", p)).chain(given.redact.iter().map(|p| ("redact", p)));
        for (key, pointer) in pointers.filter(|(_, pointer)| !pointer.starts_with('/')) {
            ctx.err(format!("{at}/{key}"), format!("`{pointer}` is not a JSON Pointer such as `/status`"));
        }
        let read = rule(ctx, &at, given.call.clone(), &given.with, (o, schema));
        let check = given.check.iter().map(|(pointer, value)| (pointer.clone(), value.clone())).collect();
        EvidenceRule { kind: kind.clone(), read, check, redact: given.redact.clone() }
    };
    o.evidence.iter().map(one).collect()
}

fn is_word(kind: &str) -> bool {
    (1..=64).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// `input./ticketId`: the pointer.
fn input(text: &str, o: &file::Operation, schema: Option<&Value>) -> Result<String, String> {
    let pointer = text.strip_prefix("input.").filter(|p| p.starts_with('/'));
    let pointer =
        pointer.ok_or_else(|| format!("`{text}` is not `input.` and a JSON Pointer, such as `input./ticketId`"))?;
    if is_redacted(pointer, &o.redact) {
        return Err(format!("`{pointer}` is redacted and must not be handed to another operation"));
    }
    let first = pointer.split('/').nth(1).unwrap_or_default().replace("~1", "/").replace("~0", "~");
    let known = schema.and_then(|s| s.get("properties")?.get(&first)).is_some();
    if known { Ok(pointer.to_owned()) } else { Err(format!("`{first}` is no argument of this operation")) }
}

/// Whether each of them can be made: by a read operation, with a credential of the proxy's own, with all its arguments.
pub(super) fn check(ctx: &mut Ctx<'_>, tools: &[ToolConfig]) {
    for (at, read) in std::mem::take(&mut ctx.own_reads) {
        let found = tools.iter().flat_map(ToolConfig::calls).find(|o| o.name == read.operation);
        match found {
            Some(operation) => fits(ctx, &at, &read, operation),
            // Lock files may be missing still.
            None if ctx.unlocked => {}
            None => ctx.err(format!("{at}/call"), unknown(&read.operation, tools)),
        }
    }
}

fn unknown(name: &str, tools: &[ToolConfig]) -> String {
    let alike = tools.iter().flat_map(ToolConfig::calls).find(|o| o.short == name);
    let hint = alike.map(|o| format!("; did you mean `{}`?", o.name)).unwrap_or_default();
    format!("`{name}` is no operation of this configuration{hint}")
}

fn fits(ctx: &mut Ctx<'_>, at: &str, read: &OwnRead, operation: &Operation) {
    let name = &operation.name;
    if !operation.effects.is_read() {
        ctx.err(
            format!("{at}/call"),
            format!("`{name}` has not the effect `read`: what the proxy asks changes nothing"),
        );
    }
    if operation.tool.pass_through {
        let text = format!("`{name}`: with `auth: pass_through` the proxy has no credential of its own to read with");
        ctx.err(format!("{at}/call"), text);
    }
    let schema = operation.schema.as_deref().unwrap_or(&Value::Null);
    let property = |argument: &str| schema.get("properties").and_then(|p| p.get(argument));
    for (argument, _) in read.with.iter().filter(|(argument, _)| property(argument).is_none()) {
        ctx.err(format!("{at}/with/{argument}"), format!("`{argument}` is no argument of `{name}`"));
    }
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let given = |argument: &&str| read.with.iter().any(|(name, _)| name == argument);
    let default = |argument: &&str| property(argument).is_some_and(|p| p.get("default").is_some());
    for argument in required.filter(|a| !given(a) && !default(a)) {
        ctx.err(
            format!("{at}/with"),
            format!("`{name}` needs `{argument}`: say where it stands, such as `input./{argument}`"),
        );
    }
}
