//! Where a tool's upstream is: a URL, or a command.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::super::Secret;
use super::super::used::{HttpServer, StdioServer, UpstreamAt, UpstreamAuth, UpstreamConfig};
use super::{Ctx, file};

pub(super) fn upstream(ctx: &mut Ctx<'_>, at: &str, kind: file::Kind, u: &file::Upstream) -> Option<UpstreamConfig> {
    let timeout = ctx.duration(&format!("{at}/timeout"), u.timeout.as_ref(), Duration::from_secs(30));
    let at = match (&u.url, &u.command) {
        (Some(url), None) => {
            unused(ctx, at, "url", &[("env", !u.env.is_empty()), ("cwd", u.cwd.is_some())]);
            UpstreamAt::Http(http(ctx, at, url, u)?)
        }
        (None, Some(command)) => {
            if kind != file::Kind::Mcp {
                ctx.err(format!("{at}/command"), "only a tool of `kind: mcp` can be a command");
            }
            let of_url = [
                ("auth", u.auth.is_some()),
                ("ca", u.ca.is_some()),
                ("forward_headers", !u.forward_headers.is_empty()),
            ];
            unused(ctx, at, "command", &of_url);
            UpstreamAt::Stdio(stdio(ctx, at, command, u)?)
        }
        _ => {
            ctx.err(at, "give exactly one of `url` and `command`");
            return None;
        }
    };
    Some(UpstreamConfig { at, timeout })
}

/// One server of MCP, without a file around it.
pub(in super::super) fn lone(
    at: Result<&str, &[String]>,
    token: Option<&str>,
    env: &[String],
    base: &Path,
) -> Result<UpstreamConfig, String> {
    let named = |name: &str| (Some(name.to_owned()), None);
    let bearer = |name: &str| {
        let (env, file) = named(name);
        file::Auth::Bearer(file::SecretRef { env, file })
    };
    let variable = |name: &String| {
        let (env, file) = named(name);
        (name.clone(), file::EnvValue { env, file, value: None })
    };
    let given = file::Upstream {
        url: at.ok().map(str::to_owned),
        command: at.err().map(<[String]>::to_vec),
        env: env.iter().map(variable).collect(),
        cwd: None,
        timeout: None,
        auth: token.map(bearer),
        forward_headers: Vec::new(),
        ca: None,
    };
    let mut ctx = Ctx { base, wrong: Vec::new(), covered: Vec::new(), unlocked: true, own_reads: Vec::new() };
    let found = upstream(&mut ctx, "/upstream", file::Kind::Mcp, &given);
    let wrong: Vec<String> = ctx.wrong.into_iter().map(|(at, what)| format!("{at}: {what}")).collect();
    found.filter(|_| wrong.is_empty()).ok_or_else(|| wrong.join("; "))
}

fn unused(ctx: &mut Ctx<'_>, at: &str, with: &str, keys: &[(&str, bool)]) {
    for (key, _) in keys.iter().filter(|(_, given)| *given) {
        ctx.err(format!("{at}/{key}"), format!("does not go with `{with}`"));
    }
}

fn stdio(ctx: &mut Ctx<'_>, at: &str, command: &[String], u: &file::Upstream) -> Option<StdioServer> {
    let place = format!("{at}/command");
    let Some((program, args)) = command.split_first().filter(|(program, _)| !program.is_empty()) else {
        ctx.err(place, "must name a program");
        return None;
    };
    if command.iter().any(|part| part.contains('\0')) {
        ctx.err(&place, "must not have a NUL character");
    }
    let program = program_of(ctx, &place, program)?;
    let cwd = ctx.path(u.cwd.as_deref().unwrap_or(Path::new(".")));
    let cwd = absolute(ctx, &format!("{at}/cwd"), &cwd)?;
    if !cwd.is_dir() {
        ctx.err(format!("{at}/cwd"), format!("`{}` is not a folder", cwd.display()));
    }
    Some(StdioServer { program, args: args.to_vec(), env: env(ctx, at, &u.env), cwd })
}

/// A name is looked up in `PATH` when it is started; a path is relative to the file.
fn program_of(ctx: &mut Ctx<'_>, at: &str, program: &str) -> Option<String> {
    if !program.contains('/') {
        return Some(program.to_owned());
    }
    let path = ctx.path(Path::new(program));
    let path = absolute(ctx, at, &path)?;
    if !path.is_file() {
        ctx.err(at, format!("`{}` is not a file", path.display()));
    }
    ctx.ok(at, path.into_os_string().into_string().map_err(|_| "the path is not UTF-8".to_owned()))
}

