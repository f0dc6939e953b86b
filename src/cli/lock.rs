//! `holdpoint lock`: what an MCP server offers, pinned.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Exit, runtime};
use crate::clock::SystemClock;
use crate::config::lock::{self, Difference, Lock, is_tool_name};
use crate::config::{self, ToolConfig, UpstreamConfig};
use crate::gates::upstream::{Endpoint, Servers, catalog};
use crate::wire::tls;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this tool.
    tool: Option<String>,
    /// The configuration.
    #[arg(long, default_value = "holdpoint.yaml")]
    config: PathBuf,
    /// Show the difference and write nothing. Exit 3 when there is one.
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, out: &mut impl Write) -> anyhow::Result<Exit> {
    tls::install_provider();
    let (config, locks) = match config::load_unlocked(&args.config) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            writeln!(std::io::stderr(), "{mistakes}")?;
            return Ok(Exit::Rejected);
        }
    };
    let wanted = |t: &&ToolConfig| {
        locks.contains_key(&t.tool.name) && args.tool.as_ref().is_none_or(|name| *name == t.tool.name)
    };
    let tools: Vec<_> = config.tools.iter().filter(wanted).collect();
    if tools.is_empty() {
        let known: Vec<_> = locks.keys().map(String::as_str).collect();
        anyhow::bail!("no such MCP tool in the configuration; there are: {}", known.join(", "));
    }
    let runtime = runtime()?;
    let mut differs = false;
    for tool in tools {
        let definitions = runtime.block_on(fetched(&tool.tool.name, &tool.tool.mount, &tool.upstream))?;
        differs |= one(args, tool, &locks, definitions, out)?;
    }
    Ok(if differs && args.dry_run { Exit::Differs } else { Exit::Ok })
}

/// What a server offers; a command is started for it and stopped again.
pub(super) async fn fetched(
    name: &str,
    mount: &[String],
    upstream: &UpstreamConfig,
) -> anyhow::Result<Vec<serde_json::Value>> {
    let servers = Servers::here();
    let endpoint = Endpoint::new(name, mount, upstream, &servers)?;
    let list = catalog(&endpoint, upstream.base(), Arc::new(SystemClock)).await;
    servers.stop().await;
    list.map_err(|why| anyhow::anyhow!("{name}: {}{} ({why})", upstream.origin(), upstream.base()))
}

fn one(
    args: &Args,
    t: &ToolConfig,
    locks: &BTreeMap<String, PathBuf>,
    definitions: Vec<serde_json::Value>,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let name = &t.tool.name;
    let Some(path) = locks.get(name) else { return Ok(false) };
    let new = Lock::of(name, definitions);
    if let Some(odd) = new.tools.keys().find(|n| !is_tool_name(n)) {
        anyhow::bail!("{name}: the tool name `{}` has characters that no name may have", odd.escape_debug());
    }
    let old = match std::fs::read_to_string(path) {
        Ok(text) => Lock::parse(&text, name).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))?,
        Err(_) => Lock::of(name, Vec::new()),
    };
    let differences = old.differences(&new);
    writeln!(out, "{name}  {} tools, {} differences", new.tools.len(), differences.len())?;
    for difference in &differences {
        match difference {
            Difference::Added(tool) => writeln!(out, "  + {tool}")?,
            Difference::Removed(tool) => writeln!(out, "  - {tool}")?,
            Difference::Changed(tool) => changed(tool, &old, &new, out)?,
        }
    }
    if (!differences.is_empty() || !path.exists()) && !args.dry_run {
        std::fs::write(path, new.text())?;
        writeln!(out, "written to {}; `holdpoint check` says what it means for policies", path.display())?;
    }
    Ok(!differences.is_empty())
}

/// The members that moved, old and new, one line each: a person must be able to read what changed.
fn changed(tool: &str, old: &Lock, new: &Lock, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "  ~ {tool}")?;
    let (Some(old), Some(new)) = (old.tools.get(tool), new.tools.get(tool)) else { return Ok(()) };
    for lock::Moved { member, was, is } in lock::moved(Some(&old.definition), &new.definition) {
        writeln!(out, "      {member}\n        was {was}\n        is  {is}")?;
    }
    Ok(())
}
