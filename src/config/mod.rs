//! The configuration: the file as written (`file`), then all mistakes at once (`resolve`), then [`Config`] as used.

mod document;
mod file;
mod file_notify;
mod file_tools;
pub mod lock;
mod mistakes;
mod resolve;
mod secret;
mod tree;
mod units;
mod used;
mod used_notify;

pub use document::Document;
pub use mistakes::{Mistake, Mistakes};
pub use resolve::may_forward;
pub use secret::Secret;
pub use units::duration;
pub use used::{
    AgentKey, BreakerRule, BudgetRule, BudgetScope, CertAgent, Config, HttpServer, IdentityConfig, JwtRule, Keys,
    ListenConfig, MtlsRule, OidcRule, RatePer, RateRule, ReviewRules, Reviewer, SlackReviewer, StateConfig,
    StdioServer, TlsFiles, ToolConfig, UpstreamAt, UpstreamAuth, UpstreamConfig, Workflow,
};
pub use used_notify::{Channel, NotifyRule, Slack, Smtp, Webhook};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A URL of a server whose word counts: https, or http on loopback.
#[must_use]
pub fn safe_url(url: &str) -> Option<http::Uri> {
    let is_loopback = |uri: &http::Uri| {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    };
    let uri = url.parse::<http::Uri>().ok().filter(|u| u.authority().is_some_and(|a| !a.as_str().contains('@')));
    uri.filter(|u| u.scheme_str() == Some("https") || (u.scheme_str() == Some("http") && is_loopback(u)))
}

/// The JSON Schema of the configuration file.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    serde_json::to_value(schemars::schema_for!(file::File)).unwrap_or_default()
}

/// Reads the file, finds every mistake, and resolves it to what is used.
///
/// # Errors
/// All mistakes, each with its place in the file.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Mistakes::one(path, None, "", format!("cannot read the configuration: {e}")))?;
    parse(&text, path)
}

/// As [`load`], from text that stands in `path`; paths inside it are relative to that file.
///
/// # Errors
/// All mistakes, each with its place in the text.
pub fn parse(text: &str, path: &Path) -> Result<Config, Mistakes> {
    Ok(read(text, path, false)?.0)
}

/// As [`load`], for `holdpoint lock`: lock files that are missing are taken as empty. Gives their paths by tool.
///
/// # Errors
/// All mistakes but those about lock files.
pub fn load_unlocked(path: &Path) -> Result<(Config, BTreeMap<String, PathBuf>), Mistakes> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Mistakes::one(path, None, "", format!("cannot read the configuration: {e}")))?;
    read(&text, path, true)
}

/// An MCP server before there is a configuration: what `holdpoint init` asks for its tools. Paths of a command are
/// relative to `base`, its folder; `token` and `env` name environment variables.
///
/// # Errors
/// What is wrong with it, each with its key.
pub fn upstream(
    at: Result<&str, &[String]>,
    token: Option<&str>,
    env: &[String],
    base: &Path,
) -> Result<UpstreamConfig, String> {
    resolve::lone_upstream(at, token, env, base)
}

fn read(text: &str, path: &Path, unlocked: bool) -> Result<(Config, BTreeMap<String, PathBuf>), Mistakes> {
    let tree = tree::parse(text, path)?;
    let value = tree.value();
    let wrong = mistakes::against_schema(&value, &json_schema(), "config");
    if !wrong.is_empty() {
        return Err(Mistakes::at(path, &tree, wrong));
    }
    let file: file::File = serde_json::from_value(value)
        .map_err(|e| Mistakes::one(path, None, "", format!("not a configuration: {e}")))?;
    let base = path.parent().unwrap_or(Path::new("."));
    let locks = file.tools.iter().filter_map(|(n, t)| t.lock.as_ref().map(|l| (n.clone(), base.join(l)))).collect();
    let config = resolve::resolve(file, base, text, unlocked).map_err(|wrong| Mistakes::at(path, &tree, wrong))?;
    Ok((config, locks))
}
