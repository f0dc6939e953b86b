//! Tools: mounts, upstreams, breakers, and their operations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::call::{Tool, ToolKind};

use super::super::used::{BreakerRule, ToolConfig};
use super::{Ctx, file, operations, upstream};

pub(super) fn tools(ctx: &mut Ctx<'_>, all: &BTreeMap<String, file::Tool>) -> Vec<ToolConfig> {
    if all.is_empty() {
        ctx.err("/tools", "names no tool");
    }
    let tools: Vec<_> = all.iter().filter_map(|(name, t)| tool(ctx, name, t)).collect();
    for (i, a) in tools.iter().enumerate() {
        for b in tools.iter().skip(i + 1).filter(|b| overlap(&a.tool.mount, &b.tool.mount)) {
            let at = format!("/tools/{}/mount", b.tool.name);
            ctx.err(at, format!("overlaps with the mount of `{}`", a.tool.name));
        }
    }
    tools
}

fn overlap(a: &[String], b: &[String]) -> bool {
    a.iter().zip(b).all(|(x, y)| x == y)
}

fn tool(ctx: &mut Ctx<'_>, name: &str, t: &file::Tool) -> Option<ToolConfig> {
    let at = format!("/tools/{name}");
    if !is_name(name) {
        ctx.err(&at, "a tool's name is made of `a-z`, `0-9`, `_` and `-`, beginning with a letter");
    }
    let env = t.env.clone().unwrap_or_else(|| "prod".into());
    if !["prod", "staging", "dev"].contains(&env.as_str()) {
        ctx.err(format!("{at}/env"), format!("`{env}` is not `prod`, `staging` or `dev`"));
    }
    let mount = mount(ctx, &format!("{at}/mount"), &t.mount)?;
    let upstream = upstream::upstream(ctx, &format!("{at}/upstream"), t.kind, &t.upstream)?;
    let tool = Arc::new(Tool {
        name: name.to_owned(),
        kind: if t.kind == file::Kind::Rest { ToolKind::Rest } else { ToolKind::Mcp },
        env,
        owner: t.owner.clone(),
        data_classes: t.data_classes.clone(),
        mount,
        upstream: format!("{}{}", upstream.origin(), upstream.base()),
        forward_headers: t.upstream.forward_headers.iter().map(|h| h.to_ascii_lowercase()).collect(),
        pass_through: upstream.passes_through(),
    });
    let mut config = ToolConfig {
        breaker: breaker(ctx, &format!("{at}/breaker"), t.breaker.as_ref()),
        tool,
        upstream,
        rest: Vec::new(),
        mcp: BTreeMap::new(),
        unlisted: Vec::new(),
        pins: BTreeMap::new(),
        methods: BTreeMap::new(),
    };
    if t.operations.is_empty() && t.kind == file::Kind::Rest {
        ctx.err(format!("{at}/operations"), "names no operation: everything would be refused");
    }
    match t.kind {
        file::Kind::Rest => operations::rest(ctx, t, &mut config),
        file::Kind::Mcp => operations::mcp(ctx, t, &mut config),
    }
    Some(config)
}

pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

fn mount(ctx: &mut Ctx<'_>, at: &str, text: &str) -> Option<Vec<String>> {
    let segments: Vec<String> = text.trim_matches('/').split('/').map(str::to_owned).collect();
    let plain = |s: &String| {
        !s.is_empty() && s != "." && s != ".." && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b))
    };
    let message = if !text.starts_with('/') || !segments.iter().all(plain) {
        format!("`{text}` is not a mount such as `/crm`: unreserved characters only")
    } else if segments.first().is_some_and(|s| s == "-") {
        "`/-/` is reserved".to_owned()
    } else {
        return Some(segments);
    };
    ctx.err(at, message);
    None
}

fn breaker(ctx: &mut Ctx<'_>, at: &str, b: Option<&file::Breaker>) -> BreakerRule {
    let defaults = BreakerRule { failures: 5, within: Duration::from_secs(30), retry_after: Duration::from_secs(20) };
    let Some(b) = b else { return defaults };
    if b.failures == 0 {
        ctx.err(format!("{at}/failures"), "must be at least 1");
    }
    BreakerRule {
        failures: b.failures.max(1),
        within: ctx.duration(&format!("{at}/within"), b.within.as_ref(), defaults.within),
        retry_after: ctx.duration(&format!("{at}/retry_after"), b.retry_after.as_ref(), defaults.retry_after),
    }
}