fn absolute(ctx: &mut Ctx<'_>, at: &str, path: &Path) -> Option<PathBuf> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    ctx.ok(at, std::path::absolute(path).map_err(|e| format!("`{}`: {e}", path.display())))
}

fn env(ctx: &mut Ctx<'_>, at: &str, all: &BTreeMap<String, file::EnvValue>) -> BTreeMap<String, Secret> {
    let mut out = BTreeMap::new();
    for (name, given) in all {
        let at = format!("{at}/env/{name}");
        if name.is_empty() || name.contains(['=', '\0']) {
            ctx.err(&at, "is no name of an environment variable");
        }
        let Some(value) = env_value(ctx, &at, given) else { continue };
        if value.contains('\0') {
            ctx.err(&at, "must not have a NUL character");
        }
        out.insert(name.clone(), Secret::new(value));
    }
    out
}

fn env_value(ctx: &mut Ctx<'_>, at: &str, given: &file::EnvValue) -> Option<String> {
    match (&given.value, &given.env, &given.file) {
        (Some(text), None, None) => Some(text.clone()),
        (None, Some(_), None) | (None, None, Some(_)) => {
            ctx.secret(at, &file::SecretRef { env: given.env.clone(), file: given.file.clone() })
        }
        _ => {
            ctx.err(at, "give exactly one of `env`, `file` and `value`");
            None
        }
    }
}

fn http(ctx: &mut Ctx<'_>, at: &str, text: &str, u: &file::Upstream) -> Option<HttpServer> {
    let url = format!("{at}/url");
    let uri = text.parse::<Uri>().map_err(|e| format!("`{text}` is not a URL: {e}"));
    let uri = ctx.ok(&url, uri)?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        ctx.err(url, "must begin with `http://` or `https://`");
        return None;
    };
    if authority.as_str().contains('@') || uri.query().is_some() {
        ctx.err(url, "must have no user, password or query; credentials go in `auth`");
        return None;
    }
    let origin = ctx.ok(&url, format!("{scheme}://{authority}").parse::<Uri>().map_err(|e| e.to_string()))?;
    for (i, name) in u.forward_headers.iter().enumerate() {
        if !may_forward(name) {
            ctx.err(format!("{at}/forward_headers/{i}"), format!("`{name}` cannot be forwarded"));
        }
    }
    let ca = u.ca.as_ref().map(|c| ctx.path(&c.file));
    if let Some(missing) = ca.as_ref().filter(|c| !c.is_file()) {
        ctx.err(format!("{at}/ca"), format!("`{}` is not a file", missing.display()));
    }
    Some(HttpServer {
        origin,
        base: uri.path().trim_end_matches('/').to_owned(),
        auth: u.auth.as_ref().map_or(Some(UpstreamAuth::None), |a| auth(ctx, &format!("{at}/auth"), a))?,
        ca,
    })
}

/// Whether `forward_headers` may name this header.
#[must_use]
pub fn may_forward(name: &str) -> bool {
    name.parse::<HeaderName>().is_ok() && !is_ours(name)
}

/// Fields that decide framing, identity or routing never come from a client.
fn is_ours(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let fixed = [
        "authorization",
        "connection",
        "content-length",
        "content-encoding",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "idempotency-key",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-api-key",
        "x-real-ip",
    ];
    fixed.contains(&name.as_str()) || name.starts_with("x-forwarded-") || name.starts_with("holdpoint-")
}

fn auth(ctx: &mut Ctx<'_>, at: &str, a: &file::Auth) -> Option<UpstreamAuth> {
    let (name, value) = match a {
        file::Auth::PassThrough => return Some(UpstreamAuth::PassThrough),
        file::Auth::Bearer(reference) => (AUTHORIZATION, format!("Bearer {}", ctx.secret(at, reference)?)),
        file::Auth::Header { name, value } => {
            let parsed = name.parse::<HeaderName>().map_err(|_| format!("`{name}` is not a header name"));
            (ctx.ok(at, parsed)?, ctx.secret(at, value)?)
        }
    };
    if HeaderValue::from_str(&value).is_err() {
        ctx.err(at, "the secret cannot stand in a header: it has control characters");
        return None;
    }
    Some(UpstreamAuth::Header(name, Secret::new(value)))
}
